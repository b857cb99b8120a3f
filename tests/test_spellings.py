"""One value in many spellings: mask and reader take the same, or a relaxation says which not."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

import toolguard
from benchmarks.agreement import bundled
from toolguard import Guard
from toolguard.grammar.numbers import expressions, range_of

from .sizes import in_turn, sizes

FORMATS = ["hermes", "qwen3_xml", "glm_xml", "harmony", "pythonic", "kimi_k2", "minimax_m2"]
STAND_IN = 7070


def compiled(name: str, schema: Any, tokenizer: PreTrainedTokenizerBase) -> Guard:
    tool = {"name": "f", "parameters": {"type": "object", "properties": {"a": schema}}}
    return Guard.compile(name, [tool], tokenizer)


def verdicts(guard: Guard, value: str, tokenizer: PreTrainedTokenizerBase) -> tuple[bool, bool]:
    """What mask and reader say of a call whose argument is written so."""
    text = toolguard.render(guard.format, [{"name": "f", "arguments": {"a": STAND_IN}}])
    return verdict_of(guard, text.replace(str(STAND_IN), value), tokenizer)


def verdict_of(guard: Guard, text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[bool, bool]:
    """What mask and reader say of a turn."""
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], guard.vocabulary.end_ids[0]]
    state = guard.start(10_000)
    admitted = all(map(state.accept, ids)) and state.done
    return admitted, guard.read(ids).state == "healthy_call"


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        (
            {"type": "number", "minimum": 0},
            ["1e-4", "0", "-0.0", "50e-1", "1E+3", "2.50"],
            ["-1", "-1e-9", "1e", "01"],
        ),
        (
            {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            ["1e-4", "5E-1", "1", "1.000", "0.25", "1e0"],
            ["0", "0e5", "-0", "1.001", "2e0", "1e1"],
        ),
        (
            {"type": "number", "minimum": -2.5, "maximum": 19.99},
            ["-2.50", "19.99", "1.999e1", "-2.5e0", "1e-9", "-1e-9", "0e9"],
            ["-2.51", "19.991", "1.9991e1", "-2.6e0", "2e1", "-1e1"],
        ),
        (
            {"type": "integer", "minimum": 1, "maximum": 100},
            ["1", "100", "5.0", "100.00", "1e2", "9E1"],
            ["0", "101", "5.5", "2e2", "-1", "100.5"],
        ),
        ({"type": "number", "multipleOf": 0.01}, ["19.99", "0.07", "5", "1.50"], ["1.999"]),
    ],
)
def test_a_bounded_number_may_be_spelled_as_any_other(
    name: str,
    schema: dict[str, Any],
    right: list[str],
    wrong: list[str],
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    guard = compiled(name, schema, tokenizer)
    assert [verdicts(guard, value, tokenizer) for value in right] == [(True, True)] * len(right)
    assert [verdicts(guard, value, tokenizer) for value in wrong] == [(False, False)] * len(wrong)


BOUNDS = st.one_of(
    st.sampled_from([0, 1, -1, 5, 10, 99, 100, -100, 0.5, -0.05, 19.99, 1e-4, 1e22, 1e308, -2.25]),
    st.integers(-2000, 2000),
    st.decimals(-20, 20, places=2).map(float),
)
WHOLE = st.one_of(st.just("0"), st.integers(1, 2000).map(str))
FRACTION = st.sampled_from(["", ".0", ".00", ".5", ".05", ".250", ".99", ".01", ".9999", ".251"])
EXPONENT = st.sampled_from(["", "e0", "E+1", "e-1", "e01", "e2", "e-4", "E22", "e-99"])
ODD = re.compile(r"-?(\d\d|0\.).*[eE]")
"""With an exponent, and not one digit before the point: a relaxation says it."""


@sizes(100, 300)
def test_expressions_of_numbers_are_their_ranges(size: int) -> None:
    @settings(max_examples=size)
    @given(
        kind=st.sampled_from(["number", "integer"]),
        bounds=st.dictionaries(
            st.sampled_from(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]), BOUNDS
        ),
        numerals=st.lists(
            st.builds("".join, st.tuples(st.sampled_from(["", "-"]), WHOLE, FRACTION, EXPONENT)),
            min_size=20,
        ),
    )
    def check(kind: str, bounds: dict[str, float], numerals: list[str]) -> None:
        expressions_are_ranges(kind, bounds, numerals)

    check()


def expressions_are_ranges(kind: str, bounds: dict[str, float], numerals: list[str]) -> None:
    numbers = range_of(kind, bounds)
    if numbers.is_empty:
        return
    found = expressions(kind, numbers)
    low, above = (Decimal(str(bounds.get(k, "-inf"))) for k in ("minimum", "exclusiveMinimum"))
    high, below = (Decimal(str(bounds.get(k, "inf"))) for k in ("maximum", "exclusiveMaximum"))
    for numeral in numerals:
        value = Decimal(numeral)
        if kind == "integer" and not re.fullmatch(r"-?\d+(\.0+)?([eE]\+?\d+)?", numeral):
            continue
        inside = low <= value <= high and above < value < below
        matched = all(re.fullmatch(each, numeral) for each in found)
        assert matched == inside or (inside and ODD.match(numeral)), numeral


@pytest.mark.parametrize("name", ["hermes", "harmony", "kimi_k2"])
@pytest.mark.parametrize("schema", [{"minLength": 3}, {"maxLength": 6}, {}])
def test_a_string_of_some_length_may_be_escaped_as_any_other(
    name: str, schema: dict[str, Any], tokenizer: PreTrainedTokenizerBase
) -> None:
    guard = compiled(name, {"type": "string", **schema}, tokenizer)
    for text in ("a\\/b", "\\u0041bc", "f\\u00e9e", "a\x7fb", "\\ud83d\\uDE00ab", '\\n\\"\\\\'):
        assert verdicts(guard, f'"{text}"', tokenizer) == (True, True), text
    for text in ("a\\xb", "\\u00g1bc"):
        assert verdicts(guard, f'"{text}"', tokenizer) == (False, False), text
    short, long = (verdicts(guard, f'"{text}"', tokenizer) for text in ("\\ud83d\\ude00a", "a" * 7))
    assert short == ("minLength" not in schema,) * 2
    assert long == ("maxLength" not in schema,) * 2


def test_what_the_mask_spells_more_narrowly_is_said(tokenizer: PreTrainedTokenizerBase) -> None:
    for schema, keyword in (
        ({"type": "number", "multipleOf": 0.5}, "multipleOf"),
        ({"type": "number", "minimum": 2, "maximum": 0}, ""),
        ({"type": "number", "minimum": 2}, "minimum"),
        ({"type": "number", "minimum": 0}, ""),
        ({"type": "string", "pattern": "^[A-Z]+$"}, "pattern"),
        ({"type": "string", "maxLength": 4}, ""),
    ):
        guard = compiled("hermes", {"anyOf": [schema, {"type": "null"}]}, tokenizer)
        said = [it.keyword for it in guard.relaxations if it.tool]
        assert said == [keyword][: bool(keyword)]


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("pythonic", r"'a\/b'", False),
        ("pythonic", r"'a\\/b'", True),
        ("pythonic", r"['a\/b']", False),
        ("lfm2", r"'a\/b'", True),
        ("lfm2", r"[\"a\/b\"]".replace('\\"', '"'), True),
        ("qwen3_xml", r"['a\/b']", True),
    ],
)
def test_an_escaped_slash_is_jsons_and_not_pythons(
    name: str, value: str, right: bool, tokenizer: PreTrainedTokenizerBase
) -> None:
    guard = compiled(name, {"type": ["string", "array"], "items": {"type": "string"}}, tokenizer)
    assert verdicts(guard, value, tokenizer) == (right, right)


@pytest.mark.parametrize("name", ["qwen3_xml", "glm_xml", "minimax_m2"])
def test_white_space_around_a_bare_value_is_bounded(
    name: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    guard = compiled(name, {"type": "integer"}, tokenizer)
    for space in ("", " ", "\t", " " * 40, "  \n  \n", "\n" * 40):
        admitted, healthy = verdicts(guard, f"{space}7{space}", tokenizer)
        assert admitted == healthy, space
        assert admitted == (len(space) < 2), space


LINES = ["qwen3_xml", "dots", "glm_xml", "minimax_m2", "step3"]


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(LINES),
    low=st.integers(0, 3),
    span=st.one_of(st.none(), st.integers(0, 3)),
    value=st.text("\nab<", max_size=7),
)
def test_a_bounded_string_may_begin_and_end_with_line_ends(
    name: str, low: int, span: int | None, value: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    most = {} if span is None else {"maxLength": low + span}
    guard = compiled(name, {"type": "string", "minLength": low, **most}, tokenizer)
    text = toolguard.render(guard.format, [{"name": "f", "arguments": {"a": value}}])
    admitted, healthy = verdict_of(guard, text, tokenizer)
    assert healthy == (low <= len(value) <= most.get("maxLength", len(value)))
    assert admitted == healthy or (admitted and "<" in value)


@pytest.mark.parametrize("name", ["hermes", "harmony", "kimi_k2", "pythonic", "lfm2", "glm_xml"])
@pytest.mark.parametrize(
    ("schema", "around"),
    [
        ({"type": "array"}, "[{}]"),
        ({"type": "array", "items": {"type": "string", "maxLength": 9}}, "[{}]"),
        ({"type": "object"}, "{{}: 1}"),
        ({"type": "object", "additionalProperties": True, "properties": {"x": {}}}, "{{}: 1}"),
    ],
)
def test_half_of_a_surrogate_pair_is_no_text(
    name: str, schema: Any, around: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    guard = compiled(name, schema, tokenizer)
    for text in (r"x\ud83d\ude00", r"\uD83D\uDE00", r"\ud55c\uffff"):
        written = around.replace("{}", f'"{text}"', 1)
        assert verdicts(guard, written, tokenizer) == (True, True), written
    for text in (r"x\ud83d", r"\ude00", r"\ud83d-\ude00", r"\ude00\ud83d"):
        written = around.replace("{}", f'"{text}"', 1)
        assert verdicts(guard, written, tokenizer) == (False, False), written


@pytest.mark.parametrize("name", ["pythonic", "lfm2"])
def test_a_pair_of_surrogates_is_one_character_of_python(name: str) -> None:
    tools = toolguard.Toolset.of([{"name": "f", "parameters": {"properties": {"a": {}}}}])
    wire_format = toolguard.WireFormat.load(name)
    text = toolguard.render(wire_format, [{"name": "f", "arguments": {"a": STAND_IN}}])
    turn = toolguard.read_turn(text.replace("7070", r"'\ud83d\ude00'"), wire_format, tools)
    assert [call.arguments for call in turn.calls] == [{"a": "😀"}]


@pytest.mark.parametrize("name", FORMATS)
def test_a_string_under_a_pattern_may_hold_any_character(
    name: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    schema = {"type": "array", "items": {"type": "string", "pattern": "^[^b]+$"}}
    guard = compiled(name, schema, tokenizer)
    for text in ("it's", 'say \\"hi\\"', "C:\\\\x", "line\\n", "\\t"):
        assert verdicts(guard, f'["{text}"]', tokenizer) == (True, True), text
    for text in ("b", "C:\\\\b", "'b'"):
        assert verdicts(guard, f'["{text}"]', tokenizer) == (False, False), text


@in_turn("controls", [True, False])
def test_an_empty_string_is_masked_where_its_bounds_refuse_it(
    name: str, controls: bool, tokenizer: PreTrainedTokenizerBase
) -> None:
    if controls:
        tokenizer = bundled(toolguard.WireFormat.load(name).controls)
    for bounds in ({"pattern": "^[A-Z]+-[0-9]+$"}, {"minLength": 1}, {"pattern": "x"}, {}):
        guard = compiled(name, {"type": "string", **bounds}, tokenizer)
        made = toolguard.render(guard.format, [{"name": "f", "arguments": {"a": ""}}])
        assert verdict_of(guard, made, tokenizer) == (not bounds,) * 2, bounds


@in_turn(
    "annotated",
    [
        ("date-time", "2026-01-31T12:00:00"),
        ("date-time", "2026-01-31"),
        ("uuid", "123e4567e89b12d3a456426614174000"),
        ("email", "nobody"),
        ("uri", "example.org"),
    ],
)
def test_a_format_is_an_annotation_to_mask_and_reader(
    name: str, annotated: tuple[str, str], tokenizer: PreTrainedTokenizerBase
) -> None:
    kind, text = annotated
    guard = compiled(name, {"type": "string", "format": kind}, tokenizer)
    made = toolguard.render(guard.format, [{"name": "f", "arguments": {"a": text}}])
    assert verdict_of(guard, made, tokenizer) == (True, True)
    assert ("/a", "format") in {(it.path, it.keyword) for it in guard.relaxations}


@pytest.mark.parametrize("name", FORMATS)
def test_no_byte_of_a_name_is_overlooked(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """The engine makes nothing of the byte 0xFF."""
    tools = [{"name": "get_status", "parameters": {"properties": {"a": {"type": "integer"}}}}]
    guard = Guard.compile(name, tools, tokenizer)
    text = toolguard.render(guard.format, [{"name": "get_status", "arguments": {"a": 1}}])
    before, after = (
        tokenizer(part, add_special_tokens=False)["input_ids"] for part in text.split("_status")
    )
    ids = [*before, tokenizer.convert_tokens_to_ids("\u00ff"), *tokenizer("_status")["input_ids"]]
    turn = guard.read([*ids, *after, guard.vocabulary.end_ids[0]])
    assert "\ufffd_status" in turn.raw
    assert not turn.calls
