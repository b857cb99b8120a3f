"""Every wire format: its own examples, random calls, mutations and random logits."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerBase

import toolguard
from benchmarks.real_data import made_calls
from toolguard import Guard, Toolset, WireFormat
from toolguard.formats.nodes import Literal, walk
from toolguard.formats.reader import TOOL_NAME, keys_of
from toolguard.parsing.turn import OF_TEXT

from .sizes import sizes
from .strategies import bare_toolsets
from .test_masks import encode, values, walks
from .turns import examples, random_turns

FORMATS = toolguard.format_names(variants=True)
QUICK = settings(deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", FORMATS)
def test_the_examples_beside_a_grammar_are_admitted_and_read_as_they_say(
    name: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    assert examples(name)
    for example in examples(name):
        guard = Guard.compile(name, example["tools"], tokenizer)
        ids = [*encode(tokenizer, example["turn"]), guard.vocabulary.end_ids[0]]
        assert walks(guard, ids), example["turn"]
        turns = [
            guard.read(ids),
            toolguard.read_turn(example["turn"], WireFormat.load(name), guard.toolset),
        ]
        for turn in turns:
            assert turn.faults == ()
            assert turn.reasoning == example["reasoning"]
            assert turn.text == example["text"]
            assert made_calls(turn) == example["calls"]


@cache
def drawn(size: int) -> list[tuple[list[dict[str, Any]], dict[str, Any]]]:
    """Tools, and a call of one of them: drawn once for all formats, since drawing takes longest."""
    found = []

    @settings(QUICK, max_examples=size, phases=[Phase.generate])
    @given(tools=bare_toolsets(), data=st.data())
    def draw(tools: list[dict[str, Any]], data: st.DataObject) -> None:
        toolset = Toolset.of(tools)
        tool = data.draw(st.sampled_from(tools))
        arguments = data.draw(values(tool["parameters"]))
        assume(not toolset.errors(tool["name"], arguments) and _plain(arguments))
        found.append((tools, {"name": tool["name"], "arguments": arguments}))

    draw()
    return found


@sizes(4, 50)
@pytest.mark.parametrize("name", FORMATS)
def test_what_is_rendered_is_admitted_and_read_back(
    name: str, size: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    assert len(drawn(size)) >= size
    for tools, call in drawn(size):
        guard = Guard.compile(name, tools, tokenizer)
        text = toolguard.render(guard.format, [call])
        ids = [*encode(tokenizer, text), guard.vocabulary.end_ids[0]]
        assert walks(guard, ids), text
        turn = guard.read(ids)
        assert turn.faults == ()
        assert made_calls(turn) == [call]


def _plain(value: Any) -> bool:
    """Whether a string in it means the same in every format: none that another type could mean."""
    if isinstance(value, dict):
        return all(map(_plain, value.values()))
    if isinstance(value, list):
        return all(map(_plain, value))
    return not isinstance(value, str) or (bool(value) and value.isalpha() and value.isascii())


@pytest.mark.parametrize("name", FORMATS)
def test_the_request_limits_what_is_legal(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    every = examples(name)
    tools = every[0]["tools"]
    replies = [e["turn"] for e in every if not e["calls"]]
    single = [e["turn"] for e in every if len(e["calls"]) == 1]
    several = [e["turn"] for e in every if len(e["calls"]) > 1]
    other = next(t["name"] for t in tools if t["name"] != every[0]["calls"][0]["name"])

    def admits(turn: str, **options: Any) -> bool:
        guard = Guard.compile(name, tools, tokenizer, **options)
        return walks(guard, [*encode(tokenizer, turn), guard.vocabulary.end_ids[0]])

    assert replies
    assert single
    for turn in replies:
        assert not admits(turn, tool_choice="required")
        assert admits(turn, tool_choice="none")
    for turn in single:
        assert admits(turn, tool_choice="required", parallel=False)
        assert not admits(turn, tool_choice="none")
    for turn in several:
        assert not admits(turn, parallel=False)
    assert not admits(every[0]["turn"], tool_choice=other)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("pythonic", "a b"),
        ("gemma4", "a:b"),
        ("qwen3_xml", "a<b"),
        ("kimi_k3", "a<b"),
        ("minimax_m3", "a  b"),
    ],
)
def test_an_argument_whose_name_cannot_be_written_is_left_out_and_harms_no_other(
    name: str, key: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    city = {"city": {"type": "string"}}
    nested = {"m": {"type": "object", "properties": {**city, key: {"type": "string"}}}}
    tools = [
        {"name": "f", "parameters": {"properties": {**city, **nested, key: {"type": "string"}}}},
        {"name": "g", "parameters": {"properties": city, "required": [key]}},
        {"name": "h", "parameters": {"properties": city}},
    ]
    guard = Guard.compile(name, tools, tokenizer)
    left_out = {(it.tool, it.path): it.reason for it in guard.relaxations if it.tool}
    assert {("f", f"/{key}"), ("g", f"/{key}"), ("g", "")} <= left_out.keys()
    assert all(f"cannot write {key!r}" in reason for reason in left_out.values())
    for tool in ("f", "h"):
        call = {"name": tool, "arguments": {"city": "Bern"}}
        ids = encode(tokenizer, toolguard.render(guard.format, [call]))
        assert walks(guard, [*ids, guard.vocabulary.end_ids[0]])
        assert made_calls(guard.read(ids)) == [call]
    with pytest.raises(toolguard.FormatError, match=f"{key!r} cannot be written"):
        toolguard.render(guard.format, [{"name": "f", "arguments": {key: "Bern"}}])
    with pytest.raises(toolguard.ToolsetError, match=rf"tool 'g': .* cannot write {key!r}"):
        Guard.compile(name, tools[1:2], tokenizer)
    Guard.compile("hermes", tools, tokenizer)


MARKED = [name for name in FORMATS if keys_of(WireFormat.load(name).rules).write("a b") is not None]


@pytest.mark.parametrize("name", ["gemma4", "minimax_m3", *MARKED])
def test_a_name_of_an_argument_may_hold_spaces_and_signs_where_markup_ends_it(
    name: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    types = {"q&a": "string", "a b": "integer", "filter[x]": "string", "m": "object"}
    properties = {key: {"type": kind} for key, kind in types.items()}
    tools = [{"name": "f", "parameters": {"properties": properties}}]
    arguments = {"q&a": "x", "a b": 3, "filter[x]": "y", "m": {"a b": {"q&a": "z"}}}
    guard = Guard.compile(name, tools, tokenizer)
    text = toolguard.render(guard.format, [{"name": "f", "arguments": arguments}])
    ids = [*encode(tokenizer, text), guard.vocabulary.end_ids[0]]
    assert walks(guard, ids), text
    assert [call.arguments for call in guard.read(ids).calls] == [arguments]
    repaired = toolguard.repair(text, tools, format=name)
    assert repaired.after is repaired.before
    assert [call.arguments for call in repaired.after.calls] == [arguments]


@pytest.mark.parametrize(
    ("name", "written", "arguments"),
    [
        ("gemma4", "<|tool_call>call:f{m:{a b:1}}<tool_call|>", {"m": {"a b": 1}}),
        ("gemma4", "<|tool_call>call:f{a b:1, m:{}}<tool_call|>", {"a b": 1, "m": {}}),
        ("kimi_k3", "q&amp;a", {"q&a": "x"}),
        ("kimi_k3", "say &quot;hi&quot;", {'say "hi"': "x"}),
        ("kimi_k3", "&amp;quot;", {"&quot;": "x"}),
    ],
)
def test_a_name_of_an_argument_is_written_as_the_template_does(
    name: str, written: str, arguments: dict[str, Any], tokenizer: PreTrainedTokenizerBase
) -> None:
    if name == "kimi_k3":
        written = (
            '<|open|>tools<|sep|><|open|>call tool="f" index="1"<|sep|><|open|>argument '
            f'key="{written}" type="string"<|sep|>x<|close|>argument<|sep|><|close|>call<|sep|>'
            "<|close|>tools<|sep|><|close|>message<|sep|>"
        )
    kinds = {"m": "object", "a b": "integer"}
    properties = {key: {"type": kinds.get(key, "string")} for key in arguments}
    guard = Guard.compile(
        name, [{"name": "f", "parameters": {"properties": properties}}], tokenizer
    )
    ids = [*encode(tokenizer, written), guard.vocabulary.end_ids[0]]
    assert walks(guard, ids)
    assert made_calls(guard.read(ids)) == [{"name": "f", "arguments": arguments}]
    rendered = toolguard.render(guard.format, made_calls(guard.read(ids)))
    assert rendered == written.replace(", ", ",")


def test_values_between_mimos_tags_are_verbatim_and_between_qwens_are_not(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tools = [{"name": "f", "parameters": {"properties": {"x": {"type": "string"}}}}]
    for value in ("a", "a\n", "\n\na\n", "\n", ""):
        argument = f"<parameter=x>{value}</parameter>"
        text = f"<tool_call>\n<function=f>\n{argument}\n</function>\n</tool_call>"
        for name, read in (
            ("mimo", value),
            ("qwen3_xml", value.removeprefix("\n").removesuffix("\n")),
        ):
            guard = Guard.compile(name, tools, tokenizer)
            ids = [*encode(tokenizer, text), guard.vocabulary.end_ids[0]]
            assert walks(guard, ids)
            assert [call.arguments for call in guard.read(ids).calls] == [{"x": read}]
    # The text alone does not say which of the two it is: Qwen's reads the values of both.
    qwens = text.replace("<parameter=x>", "<parameter=x>\nBern\n")
    assert toolguard.classify(qwens, tools).calls[0].arguments == {"x": "Bern"}
    assert toolguard.repair(qwens, tools, format="hermes").after.calls[0].arguments == {"x": "Bern"}


VARIANTS = sorted(set(FORMATS) - set(toolguard.format_names()))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_takes_all_that_its_format_does_and_more(
    name: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    base = name.partition("+")[0]
    plain, more = examples(base), examples(name)
    assert more[: len(plain)] == plain
    assert len(more) > len(plain)
    tools = more[0]["tools"]
    variant, guard = (Guard.compile(each, tools, tokenizer) for each in (name, base))
    for example in more[len(plain) :]:
        turn, otherwise = (toolguard.classify(example["turn"], tools, it) for it in (name, base))
        assert (turn.faults, turn.text, made_calls(turn)) == ((), example["text"], example["calls"])
        assert (otherwise.text, made_calls(otherwise)) != (turn.text, made_calls(turn))
        assert toolguard.repair(example["turn"], tools, format=name).after == turn
    calls = plain[0]["calls"]
    assert toolguard.render(variant.format, calls) == toolguard.render(guard.format, calls)


@pytest.mark.parametrize("name", ["inkling", "muse_glimmer"])
def test_a_call_that_names_its_tool_twice_names_the_same(
    name: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    example = next(e for e in examples(name) if len(e["calls"]) == 1)
    guard = Guard.compile(name, example["tools"], tokenizer)
    torn = example["turn"].replace("get_weather", "get_time", 1)
    ids = [*encode(tokenizer, torn), guard.vocabulary.end_ids[0]]
    assert not walks(guard, ids)
    assert [fault.kind for fault in guard.read(ids).faults] == ["malformed_call"]


@pytest.mark.parametrize("name", ["functionary_v32", "muse_glimmer"])
@pytest.mark.parametrize("tool", ["all_users", "user.info", "self-check", "users"])
def test_a_tools_name_may_begin_as_another_recipients(
    name: str, tool: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    guard = Guard.compile(name, [{"name": tool}], tokenizer)
    text = toolguard.render(guard.format, [{"name": tool, "arguments": {}}])
    ids = [*encode(tokenizer, text), guard.vocabulary.end_ids[0]]
    assert walks(guard, ids)
    assert made_calls(guard.read(ids)) == [{"name": tool, "arguments": {}}]


@pytest.mark.parametrize("special", [False, True])
def test_one_token_may_be_a_part_of_a_tag(special: bool) -> None:
    """As in the vocabularies of DeepSeek V3.2 and V4."""
    bar = AddedToken("\uff5cDSML\uff5c", special=special, normalized=False)
    tokenizer = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
    tokenizer.add_tokens([bar])
    (token,) = encode(tokenizer, bar.content)
    for example in examples("dsml"):
        guard = Guard.compile("dsml", example["tools"], tokenizer)
        ids = [*encode(tokenizer, example["turn"]), guard.vocabulary.end_ids[0]]
        assert (token in ids) == bool(example["calls"])
        assert walks(guard, ids), example["turn"]
        turn = guard.read(ids)
        assert (turn.text, made_calls(turn)) == (example["text"], example["calls"])

    guard = Guard.compile("dsml", examples("dsml")[0]["tools"], tokenizer, tool_choice="required")
    assert guard.shortest_turn == encode(tokenizer, tokenizer.decode(guard.shortest_turn))
    assert token in guard.shortest_turn

    prose = [*encode(tokenizer, f"Its tags have <{bar.content} in them."), ids[-1]]
    guard = Guard.compile("dsml", examples("dsml")[0]["tools"], tokenizer)
    assert walks(guard, prose)
    assert guard.read(prose).state == "healthy_response"
    guard = Guard.compile("hermes", examples("dsml")[0]["tools"], tokenizer)
    assert walks(guard, prose) != special  # to other formats it is what it was


RESERVED = {"functionary_v32": {"all"}, "muse_glimmer": {"self", "user", "commentary"}}


@pytest.mark.parametrize("name", FORMATS)
def test_a_tool_called_as_a_formats_own_word_is_read_back_or_refused(
    name: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    wire_format = WireFormat.load(name)
    spelled = [
        n.text for rule in wire_format.rules.values() for n in walk(rule) if isinstance(n, Literal)
    ]
    for word in sorted({word for text in spelled for word in re.findall(TOOL_NAME, text)}):
        tools = [{"name": word}]
        if word in RESERVED.get(name, ()):
            with pytest.raises(toolguard.ToolsetError, match=rf"tool '{word}': .*{name}.*rename"):
                Guard.compile(name, tools, tokenizer)
            guard = Guard.compile(name, [*tools, {"name": "f"}], tokenizer)
            said = [(it.tool, it.keyword) for it in guard.relaxations if it.tool]
            assert said == [(word, "name")]
            continue
        guard = Guard.compile(name, tools, tokenizer)
        calls = [{"name": word, "arguments": {}}]
        text = toolguard.render(wire_format, calls)
        assert made_calls(toolguard.read_turn(text, wire_format, guard.toolset)) == calls


@pytest.mark.parametrize(
    ("value", "schema", "read"),
    [
        ("3", {"type": "integer"}, 3),
        ("3", {"type": "string"}, "3"),
        ("3", {"type": ["string", "integer"]}, 3),
        ("null", {"type": ["string", "null"]}, None),
        ("null", {"type": "string"}, "null"),
        ("none of it", {"anyOf": [{"type": "null"}, {"type": "string"}]}, "none of it"),
        ("True", {"type": "boolean"}, True),
        ('["a"]', {"type": "array", "items": {"type": "string"}}, ["a"]),
        ("{'a': 1.5}", {"type": "object"}, {"a": 1.5}),
        ("500", {"anyOf": [{"type": "integer", "maximum": 9}, {"type": "string"}]}, "500"),
        ("a </seed:think> b", {"type": "string"}, "a </seed:think> b"),
        ("", {"type": "string"}, ""),
    ],
)
def test_values_without_a_type_on_the_wire_are_typed_by_their_schema(
    value: str, schema: dict[str, Any], read: Any, tokenizer: PreTrainedTokenizerBase
) -> None:
    tools = [{"name": "f", "parameters": {"properties": {"x": schema}, "required": ["x"]}}]
    guard = Guard.compile("seed_oss", tools, tokenizer)
    text = (
        f"<seed:tool_call>\n<function=f>\n<parameter=x>{value}</parameter>\n</function>\n"
        "</seed:tool_call>"
    )
    turn = guard.read([*encode(tokenizer, text), guard.vocabulary.end_ids[0]])
    assert walks(guard, list(turn.ids))
    assert turn.faults == ()
    assert [call.arguments for call in turn.calls] == [{"x": read}]
    assert json.dumps(turn.calls[0].arguments["x"]) == json.dumps(read)  # 1 is not true


@pytest.mark.parametrize("name", ["seed_oss", "minimax_m3"])
@pytest.mark.parametrize("value", [".5", "7.", "007", "1_000", "0x1", "(1)", "1\f", "1e000"])
def test_only_what_json_calls_a_number_is_one(
    name: str, value: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Python reads all of these."""
    for kinds, read in ("number", []), (["number", "string"], [{"x": value}]):
        tools = [{"name": "f", "parameters": {"properties": {"x": {"type": kinds}}}}]
        guard = Guard.compile(name, tools, tokenizer)
        text = toolguard.render(guard.format, [{"name": "f", "arguments": {"x": value}}])
        ids = [*encode(tokenizer, text), guard.vocabulary.end_ids[0]]
        turn = guard.read(ids)
        assert [call.arguments for call in turn.calls] == read
        assert walks(guard, ids) == (turn.faults == ()) == bool(read)


SIGNS = [*"\"'\\{}[]():,=. \n0a1-tu<>/|_", "<tool_call>", "<|im_start|>", "</think>", ""]


@sizes(15, 200)
@pytest.mark.parametrize("name", FORMATS)
def test_mask_and_parser_agree_on_mutations(
    name: str, size: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    """One character, or one control token, is put in, taken out or put in another's place."""
    turns = [(e["tools"], e["turn"]) for e in examples(name) if e["calls"]]

    @settings(QUICK, max_examples=size)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        tools, text = data.draw(st.sampled_from(turns))
        guard = Guard.compile(name, tools, tokenizer)
        place = data.draw(st.integers(0, len(text)))
        controls = [c for c in guard.format.controls if c not in guard.format.ends]
        sign = data.draw(st.sampled_from([*SIGNS, *controls]))
        mutated = text[:place] + sign + text[place + data.draw(st.integers(0, 1)) :]
        ids = [*encode(tokenizer, mutated), guard.vocabulary.end_ids[0]]
        turn = guard.read(ids)
        kinds = {fault.kind for fault in turn.faults}
        if walks(guard, ids):
            assert kinds <= OF_TEXT, (mutated, turn.faults)
        else:
            assert kinds, mutated

    check()


@sizes(2, 20)
@pytest.mark.parametrize("name", FORMATS)
def test_random_logits_end_parse_and_validate(
    name: str, size: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    @settings(QUICK, max_examples=size)
    @given(tools=bare_toolsets(), data=st.data())
    def check(tools: list[dict[str, Any]], data: st.DataObject) -> None:
        assert not any(random_turns(name, tools, tokenizer, data, rows=4))

    check()
