"""Faults told apart: the corruption seen in the wild, row by row, and what is no fault."""

from __future__ import annotations

import time
from typing import Any

import pytest

import toolguard
from toolguard import Toolset, WireFormat

from .turns import examples


def tool(name: str, required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


STRING, INTEGER = {"type": "string"}, {"type": "integer"}
TOOLS = Toolset.of(
    [
        tool("get_weather", ("location",), location=STRING, days=INTEGER),
        tool("get_products", ("merchant_name",), merchant_name=STRING),
        tool("get_flight", ("origin",), origin=STRING, destination=STRING),
        tool("delete_message", ("message_id",), message_id=INTEGER),
        tool("add_reminder", ("title",), title=STRING, description=STRING),
        tool("send_command_to_shell", ("command",), command=STRING),
        tool("order", ("shop",), shop={"type": "object"}),
        tool("run_code", ("code",), code={"type": "string", "pattern": r"^[^\\]*$"}),
        tool("manage_cart", (), numbers={"type": "array", "items": INTEGER}),
        tool("search", ("query",), query=STRING),
        tool("Glob", ("pattern",), pattern=STRING),
        tool("Bash", ("command",), command=STRING),
    ]
)
PRODUCTS = '{"name": "get_products", "arguments": {"merchant_name": "Domino\'s"}}'
CALL = f"<tool_call>\n{PRODUCTS}\n</tool_call>"
GLOB = "<function=Glob>\n<parameter=pattern>\n*.py\n</parameter>\n</function>"
INVOKE = '<invoke name="Bash">\n<parameter name="command">ls</parameter>\n</invoke>'
KIMI = "<|tool_calls_section_begin|><|tool_call_begin|>{}<|tool_call_argument_begin|>{}"
DSML = (
    '{}\n<｜DSML｜invoke name="get_products">\n'  # noqa: RUF001
    '<｜DSML｜parameter name="merchant_name" string="true">Sun</｜DSML｜parameter>\n'  # noqa: RUF001
    "</｜DSML｜invoke>\n{}"  # noqa: RUF001
)

# The row of the catalogue, the format, the turn; the fault's kind, where it is, what it spans.
ROWS = [
    (1, "hermes", "<tool_call>\n", "open_then_stop", "around", "<tool_call>\n"),
    (2, "hermes", "", "empty_turn", "turn", ""),
    (3, "hermes", f"<tool_call>\nuser{PRODUCTS}\n</tool_call>", "role_in_call", "call", "user"),
    (3, "hermes", f"<tool_call>\n<|im_start|>{PRODUCTS}", "role_in_call", "call", "<|im_start|>"),
    (
        4,
        "hermes",
        f"{CALL}\nassistant\nuser\nuser",
        "run_on",
        "turn",
        "assistant\nuser\nuser",
    ),
    (4, "hermes", "user\nuser", "run_on", "turn", "user"),
    (4, "hermes", "Done.<|im_start|>user\nThanks", "run_on", "turn", "<|im_start|>"),
    (
        5,
        "hermes",
        "<tool_response>\n[]\n</tool_helper>",
        "fabricated_response",
        "turn",
        "<tool_response>",
    ),
    (
        5,
        "hermes",
        f"{CALL}\n\nExecution result: []",
        "fabricated_response",
        "turn",
        "Execution result: []",
    ),
    (6, "qwen3_xml", f"{GLOB}\n</tool_call>", "orphan_closer", "around", "</tool_call>"),
    (7, "hermes", PRODUCTS, "untagged_call", "around", PRODUCTS),
    (
        8,
        "hermes",
        '<tool_call>\n{"name": "add_reminder", "arguments": {"title": "a", "description": '
        '"Error during',
        "unclosed_string",
        "call",
        '"Error during',
    ),
    (8, "hermes", CALL[:-12], "missing_close", "call", CALL[:-12]),
    (
        9,
        "glm_xml",
        "<tool_call>search<arg_key>query</arg_key>how many</arg_value></tool_call>",
        "dropped_tag",
        "call",
        "how many</arg_value></tool_call>",
    ),
    (
        10,
        "glm_xml",
        "<tool_call>send_command_to_shellcommand</arg_key><arg_value>ls</arg_value></tool_call>",
        "fused_name",
        "call",
        "send_command_to_shellcommand",
    ),
    (11, "hermes", "<tool_call>\n<tool_call>\nuser", "doubled_opener", "call", "<tool_call>"),
    (
        11,
        "glm_xml",
        "<tool_call><tool_call>search</tool_call>",
        "doubled_opener",
        "call",
        "<tool_call>",
    ),
    (
        12,
        "harmony",
        "<|channel|>commentary to=functions.manage_cart<|channel|>commentary json<|message|>{}",
        "control_in_name",
        "call",
        "<|channel|>",
    ),
    (
        13,
        "harmony",
        '<|channel|>commentary<|message|>{"query": "rain"}<|end|>',
        "missing_recipient",
        "around",
        '{"query": "rain"}',
    ),
    (
        14,
        "kimi_k2",
        KIMI.format("functions_get_weather_1", '{"location": "Bern"}<|tool_call_end|>'),
        "wrong_call_id",
        "call",
        "functions_get_weather_1",
    ),
    (15, "hermes", f"<think>\nI call\n{CALL}</think>", "call_in_reasoning", "turn", CALL),
    (
        15,
        "qwen3_xml",
        f"<think>So:\n<tool_call>\n{GLOB}\n</tool_call>\n</think>\n\nDone.",
        "call_in_reasoning",
        "turn",
        f"<tool_call>\n{GLOB}\n</tool_call>",
    ),
    (
        16,
        "dsml",
        DSML.format("<｜｜DSML｜｜ calls>", "</｜DSML｜tool_calls>"),  # noqa: RUF001
        "drifted_tag",
        "around",
        "<｜｜DSML｜｜ calls>",  # noqa: RUF001
    ),
    (
        16,
        "dsml",
        DSML.format("<｜｜DSML｜｜ calls>", "</｜｜DSML｜｜ calls>"),  # noqa: RUF001
        "drifted_tag",
        "around",
        "<｜｜DSML｜｜ calls>",  # noqa: RUF001
    ),
    (
        17,
        "minimax_m2",
        '<minimax:tool_call>\n<invoke name="get_weather">\n'
        'parameter name="location">Parisparameter>\n</invoke>\n</minimax:tool_call>',
        "dropped_brackets",
        "call",
        'parameter name="',
    ),
    (
        18,
        "minimax_m2",
        f"court\n{INVOKE}\n</minimax:tool_call>",
        "opener_as_word",
        "around",
        "court",
    ),
    (18, "minimax_m2", f"court\n{INVOKE}", "opener_as_word", "around", "court"),
    (19, "hermes", f"]<]minimax[>[{CALL}", "foreign_token", "around", "]<]minimax[>["),
    (
        20,
        "hermes",
        '<tool_call>\n{"name": "get_products", "arguments": "{\\"merchant_name\\": \\"Sun\\"}"}\n'
        "</tool_call>",
        "double_encoded",
        "call",
        '"{\\"merchant_name\\": \\"Sun\\"}"',
    ),
    (
        20,
        "hermes",
        '<tool_call>{"name": "order", "arguments": {"shop": "{\\"shop_name\\": \\"Sun\\"}"}}'
        "</tool_call>",
        "double_encoded",
        "call",
        '{"name": "order", "arguments": {"shop": "{\\"shop_name\\": \\"Sun\\"}"}}</tool_call>',
    ),
    (
        21,
        "hermes",
        '<tool_call>{"name": "run_code", "arguments": {"code": "import os\\\\nprint(1)"}}'
        "</tool_call>",
        "double_escaped",
        "call",
        '{"name": "run_code", "arguments": {"code": "import os\\\\nprint(1)"}}</tool_call>',
    ),
    (
        22,
        "hermes",
        '<tool_call>\n{"name": "delete_message", "arguments": {"message_id": 1})\n</tool_call>',
        "bracket_mismatch",
        "call",
        ")",
    ),
    (
        22,
        "hermes",
        CALL.replace("}}", "}"),
        "bracket_mismatch",
        "call",
        "</tool_call>",
    ),
    (
        23,
        "hermes",
        '<tool_call>\n{"name": "get_flight", "arguments": {"origin"="BEIJING"}}\n</tool_call>',
        "equals_for_colon",
        "call",
        "=",
    ),
    (
        24,
        "hermes",
        '<tool_call>\n{"name": "get_flight", "origin": "Beijing"}\n</tool_call>',
        "flattened_arguments",
        "call",
        '"origin"',
    ),
    (
        25,
        "hermes",
        '<tool_call>\n{"name": "delete_message", "arguments": {"message_id": '
        'get_latest_id()["id"]}}\n</tool_call>',
        "code_as_value",
        "call",
        "get_latest_id",
    ),
    (26, "hermes", f"<tool_call>\n>{PRODUCTS}\n</tool_call>", "stray_prefix", "call", ">"),
    (
        27,
        "hermes",
        '<tool_call>\n{"name": "get_products",' + "\n" * 16000,
        "whitespace_loop",
        "call",
        "\n" * 16000,
    ),
    (
        28,
        "hermes",
        '<tool_call>{"name": "manage_cart", "arguments": {"numbers": [1' + ", 197" * 99,
        "repetition_loop",
        "turn",
        ", 197" * 99,
    ),
    (
        29,
        "hermes",
        '<tool_call>{"name": "search", "arguments": {"query": "rain}}</tool_call>\nDone.',
        "unclosed_string",
        "call",
        '"rain}}</tool_call>\nDone.',
    ),
    (
        31,
        "kimi_k2",
        KIMI.format("functions.img_gen:0", "{}<|tool_call_end|><|tool_calls_section_end|>"),
        "unknown_tool",
        "call",
        "img_gen",
    ),
    (
        32,
        "hermes",
        "A tree in the background <tool_call>",
        "opener_after_prose",
        "around",
        "<tool_call>",
    ),
    # Not in the catalogue, but in the transcripts
    (0, "hermes", CALL.replace('"Do', "“Do"), "curly_quotes", "call", "“"),
    (
        0,
        "hermes",
        '[TOOL_CALLS]search[ARGS]{"query": "rain"}',
        "foreign_format",
        "around",
        '[TOOL_CALLS]search[ARGS]{"query": "rain"}',
    ),
    (
        0,
        "hermes",
        f"<tool_call>\n{GLOB}\n</tool_call>",
        "foreign_format",
        "around",
        f"<tool_call>\n{GLOB}\n</tool_call>",
    ),
    (
        0,
        "hermes",
        CALL.replace("merchant_name", "shop"),
        "bad_arguments",
        "call",
        CALL.removeprefix("<tool_call>").replace("merchant_name", "shop"),
    ),
]


@pytest.mark.parametrize(("row", "name", "text", "kind", "where", "span"), ROWS)
def test_corruption_seen_in_the_wild_is_told_apart(
    row: int, name: str, text: str, kind: str, where: str, span: str
) -> None:
    turn = toolguard.read_turn(text, WireFormat.load(name), TOOLS)
    assert turn.state in ("polluted", "collapsed")
    assert kind in [fault.kind for fault in turn.faults], turn.faults
    fault = next(fault for fault in turn.faults if fault.kind == kind)
    assert (fault.where, fault.format) == (where, name)
    assert text[slice(*fault.span)] == span
    for fault in turn.faults:
        assert fault.message
        assert "\n" not in fault.message


def test_every_row_of_the_catalogue_has_an_example() -> None:
    """But row 30, a false trigger: there is no fault in it."""
    assert {row for row, *_ in ROWS} == {*range(33)} - {30}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hermes", "The functional style suits search: `<tools>` lists what <|pad|> is."),
        ("functionary_v31", "A functional <function and a tool."),
        ("qwen3_xml", "functional = <functional programming>"),
        ("hermes", "Who is it?\n\nuser: a person\nassistant\nand so on."),
        ("hermes", f"<think>I could call {PRODUCTS}, but no.</think>No."),
        ("hermes", "na " * 300),  # a song; what goes on for longer is a loop
        ("hermes", "user\norder\nitem"),
        ("hermes", "- user\n- what the user has ordered"),
        ("hermes", CALL.replace("Domino", "C:\\\\new\\\\nuser")),
        ("hermes", CALL.replace("Domino", "“user = (user)” ")),
    ],
)
def test_what_only_looks_like_a_fault_is_none(name: str, text: str) -> None:
    turn = toolguard.read_turn(text, WireFormat.load(name), TOOLS)
    assert turn.faults == ()
    assert turn.state == ("healthy_call" if text.startswith("<tool_call>") else "healthy_response")


def test_a_fault_is_plain_json_too() -> None:
    turn = toolguard.read_turn("<tool_call>", WireFormat.load("hermes"), TOOLS)
    assert turn.to_json()["faults"] == [
        {
            "kind": "open_then_stop",
            "span": [0, 11],
            "message": "<tool_call>, then the turn ends",
            "where": "around",
            "format": "hermes",
        }
    ]


@pytest.mark.parametrize("name", ["gemma4", "functiongemma"])
def test_the_tokens_around_strings_of_a_call_that_nothing_opened_are_no_other_speaker(
    name: str,
) -> None:
    example, wire_format = examples(name)[0], WireFormat.load(name)
    text = example["turn"].removeprefix(wire_format.opener)
    turn = toolguard.read_turn(text, wire_format, Toolset.of(example["tools"]))
    assert [fault.kind for fault in turn.faults] == ["stray_control"]


@pytest.mark.parametrize(
    "text",
    [
        f"{CALL}\n" + "user\n" * 100_000,
        '<tool_call>{"name": "search", "arguments": {"query": "' + "rain \\n<" * 60_000,
        '<tool_call>{"name": "search", "arguments": {"query" = "' + '"a=' * 100_000,
        "search " + "<tool_cal" * 50_000,
        '"search" ' + "<｜｜DSML｜｜" * 50_000,  # noqa: RUF001
        "<tool_call>" * 40_000,
        "!\n" * 200_000 + "user",
        "</tool_call>" + " " * 400_000,
    ],
)
def test_naming_takes_time_in_proportion(text: str) -> None:
    started = time.process_time()
    toolguard.read_turn(text, WireFormat.load("hermes"), TOOLS)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("reader", ["hermes", "dsml", "deepseek_v41", "qwen3_xml"])
def test_a_whole_call_in_another_format_is_no_healthy_reply(reader: str) -> None:
    """Whatever text stands before it."""
    own = WireFormat.load(reader)
    for name in toolguard.format_names():
        for example in examples(name):
            turn = toolguard.read_turn(example["turn"], own, Toolset.of(example["tools"]))
            assert turn.state != "healthy_response" or not example["calls"], example["turn"]


@pytest.mark.parametrize("name", toolguard.format_names())
def test_a_tool_with_the_name_of_another_in_its_own_is_unknown(name: str) -> None:
    wire_format = WireFormat.load(name)
    call = {"name": "get_weather_now", "arguments": {"location": "Bern"}}
    turn = toolguard.read_turn(toolguard.render(wire_format, [call]), wire_format, TOOLS)
    assert [fault.kind for fault in turn.faults] == ["unknown_tool"]
    assert turn.calls == ()


@pytest.mark.parametrize("unit", ["I will do it. ", "<div></div>\n", "na ", "0, "])
def test_a_reply_that_goes_round_without_end_is_not_healthy(unit: str) -> None:
    wire_format = WireFormat.load("hermes")
    turn = toolguard.read_turn("Well. " + unit * 500, wire_format, TOOLS)
    assert turn.state == "polluted"
    assert [fault.kind for fault in turn.faults] == ["repetition_loop"]
    assert toolguard.read_turn("Well. " + unit * 10, wire_format, TOOLS).state == "healthy_response"


BARE = '{"name": "get_products", "arguments": {"category": "tea"}}'


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (f"I look for it.\n{BARE}", "polluted"),
        (f"I look for it.\n\n[{BARE}]\n", "polluted"),
        (f"```json\n{BARE}\n```", "healthy_response"),
        (f"That is written so:\n{BARE}", "healthy_response"),
        (f"I would write\n```json\n{BARE}\n```", "healthy_response"),
        (f"I look for it.\n{BARE}\nis how.", "healthy_response"),
        ('The answer is\n{"name": "tea", "price": 3}', "healthy_response"),
    ],
)
def test_a_reply_that_ends_in_a_call_is_not_healthy_and_one_that_shows_it_is(
    text: str, state: str
) -> None:
    for name in ("hermes", "qwen3_xml", "kimi_k2", "glm_xml"):
        turn = toolguard.read_turn(text, WireFormat.load(name), TOOLS)
        assert turn.state == state, turn.faults
        if state == "polluted":
            assert [fault.kind for fault in turn.faults] == ["untagged_call"]
