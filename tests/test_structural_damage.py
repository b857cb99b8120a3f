"""One structural token deleted, doubled, swapped or replaced: the same calls, a fault or a refusal.

Two things nobody can tell, and they are left out: that `>` was doubled before a value, which may
begin with one; and that a call behind prose lost what opens it where nothing closes calls, which
may be an example.
"""

from __future__ import annotations

import copy

import pytest
from transformers import PreTrainedTokenizerBase

import toolguard
from tests.sizes import sizes
from tests.structure import TOOLS, Calls, Damaged, called, some_damaged
from toolguard import Guard, Turn, WireFormat

NAMES = toolguard.format_names(variants=True)
every_format = pytest.mark.parametrize("name", NAMES)


def without_sign(calls: Calls) -> Calls:
    """The calls, values without the `>` that they begin with."""
    return [
        {
            **call,
            "arguments": {
                k: v.removeprefix(">") if isinstance(v, str) else v
                for k, v in call["arguments"].items()
            },
        }
        for call in calls
    ]


def is_told(turn: Turn, damaged: Damaged, wire_format: WireFormat) -> bool:
    """Whether a turn has the calls that it had, or says that it may not."""
    if turn.faults or called(turn) == damaged.case.calls:
        return True
    if turn.calls:
        return "'>'" in damaged.how and without_sign(called(turn)) == damaged.case.calls
    return bool(damaged.case.text) and wire_format.closer in ("", wire_format.opener)


@sizes(20, 4000)
@every_format
def test_it_is_read_as_what_it_was_or_at_fault(name: str, size: int) -> None:
    wire_format = WireFormat.load(name)
    for damaged in some_damaged(wire_format, size):
        turn = toolguard.classify(damaged.text, TOOLS, wire_format)
        assert is_told(turn, damaged, wire_format), (damaged.how, damaged.text)
        whole = toolguard.classify(damaged.whole, TOOLS, "auto")
        if not whole.faults:  # calls without a token of their own are no format's in particular
            turn = toolguard.classify(damaged.text, TOOLS, "auto")
            assert is_told(turn, damaged, wire_format), (damaged.how, damaged.text)


@sizes(3, 200)
@every_format
def test_it_is_repaired_to_what_it_was_or_not_at_all(name: str, size: int) -> None:
    wire_format = WireFormat.load(name)
    for damaged in some_damaged(wire_format, size):
        for format in (wire_format, "auto"):
            repair = toolguard.repair(damaged.text, TOOLS, format)
            right = called(repair.after) == damaged.case.calls
            untouched = not repair.edits and is_told(repair.before, damaged, wire_format)
            assert right or not repair.after.calls or untouched, (damaged.how, damaged.text)


@sizes(2, 200)
@pytest.mark.parametrize("control", [True, False], ids=["control", "spelled"])
@every_format
def test_by_ids_it_is_the_same_and_no_mask_admits_a_faulty_call(
    name: str, control: bool, size: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    wire_format = WireFormat.load(name)
    if control:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.add_tokens([*wire_format.controls], special_tokens=True)
    guard = Guard.compile(wire_format, TOOLS, tokenizer)
    for damaged in some_damaged(wire_format, size):
        ids = tokenizer(damaged.text, add_special_tokens=False)["input_ids"]
        ids.append(guard.vocabulary.end_ids[0])
        turn = guard.read(ids)
        assert is_told(turn, damaged, wire_format), (damaged.how, damaged.text)
        state = guard.start(len(ids) + 500)
        admitted = all(state.accept(token) for token in ids)
        assert not state.lost, (damaged.how, damaged.text)
        if admitted:
            assert all(fault.where != "call" for fault in turn.faults), (damaged.how, damaged.text)
