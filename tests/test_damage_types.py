"""The damage of the repair benchmark does what it says, and leaves alone what it cannot touch."""

from __future__ import annotations

from random import Random

import pytest

import toolguard
from benchmarks.damage_types import DAMAGES, Rendered
from toolguard import WireFormat

CALL = {"name": "f", "arguments": {"city": "Paris", "sure": True}}
BODY = '{"name": "f", "arguments": {"city": "Paris", "sure": true}}'


def rendered(name: str) -> Rendered:
    wire_format = WireFormat.load(name)
    return Rendered(wire_format, [CALL], toolguard.render(wire_format, [CALL]))


def damaged(damage: str, name: str = "hermes") -> set[str | None]:
    """What a damage makes of the turn under some seeds."""
    return {DAMAGES[damage](rendered(name), Random(seed)) for seed in range(400)}


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        ("drop_closer", f"<tool_call>\n{BODY}\n"),
        ("drop_opener", f"\n{BODY}\n</tool_call>"),
        ("drop_last_bracket", f"<tool_call>\n{BODY[:-1]}\n</tool_call>"),
        ("swap_bracket", f"<tool_call>\n{BODY[:-1]})\n</tool_call>"),
        ("equals_for_colon", '"arguments": {"city"="Paris", "sure"=true}}'),
        (
            "curly_quotes",
            '"arguments": {\u201ccity\u201d: \u201cParis\u201d, \u201csure\u201d: true}',
        ),
        ("stray_prefix", f"<tool_call>\n>\n{BODY}"),
        ("role_after_opener", f"<tool_call>user\n{BODY}"),
        ("doubled_opener", f"<tool_call>\n<tool_call>\n{BODY}"),
        ("run_on", "</tool_call>\nuser\n\nassistant\n\nuser"),
        ("fabricated_response", "</tool_call>\n<tool_response>\n[]\n</tool_response>"),
        ("fabricated_call", '"arguments": {"city": "Paris too", "sure": true}'),
        ("double_encoded", r'"arguments": "{\"city\": \"Paris\", \"sure\": true}"}'),
        ("flattened", '{"name": "f", "city": "Paris", "sure": true}'),
        ("trailing_comma", '"sure": true,}}'),
        ("single_quotes", "\"arguments\": {'city': 'Paris', 'sure': true}}"),
        ("python_literals", '"sure": True}}'),
        ("truncated", '"arguments": {"city": "Pa'),
        ("value_deleted", '"arguments": {"city": , "sure": true}}'),
        ("quote_dropped", '"city": "Paris, "sure"'),
        ("foreign_format", "[f(city='Paris', sure=True)]"),
        ("fenced_json", f"```json\n{BODY}\n```"),
    ],
)
def test_damage_is_what_its_name_says(damage: str, text: str) -> None:
    assert any(text in (made or "") for made in damaged(damage))


@pytest.mark.parametrize("name", ["hermes", "pythonic", "glm_xml", "gemma4"])
def test_what_is_truncated_ends_within_a_value(name: str) -> None:
    parts = ("P", "Pa", "Par", "Pari", "t", "tr", "tru", "T", "Tr", "Tru")
    texts = damaged("truncated", name)
    assert len(texts) == 7
    assert all(text is not None and text.endswith(parts) for text in texts)


@pytest.mark.parametrize(
    ("damage", "name"),
    [("double_encoded", "glm_xml"), ("flattened", "kimi_k2"), ("role_after_opener", "pythonic")],
)
def test_what_a_format_does_not_have_is_not_damaged(damage: str, name: str) -> None:
    assert damaged(damage, name) == {None}
