"""Repair takes nothing for granted: what it cannot account for, it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import pytest

import toolguard
from benchmarks.literal_damage import repaired, turns
from toolguard import Edit, FormatError, WireFormat

from .sizes import sizes

TEXT, WHOLE, LIST = {"type": "string"}, {"type": "integer"}, {"type": "array"}
TOOLS = [
    {"name": name, "parameters": {"type": "object", "properties": keys, "required": required}}
    for name, keys, required in (
        ("edit", {"path": TEXT, "n": WHOLE, "refs": LIST}, ["path"]),
        ("route", {"start": TEXT, "goal": TEXT}, ["start", "goal"]),
        ("trip", {"start": TEXT, "goal": TEXT, "days": WHOLE}, ["start", "goal", "days"]),
        ("now", {}, []),
        ("count", {"n": WHOLE}, ["n"]),
        ("log", {"rows": LIST}, ["rows"]),
        ("fee", {"km": {"type": "number"}}, ["km"]),
        ("store", {"m": {"type": "object"}}, ["m"]),
        ("say", {"what": TEXT, "loud": {"type": "boolean"}, "to": TEXT}, ["what"]),
    )
]
K2 = (
    "<|tool_calls_section_begin|><|tool_call_begin|>functions.edit:0<|tool_call_argument_begin|>{}"
    "<|tool_call_end|><|tool_calls_section_end|>"
)
SOLAR = "<|tool_calls|><|tool_call:begin|>c1<|tool_call:name|>{}<|tool_call:end|>"
Calls = list[tuple[str, dict[str, Any]]]


def tagged(body: str) -> str:
    return f"<tool_call>\n{body}\n</tool_call>"


def calls(text: str, name: str = "hermes") -> Calls:
    repair = toolguard.repair(text, TOOLS, name)
    assert bool(repair.after.calls) == (repair.confidence in ("exact", "minimal"))
    return [(call.name, call.arguments) for call in repair.after.calls]


def count(n: int) -> str:
    return f'{{"name": "count", "arguments": {{"n": {n}}}}}'


@pytest.mark.parametrize("name", toolguard.format_names())
def test_arguments_that_were_closed_too_early_lose_nothing(name: str) -> None:
    call = {"name": "edit", "arguments": {"path": "a.txt"}}
    try:
        text = toolguard.render(WireFormat.load(name), [call])
    except FormatError:
        pytest.skip("the format cannot write it")
    damaged = text.replace('{"path": "a.txt"}', '{"path": "a.txt"}, "n": 3}')
    if damaged != text:
        whole: Calls = [("edit", {"path": "a.txt", "n": 3})]
        assert calls(damaged, name) in ([], whole)


@pytest.mark.parametrize(
    ("name", "refs"),
    [
        *(("gemma4", '["b"]'), ("lfm2", '["b]'), ("pythonic", '["b]')),
        *(("hermes", '[<|"|>b<|"|>]'), ("kimi_k2", '[<|"|>b<|"|>]')),
    ],
)
def test_a_list_with_other_quotes_is_whole_or_refused(name: str, refs: str) -> None:
    arguments = {"path": "a.txt", "refs": ["Zq"], "n": 3}
    text = toolguard.render(WireFormat.load(name), [{"name": "edit", "arguments": arguments}])
    for quote in ('"', "'", '<|"|>'):
        text = text.replace(f"[{quote}Zq{quote}]", refs)
    assert refs in text
    assert calls(text, name) in ([], [("edit", {"path": "a.txt", "refs": ["b"], "n": 3})])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lfm2", '<|tool_call_start|>[edit(path=f"{a}.txt", n=3)]<|tool_call_end|>'),
        ("lfm2", '<|tool_call_start|>[edit(path="a", refs=["b], n=3)]<|tool_call_end|>'),
        ("hermes", tagged("""{"name": "route", "arguments": {"start='Rome', goal='Oslo'"}}""")),
        ("pythonic", "[log(rows=now())]"),
        ("pythonic", "[fee(km=2*fee(km=10))]"),
        ("gemma4", "<|tool_call>call:store{m:{a:1 b:2}}<tool_call|>"),
        ("hermes", tagged('{"name": "now", "arguments": {}}') + "\n</think>\n\nIt is three."),
        ("hermes", tagged(count(1)) + "\n" + tagged('{"name": "count", x: {"n": 2}}')),
        ("hermes", tagged('{"name": "edit", "arguments": {"path": "C:\\Users\\name"}}')),
        ("hermes", tagged('{"name": "edit", "arguments": {"path": $n}}')),
        ("hermes", tagged('{"name": "log", "arguments": {"rows": [f"a, {b}"]}}')),
        ("hermes", tagged('{"name": "say", "arguments": {"what": "a", "loud=true"}}')),
        ("hermes", tagged('{"name": "say", "arguments": {"what": "a", "loud: false"}}')),
        ("pythonic", "[store(m{'p=ath': 'x'})]"),
        ("pythonic", '[edit(path="""a/b""")]'),
        ("lfm2", '<|tool_call_start|>[log(rows=[{"pat'),
        ("lfm2", '<|tool_call_start|>[edit(path="a", refs=[ "b'),
        ("llama3_json", '{"name": "edit", "parameters": {"refs": ["a"]," "path": "b"}}'),
        ("kimi_k2", K2.format('{"path": "a", "refs": [{}}')),
        ("hermes", tagged('{"name": "store", "arguments": {"m": {"path": True}}}')),
        ("solar_open", "\n".join([SOLAR.format('count<|tool_call:args|>{"n": 1}')] * 2)),
        ("hermes", tagged('{"name": "edit", "arguments": {"path: ,a"}}')),
        ("hermes", tagged('{"name": "edit", "arguments": {"path": "a", "refs": [90,5]"n": 3}}')),
        (
            "cohere_xml",
            '<cofl:tool_calls><cofl:tool_call id="0" name="edit"><cofl:value name="path" type="ra'
            "a.txt</cofl:value></cofl:tool_call></cofl:tool_calls>",
        ),
        ("olmo3", "<function_calls>edit(path='a<'</function_calls>"),
        ("gemma4", '<|tool_call>call:edit{path:<|"|>a}<t<|"|>ool_call|>'),
        ("hermes", tagged('{"name": "log", "arguments": {"rows": ["50% 9001]}}')),
        (
            "mistral_args",
            '[TOOL_CALLS]count[CALL_ID]call00001[ARGS]{"n": 90}2'
            "[TOOL_CALLS]now[CALL_ID]call00002[ARGS]{}",
        ),
        ("functionary_v32", 'now\n{}>>>edit\n{"path": "a", "refs": [2]'),
        # Items that became a key and its value; a word of the frame in a value; a number behind
        # what lost more than its mark; a call's name in half a tag, beside a whole one.
        ("pythonic", "[log(rows=[{'a/b'], 'c'])]"),
        (
            "mistral_json",
            '[TOOL_CALLS][{"name": "edit", "arguments": {"path": "b, n=7[id": "call00003"}]',
        ),
        (
            "jamba",
            '<tool_calls>[{"name": "log", "arguments": {"rows": [{"path": "its 9004]}}]'
            "</tool_calls>",
        ),
        (
            "longcat_xml",
            "<longcat_tool_call>count\n<longcat_arg_key>n</longcat_arg_key>\n<longcat_arg_value>1"
            "</longcat_arg_value>\n</longcat_tool_call>\n"
            "<longcat_tool_callnow\n</longcat_tool_call>\n"
            "<longcat_tool_call>now\n</longcat_tool_call>",
        ),
        # A comma for an operator; a key that took in the next.
        ("hermes", tagged('{"name": "log", "arguments": {"rows": [[2*"a"]]}}')),
        ("llama3_json", '{"name": "store", "parameters": {"m": {"p": "x", "n`: 9}, <km": 2}}'),
        # Escapes of a pair, or of its value.
        ("hermes", tagged('{"name": "edit", "arguments": {"path:C:\\new\\file"}}')),
        # A call that lost its opener, before another.
        (
            "glm_xml",
            "now<arg_key>zone</arg_key><arg_value>Rome</arg_value></tool_call>"
            "<tool_call>edit<arg_key>path</arg_key><arg_value>b</arg_value></tool_call>",
        ),
        # Digits behind their call; a value whose quotes are paired with others.
        ("gemma4", '<|tool_call>call:edit{path:<|"|>b<|"|>,n:9}007<tool_call|>'),
        ("hermes", tagged('{"name": "edit", "arguments": {"path": "b", "n": 9}}') + "007"),
        ("olmo3", '<function_calls>store(m={"path": rb"it\\\'s", "n": 9006})</function_calls>'),
    ],
)
def test_what_loses_changes_or_invents_is_refused(name: str, text: str) -> None:
    assert calls(text, name) == []


@pytest.mark.parametrize("pattern", [r"\d+", r"\.py$", r"[\w.]+\(\)"])
@pytest.mark.parametrize("quote", "\"'")
def test_a_lone_backslash_stays_one(pattern: str, quote: str) -> None:
    text = tagged(f'{{"name": "edit", "arguments": {{"path": {quote}{pattern}{quote}}}}}')
    assert calls(text) == [("edit", {"path": pattern})]


def test_pairs_in_strings_lose_their_quotes() -> None:
    text = tagged("""{"name": "route", "arguments": {"start='Rome'", "goal='Oslo'"}}""")
    assert calls(text) == [("route", {"start": "Rome", "goal": "Oslo"})]


def test_a_call_between_two_that_were_read_is_not_lost() -> None:
    for closer in ("", "\n</tool_call>"):
        text = f"{tagged(count(1))}\n</tool_call>\n{count(2)}{closer}\n{tagged(count(3))}"
        assert calls(text) in ([], [("count", {"n": n}) for n in (1, 2, 3)])


@pytest.mark.parametrize("name", toolguard.format_names())
def test_a_bracket_too_many_is_left_out_where_no_other_one_was_lost(name: str) -> None:
    call = {"name": "f", "arguments": {"rows": ["a", "b"]}}
    text = toolguard.render(WireFormat.load(name), [call]).replace("]", "]]", 1)
    for rows in ({"type": "array"}, {"type": "array", "items": {"type": "string"}}):
        tool = {"name": "f", "parameters": {"type": "object", "properties": {"rows": rows}}}
        made = toolguard.repair(text, [tool], name).after.calls
        assert [call.arguments for call in made] in ([], [call["arguments"]])
        if "items" not in rows and '"]]' in text:
            assert not made  # a list in the list may have been meant
        elif name == "hermes":
            assert made


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "hermes",
            tagged(
                "{'name': 'trip', 'arguments': {'start': 'Rome', 'goal': \"L'Aquila\", 'days': 3}}"
            ),
            [("trip", {"start": "Rome", "goal": "L'Aquila", "days": 3})],
        ),
        (
            "mistral_json",
            "[TOOL_CALLS] [{'name': 'count', 'arguments': {'n': 1}}, "
            "{'name': 'count', 'arguments': {'n': 2}}]",
            [("count", {"n": 1}), ("count", {"n": 2})],
        ),
        ("pythonic", "['count(n=1)']", [("count", {"n": 1})]),
        (
            "lfm2",
            '<|tool_call_start|>[edit(path=f"a.txt", n=3)]<|tool_call_end|>',
            [("edit", {"path": "a.txt", "n": 3})],
        ),
        ("hermes", f'{{"tool_calls": [{count(1)}]}}', [("count", {"n": 1})]),
        ("hermes", f"<function_call>\n{count(1)}\n</function_call>", [("count", {"n": 1})]),
        ("hermes", tagged('{"name": "now", "arguments": null}'), [("now", {})]),
        ("hermes", tagged('{"name": "edit", "arguments": null}'), []),
        ("hermes", f"<think>\nHm.\n</think>\n{count(1)}", [("count", {"n": 1})]),
    ],
)
def test_what_is_said_in_another_way_comes_back(name: str, text: str, expected: Calls) -> None:
    assert calls(text, name) == expected


@pytest.mark.parametrize("name", toolguard.format_names())
def test_a_call_that_has_begun_is_not_cut_away(name: str) -> None:
    wire_format = WireFormat.load(name)
    opener = wire_format.opener
    two = [{"name": "count", "arguments": {"n": n}} for n in (1, 2)]
    try:
        text = toolguard.render(wire_format, two)
    except FormatError:
        pytest.skip("the format has one call in a turn")
    if not opener or text.count(opener) < 2:
        pytest.skip("the second call has no opener")
    for size in range(1, len(opener)):
        cut = text[: text.rfind(opener) + size]
        turn = toolguard.read_turn(cut, wire_format, toolguard.Toolset.of(TOOLS))
        if turn.faults:  # else it is text behind a call
            assert len(calls(cut, name)) != 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "lfm2",
            '<|tool_call_start|>[store(m={"path": \u300c{a: 1}\u300d, "n": 9})]<|tool_call_end|>',
        ),
        ("hermes", tagged('{"name": "log", "arguments": {"rows": [<|"|>null<|"|>]}}')),
        ("gemma4", "<|tool_call>call:store{m:{path:<|'|>{a: 1}<|'|>,n:9}}<tool_call|>"),
        ("functiongemma", "call:route{start:<escape>Rome<escape>,goal:<escaOslo<escape>}"),
        ("hermes", tagged('{"name": "store", "arguments": {"m": {"path": "x", n":" 9}}}')),
        ("llama3_json", '{"name": "log", "parameters": {"rows": ["a", "[x=1, y=2"]]}}'),
        ("hermes", tagged('{"name": "edit", "arguments": {"path": "b\uff08, "n": 9}}')),
        ("glm_xml", "<tool_call>edit<arg_key>path</arg_key></arg_key>x</arg_value></tool_call>"),
        ("functiongemma", "call:store{m:{path:{a: 1}<escape>,n:9}}"),
        (
            "qwen3_xml",
            "<tool_call>\n<function=edit>\n<parameter=path</\n{a: 1}\n</parameter>\n"
            "</function>\n</tool_call>",
        ),
        (
            "qwen3_xml",
            "<tool_call>\n<function=edit>\n<parameter=path=\nn=7\n</parameter>\n"
            "</function>\n</tool_call>",
        ),
        (
            "kimi_k3",
            '<|open|>tools<|sep|><|open|>call tool="edit" index="1"<|sep|>'
            '<|open|>argument key="path" type="string"<p|>a<|close|>argument<|sep|>'
            "<|close|>call<|sep|><|close|>tools<|sep|>"
            "<|close|>message<|sep|>",
        ),
        (
            "deepseek_v41",
            '<\uff5cDSML\uff5c calls>\n<\uff5cDSML\uff5c invoke name="edit">\n'
            '<\uff5cDSML\uff5c parameter name="path" string="true">x=1">\n'
            "<\uff5cDSML\uff5c parameter>\n"
            "</\uff5cDSML\uff5c invoke>\n</\uff5cDSML\uff5c calls>",
        ),
        (
            "cohere_xml",
            '<cofl:tool_calls><cofl:tool_call id="0" name="log">'
            '<cofl:value name="rows" type="list"><cofl:value type="raw">a</cofl:ve></cofl:value>'
            "</cofl:tool_call></cofl:tool_calls>",
        ),
    ],
)
def test_half_of_a_pair_is_in_no_value(name: str, text: str) -> None:
    if name == "functiongemma":
        text = f"<start_function_call>{text}<end_function_call>"
    assert calls(text, name) == []


@pytest.mark.parametrize("value", ["Rome", "True", "true"])
def test_white_space_behind_a_value_that_lost_its_closer_is_nobodys(value: str) -> None:
    text = toolguard.render(
        WireFormat.load("k2_horizon"),
        [{"name": "route", "arguments": {"start": value, "goal": "Oslo"}}],
    )
    lost = text.replace(f"{value}</ifm|arg_value>", value)
    assert lost != text
    assert toolguard.repair(lost, TOOLS, "k2_horizon").confidence == "ambiguous"


@sizes(80, 250)
def test_literals_damaged_anywhere_make_no_other_calls(size: int) -> None:
    for turn in islice(turns(toolguard.format_names(), seed=19), size):
        outcome, repair = repaired(turn)
        assert outcome != "unsafe", (turn, repair.edits)
        assert edited(turn.text, repair.edits) == repair.text


def edited(text: str, edits: Sequence[Edit]) -> str:
    """A text after edits that account for every character of it."""
    written, place = "", 0
    for edit in edits:
        assert text[slice(*edit.span)] == edit.before
        written += text[place : edit.span[0]] + edit.after
        place = edit.span[1]
    return written + text[place:]
