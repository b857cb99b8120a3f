"""What the mask admits, the parser reads and the validator accepts; and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

import toolguard
from toolguard import Guard, Toolset, WireFormat
from toolguard.decoding import guard as guard_module
from toolguard.grammar import mask_grammar

from .sizes import sizes
from .strategies import schemas

Admits = Callable[..., bool]

CALL = '<tool_call>\n{"name": "get_time", "arguments": {"zone": "Europe/Paris"}}\n</tool_call>'


@pytest.fixture
def admits(tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, object]]) -> Admits:
    def check(text: str, **options: Any) -> bool:
        guard = Guard.compile("hermes", tools, tokenizer, **options)
        return walks(guard, [*encode(tokenizer, text), guard.vocabulary.end_ids[0]])

    return check


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def walks(guard: Guard, ids: list[int]) -> bool:
    """Whether every id is in the mask when its turn comes, and the state then takes it."""
    state = guard.start(10_000)
    for token in ids:
        legal = bool(state.mask()[token >> 5] >> (token & 31) & 1)
        assert state.copy().accept(token) == legal, (token, state.ids)
        if not state.accept(token):
            return False
    return state.done


@pytest.mark.parametrize(
    "text",
    [
        "It is late.",
        'a < b, {x}, function, "quoted" and <b>bold</b>',
        CALL,
        "Let me look.\n" + CALL,
        CALL + "\n" + CALL,
        CALL + CALL + "\n",
        "\n\n" + CALL,
        "<think>\nHm, <b>\n</think>\n\n" + CALL,
        "<think></think>Noon.",
        CALL.replace("\n", ""),
        CALL.replace(": ", ":").replace(", ", ","),
        '<tool_call>{"arguments": {"zone": "UTC"}, "name": "get_time"}</tool_call>',
        '<tool_call>{\n  "name": "get_time",\n  "arguments": {\n    "zone": "\\u00e9é😀\\n"\n  }\n}'
        "\n</tool_call>",
        '<tool_call>{"name": "ping", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "get_weather", "arguments": {"unit": "celsius", "days": 14, '
        '"options": {"tags": ["a", "b"], "metric": false}, "city": ""}}</tool_call>',
    ],
)
def test_healthy_turns_are_admitted_and_read(
    admits: Admits, text: str, tokenizer: Any, tools: Any
) -> None:
    assert admits(text)
    guard = Guard.compile("hermes", tools, tokenizer)
    turn = guard.read([*encode(tokenizer, text), guard.vocabulary.end_ids[0]])
    assert turn.faults == ()
    assert turn.raw == text
    assert len(turn.calls) == text.count("</tool_call>")
    assert toolguard.read_turn(text, guard.format, guard.toolset).calls == turn.calls


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "empty_turn"),
        ("\n \n", "empty_turn"),
        ("<tool_call>\n", "open_then_stop"),
        ("<tool_call>", "open_then_stop"),
        ('<tool_call>\n{"name": "get_time"', "missing_close"),
        (CALL[:-12], "missing_close"),
        ("<tool_call>\n<|im_start|>user\n" + CALL[12:], "role_in_call"),
        ("Well.<|im_start|>user", "run_on"),
        ("</tool_call>", "orphan_closer"),
        (CALL + "\nexecution result: []", "fabricated_response"),
        (CALL + "\n<tool_response>\n[]", "fabricated_response"),
        (CALL.replace('": "E', '"= "E'), "equals_for_colon"),
        (CALL.replace('"}}', '")}'), "bracket_mismatch"),
        (CALL[12:-12].strip(), "untagged_call"),
        ("<think>\nhm", "unclosed_reasoning"),
        (CALL.replace("get_time", "get_tide"), "unknown_tool"),
        (CALL.replace("zone", "area"), "bad_arguments"),
        (CALL.replace('"Europe/Paris"', "3"), "bad_arguments"),
        (CALL.replace('"}}', '", "zone": "b"}}'), "bad_arguments"),
        (CALL.replace('"}}', '", "other": "b"}}'), "bad_arguments"),
        (
            '<tool_call>{"name": "get_weather", "arguments": {"city": "x"}}</tool_call>',
            "bad_arguments",
        ),
        (CALL.replace("Europe", "<tool_call>"), "doubled_opener"),
    ],
)
def test_faulty_turns_are_refused_and_classified(
    admits: Admits, text: str, fault: str, tokenizer: Any, tools: Any
) -> None:
    # A bare call body is text to the mask; leading it into the opener is the policy's work.
    assert admits(text) == (fault == "untagged_call")
    guard = Guard.compile("hermes", tools, tokenizer)
    turn = guard.read([*encode(tokenizer, text), guard.vocabulary.end_ids[0]])
    assert turn.faults[0].kind == fault
    assert turn.state == (
        "collapsed" if text.strip() in ("", "<tool_call>", "</tool_call>") else "polluted"
    )


def test_white_space_is_bounded(admits: Admits) -> None:
    assert admits(CALL.replace(": ", ":" + " " * 32))
    assert not admits(CALL.replace(": ", ":" + " " * 33))
    assert admits(CALL.replace("\n{", "\n\n" + " " * 32 + "{"))
    assert not admits(CALL.replace("\n{", "\n\n" + " " * 33 + "{"))
    assert not admits(CALL.replace("\n{", "\n\n\n{"))
    assert admits("\n" * 16 + "Noon.")
    assert not admits("\n" * 17 + "Noon.")
    assert not admits("\n" * 17 + CALL)


def test_what_is_white_space_is_one_thing_to_mask_and_parser(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, object]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    blank = [character for character in map(chr, range(0x3001)) if character.isspace()]
    for text in [*blank, "\N{ZERO WIDTH SPACE}"]:
        ids = encode(tokenizer, text)
        read = guard.read([*ids, guard.vocabulary.end_ids[0]])
        assert walks(guard, read.ids) == (read.state == "healthy_response"), repr(text)


def test_the_request_limits_what_is_legal(admits: Admits) -> None:
    assert not admits(CALL, tool_choice="none")
    assert admits("Noon.", tool_choice="none")
    assert not admits("Noon.", tool_choice="required")
    assert admits("Noon? " + CALL, tool_choice="required")
    assert admits(CALL, tool_choice="get_time")
    assert not admits(CALL, tool_choice="ping")
    assert admits(CALL, parallel=False)
    assert not admits(CALL + CALL, parallel=False)
    assert admits("so</think>Noon.", reasoning="open")
    assert not admits("<think>so</think>Noon.", reasoning="none")


def test_a_spelled_out_opener_is_held_to_the_grammar_too(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, object]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    opener = guard.vocabulary.ids_of(b"<tool_call>")
    assert guard.control_ids["<tool_call>"] not in opener
    body = encode(tokenizer, CALL[11:])
    end = guard.vocabulary.end_ids[0]
    assert walks(guard, [*opener, *body, end])
    assert walks(guard, [*encode(tokenizer, "So: "), *opener, *body, end])
    assert not walks(guard, [*opener, *encode(tokenizer, " is a tag"), end])
    assert len(guard.read([*opener, *body, end]).calls) == 1


def test_every_end_token_ends_a_turn(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, object]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    assert len(guard.vocabulary.end_ids) == 2
    for end in guard.vocabulary.end_ids:
        assert walks(guard, [*encode(tokenizer, CALL), end])
        assert not walks(guard, [*encode(tokenizer, CALL[:-12]), end])


def test_control_tokens_inside_a_string_are_seen_as_tokens(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, object]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    before, after = CALL.split("Europe")
    opener = guard.vocabulary.ids_of(b"<tool_call>")
    end = guard.vocabulary.end_ids[0]
    spelled = [*encode(tokenizer, before), *opener, *encode(tokenizer, after), end]
    assert guard.read(spelled).faults == ()  # a string may hold any text
    assert walks(guard, spelled)


@pytest.mark.parametrize("value", ["5.0", "5e1", "25E6", "5e+1", "0e0", "5.5", "5e-1"])
def test_an_integer_may_be_written_with_an_exponent(
    value: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    tools = [{"name": "f", "parameters": {"properties": {"x": {"type": "integer"}}}}]
    guard = Guard.compile("hermes", tools, tokenizer)
    text = f'<tool_call>{{"name": "f", "arguments": {{"x": {value}}}}}</tool_call>'
    ids = [*encode(tokenizer, text), guard.vocabulary.end_ids[0]]
    assert walks(guard, ids) == (guard.read(ids).faults == ()) == float(value).is_integer()


# JSON Schema's `format` is an annotation to the validator, but a rule to the mask.
PLAIN = schemas().filter(lambda schema: '"format"' not in json.dumps(schema))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=PLAIN, data=st.data())
def test_mask_and_validator_agree_on_values(
    tokenizer: PreTrainedTokenizerBase, schema: dict[str, Any], data: st.DataObject
) -> None:
    tools = [{"name": "f", "parameters": {"properties": {"v": schema}, "required": ["v"]}}]
    guard = Guard.compile("hermes", tools, tokenizer)
    value = data.draw(st.one_of(values(schema), values(data.draw(PLAIN))))
    layout = data.draw(st.sampled_from([{}, {"separators": (",", ":")}, {"indent": 2}]))
    text = json.dumps({"name": "f", "arguments": {"v": value}}, ensure_ascii=False, **layout)
    valid = not Toolset.of(tools).errors("f", {"v": value})
    call = f"<tool_call>\n{text}\n</tool_call>"
    assert walks(guard, [*encode(tokenizer, call), guard.vocabulary.end_ids[0]]) == valid


MUTATED = [
    "Let me look.\n" + CALL + "\n" + CALL,
    "<think>\nHm.\n</think>\n\n" + CALL,
    '<tool_call>{"arguments": {"unit": "celsius", "days": 14, "options": {"tags": ["a", "b\\n"], '
    '"metric": false}, "city": "x"}, "name": "get_weather"}</tool_call>',
]
SIGNS = [
    *'"\\{}[]:,. \n0a1-tué<>/|_',
    "<tool_call>",
    "</tool_call>",
    "<|im_start|>",
    "</think>",
    "",
]


@sizes(300, 1000)
def test_mask_and_parser_agree_on_mutations(
    size: int, tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, object]]
) -> None:
    """One character, or one control token, is put in, taken out or put in another's place."""
    guard = Guard.compile("hermes", tools, tokenizer)

    @settings(max_examples=size, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        mutation(guard, tokenizer, data)

    check()


def mutation(guard: Guard, tokenizer: PreTrainedTokenizerBase, data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(MUTATED))
    place = data.draw(st.integers(0, len(text)))
    sign = data.draw(st.sampled_from(SIGNS))
    mutated = text[:place] + sign + text[place + data.draw(st.integers(0, 1)) :]
    ids = [*encode(tokenizer, mutated), guard.vocabulary.end_ids[0]]
    turn = guard.read(ids)
    assert walks(guard, ids) == turn.state.startswith("healthy"), turn.faults
    if turn.state.startswith("healthy"):
        assert toolguard.read_turn(mutated, guard.format, guard.toolset).calls == turn.calls


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that satisfy the schema, or nearly."""
    options = schema.get("anyOf")
    if options:
        return st.one_of([values(option) for option in options])
    if "enum" in schema or "const" in schema:
        return st.sampled_from([*schema.get("enum", []), schema.get("const", "fixed")])
    kind = schema.get("type", "string")
    match kind[0] if isinstance(kind, list) else kind:
        case "string" if "format" in schema:
            return st.sampled_from(["2024-02-29", "2024-12-01", "1.1.2024", ""])
        case "string" if "pattern" in schema:
            return st.sampled_from(["AB1", "ZZ09", "A1", "ab1", "AB"])
        case "string":
            return st.text(st.characters(codec="utf-8", min_codepoint=32), max_size=15)
        case "integer":
            return st.integers(-300, 300) | st.none()
        case "number":
            return st.integers(-9, 9) | st.sampled_from([0.5, -3.25, 1e10, 2.5e-7])
        case "boolean":
            return st.booleans()
        case "array":
            return st.lists(values(schema["items"]), max_size=6)
        case _:
            members = {key: values(inner) for key, inner in schema.get("properties", {}).items()}
            required = {k: v for k, v in members.items() if k in schema.get("required", [])}
            optional = {k: v for k, v in members.items() if k not in required}
            whole = st.fixed_dictionaries(required, optional=optional)
            return whole.flatmap(
                lambda drawn: (
                    st.permutations(list(drawn.items())).map(dict) | st.just({**drawn, "extra": 1})
                )
            )


@pytest.mark.parametrize("name", toolguard.format_names())
def test_what_makes_masks_cheap_changes_none(
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    tools: list[dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = {"name": "get_time", "arguments": {"zone": "Europe/Paris"}}
    call = toolguard.render(WireFormat.load(name), [made])
    texts = [
        call,
        call[: len(call) // 2] + "<",
        "a < b <|tool",
        " " * 9 + "[f",
        '{"name',
        "</para>",
    ]
    guards = [Guard.compile(name, tools, tokenizer)]
    guard_module._compile.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(mask_grammar, "witnesses", lambda *_, **__: [])
        guards.append(Guard.compile(name, tools, tokenizer))
    guard_module._compile.cache_clear()
    assert guards[0] is not guards[1]
    for text in texts:
        states = [guard.start(10_000) for guard in guards]
        for token in encode(tokenizer, text):
            masks = [state.mask() for state in states]
            assert (masks[0] == masks[1]).all(), states[0].ids
            if not states[0].accept(token) or not states[1].accept(token):
                break


@pytest.mark.parametrize("name", ["hermes", "harmony", "qwen3_xml"])
def test_a_thousand_tools_can_be_called(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    parameters = {"properties": {"x": {"type": "string"}, "n": {"type": "integer"}}}
    tools = [{"name": f"tool_{i}", "parameters": parameters} for i in range(1000)]
    guard = Guard.compile(name, tools, tokenizer)
    call = {"name": "tool_999", "arguments": {"n": 1}}
    text = toolguard.render(toolguard.WireFormat.load(name), [call])
    assert walks(guard, [*encode(tokenizer, text), guard.vocabulary.end_ids[0]])
