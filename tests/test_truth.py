"""What is said of a turn is true: messages of faults, states that are not too kind, ends, words."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerBase

import toolguard
from toolguard import Guard, Toolset, Turn, WireFormat
from toolguard.parsing.events import TextDelta, TurnEnd
from toolguard.parsing.parser import TurnParser

from .broken import broken, is_true
from .sizes import in_turn, sizes
from .turns import examples

NAMES = toolguard.format_names(variants=True)
INTEGER = {"type": "integer"}
TOOLS = Toolset.of(
    [
        {"name": "count", "parameters": {"type": "object", "properties": {"n": INTEGER}}},
        {"name": "now", "parameters": {"type": "object", "properties": {}}},
    ]
)
COUNT = '{"name": "count", "arguments": {"n": 2}}'


def streamed(text: str, wire_format: WireFormat, toolset: Toolset) -> Turn:
    """A turn read a character at a time; its prose is told as it is."""
    parser = TurnParser(wire_format, toolset, opened=False)
    events = [event for sign in text for event in parser.feed(sign)]
    events += parser.finish()
    end = events[-1]
    assert isinstance(end, TurnEnd)
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == end.turn.text
    return end.turn


@pytest.mark.parametrize("name", NAMES)
def test_messages_are_true_of_the_turn(name: str) -> None:
    wire_format = WireFormat.load(name)
    several = examples(name)
    for example in (several[0], several[len(several) // 2], several[-1]):
        toolset = Toolset.of(example["tools"])
        for text in list(broken(example["turn"], wire_format))[::5]:
            turn = toolguard.read_turn(text, wire_format, toolset)
            for fault in turn.faults:
                assert is_true(fault, turn, wire_format), (fault, text)


@sizes(1, 3)
@pytest.mark.parametrize("name", NAMES)
def test_an_end_token_at_the_very_end_of_a_text_ends_the_turn(name: str, size: int) -> None:
    wire_format = WireFormat.load(name)
    for example in examples(name)[:size]:
        toolset = Toolset.of(example["tools"])
        bare = toolguard.read_turn(example["turn"], wire_format, toolset)
        for end in wire_format.ends:
            for tail in (end, f"{end}\n", end * 3):
                text = example["turn"] + tail
                assert toolguard.read_turn(text, wire_format, toolset) == bare, text
                assert toolguard.read_turn(text, wire_format, toolset, ended=False) == bare
                assert toolguard.classify(text, toolset, name) == bare
                assert toolguard.repair(text, toolset, name).before == bare
            whole = toolguard.read_turn(example["turn"], wire_format, toolset, opened=False)
            assert streamed(example["turn"] + end, wire_format, toolset) == whole


@pytest.mark.parametrize("name", NAMES)
def test_behind_an_end_token_in_the_middle_the_turn_runs_on(name: str) -> None:
    wire_format = WireFormat.load(name)
    example = next(each for each in examples(name) if not each["calls"])
    toolset = Toolset.of(example["tools"])
    turn = toolguard.read_turn(f"{example['turn']}{wire_format.ends[0]}oops", wire_format, toolset)
    assert turn.state == "polluted"
    assert "run_on" in [fault.kind for fault in turn.faults]


@pytest.mark.parametrize("name", ["hermes", "qwen3_xml", "kimi_k2", "glm_xml", "mistral_args"])
@pytest.mark.parametrize(
    "text",
    [
        '{"name": "count"}',
        '{"name": "count", "n": 2}',
        '{"name": "count", "arguments": {"n": }}',
        '{"name": "count", "arguments": {"n": 2',
        '<tools>\n{"name": "count"}\n</tools>',
        f"<tools>\n{COUNT}\n</tools>",
        f"_call_\n{COUNT}\n_call_",
        f"<function_call> {COUNT}",
        f"{COUNT}\n{COUNT}",
        f"[{COUNT}, {COUNT}]",
        "[count(n=2)]",
        "count(n=2)",
    ],
)
def test_text_that_is_a_call_and_nothing_else_is_no_healthy_reply(name: str, text: str) -> None:
    wire_format = WireFormat.load(name)
    turn = toolguard.read_turn(text, wire_format, TOOLS)
    assert (turn.state, turn.calls, turn.calling) == ("polluted", (), True)
    assert streamed(text, wire_format, TOOLS) == turn


@pytest.mark.parametrize(
    "text",
    [
        f"{COUNT}\n\nThis is how a call looks.",
        '{"name": "count", "arguments": {"n": ...}}\n\nPut a number there.',
        f"A call:\n{COUNT}",
        f"```json\n{COUNT}\n```",
        "`count(n=2)`",
        "count(n)",
        "now()",
        "count(n=2) gives 2",
        '[{"name": "count", "description": "It counts.", "parameters": {"type": "object"}}]',
        '{"name": "count", "parameters": {"type": "object", "properties": {"n": {}}}}',
        '{"name": "Anna", "title": "count"}',
        '{"tools": ["count", "now"]}',
    ],
)
def test_prose_that_shows_a_call_stays_prose(text: str) -> None:
    turn = toolguard.read_turn(text, WireFormat.load("hermes"), TOOLS)
    assert (turn.state, turn.faults) == ("healthy_response", ())


@pytest.mark.parametrize("name", [name for name in NAMES if WireFormat.load(name).opener])
def test_control_tokens_in_quotes_are_words_of_a_text(name: str) -> None:
    wire_format = WireFormat.load(name)
    example = next(each for each in examples(name) if not each["calls"] and each["text"])
    toolset = Toolset.of(example["tools"])
    said, opener = example["text"], wire_format.opener
    for words in (f"A `{opener}` opens a call.", f'Say "{opener}".', f"(\u201c{opener}\u201d)"):
        text = example["turn"].replace(said, words)
        turn = toolguard.read_turn(text, wire_format, toolset, opened=False)
        assert (turn.state, turn.text) == ("healthy_response", words), turn.faults
        assert streamed(text, wire_format, toolset) == turn


OPENED = [n for n in NAMES if (w := WireFormat.load(n)).opener and w.replies_plainly]


@in_turn(
    "text",
    [
        "``The token `{}` opens a call``, it says.",
        "``The token {} opens`` is what it says.",
        "As in `a {} b` (a span).",
        "It is `{} ... {}`, so.",
        "So `{}{...}{}` it is.",
        "So:\n```\na {}: it opens\n```",
    ],
    names=OPENED,
)
def test_control_tokens_in_code_are_words_of_a_text(name: str, text: str) -> None:
    wire_format = WireFormat.load(name)
    closer = wire_format.closer or ""
    text = text.replace("{}", wire_format.opener, 1).replace("{}", closer)
    turn = toolguard.read_turn(text, wire_format, TOOLS, opened=False)
    assert (turn.state, turn.text) == ("healthy_response", text), turn.faults
    assert streamed(text, wire_format, TOOLS) == turn


def test_a_call_in_quotes_is_no_word() -> None:
    hermes = WireFormat.load("hermes")
    for text in (
        f'"<tool_call>{COUNT}</tool_call>"',
        f"A `<tool_call>\n{COUNT}\n</tool_call>`",
        f"A `b <tool_call>{COUNT}</tool_call>`",
        f"So:\n```\n<tool_call>\n{COUNT}\n</tool_call>\n```",
    ):
        turn = toolguard.read_turn(text, hermes, TOOLS, opened=False)
        assert turn.faults
        assert len(turn.calls) == 1
        assert streamed(text, hermes, TOOLS) == turn


SPELLED = Toolset.of(
    [
        {
            "name": "f",
            "parameters": {
                "type": "object",
                "properties": {
                    "a/b": {"enum": ["x/y", "\u00e9"]},
                    "open": {"type": "object", "additionalProperties": INTEGER},
                    "more": {
                        "type": "object",
                        "properties": {"x": INTEGER},
                        "additionalProperties": {"type": "string"},
                    },
                    "price": {"type": "number", "multipleOf": 0.01},
                },
            },
        }
    ]
)


@pytest.mark.parametrize("name", ["hermes", "llama3_json", "kimi_k2", "mistral_args"])
@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        (r'{"a\/b": "x\/y"}', True),
        (r'{"a/b": "\u00e9"}', True),
        (r'{"a/b": "x"}', False),
        (r'{"open": {"a\"b": 1, "\u0041\n": 2, "\ud83d\ude00": 3}}', True),
        (r'{"open": {"a\xb": 1}}', False),
        (r'{"more": {"a\/\u00e9": "1", "x": 1}}', True),
        (r'{"more": {"x": "1"}}', False),
        (r'{"more": {"\u0078": "1"}}', False),
        ('{"price": 19.99}', True),
        ('{"price": 0.07}', True),
        ('{"price": 19.999}', False),
    ],
)
def test_mask_and_reader_agree_on_spellings(
    name: str, arguments: str, right: bool, tokenizer: PreTrainedTokenizerBase
) -> None:
    guard = Guard.compile(name, SPELLED, tokenizer)
    made = toolguard.render(guard.format, [{"name": "f", "arguments": {}}])
    text = arguments.join(made.rsplit("{}", 1))
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], guard.vocabulary.end_ids[0]]
    state = guard.start(10_000)
    assert (all(map(state.accept, ids)) and state.done) is right
    assert (guard.read(ids).state == "healthy_call") is right
