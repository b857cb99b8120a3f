"""Faults and repairs name other speakers in the same words."""

from __future__ import annotations

import pytest

import toolguard
from toolguard import WireFormat

TOOL = {"name": "get_time", "parameters": {"properties": {"zone": {"type": "string"}}}}
CALL = {"name": "get_time", "arguments": {"zone": "Bern"}}
ROLES = ["user", "assistant", "system", "developer", "tool", "human", "ipython", "Human", "USER"]
ANSWERS = ["observation", "Observation:", "tool result:", "Execution result =", "</tool_response>"]
SAID = {f"\n{role}\nHi": "run_on" for role in ROLES}
SAID |= {f"\n{role}: Hi": "run_on" for role in ROLES}
SAID |= {f"\n{answer}\nfine": "fabricated_response" for answer in ANSWERS}
SAID |= {"\nuser data came.": "text_after_call", "\nTools: none.": "text_after_call"}
EDITS = {
    "run_on": "cut_run_on",
    "fabricated_response": "cut_response",
    "text_after_call": "cut_text",
}


@pytest.mark.parametrize("text", SAID)
@pytest.mark.parametrize("name", ["hermes", "qwen3_xml", "kimi_k2", "llama3_json", "pythonic"])
def test_what_follows_a_call_has_one_name_as_a_fault_and_as_an_edit(name: str, text: str) -> None:
    wire_format = WireFormat.load(name)
    said = toolguard.render(wire_format, [CALL]) + text
    repair = toolguard.repair(said, [TOOL], wire_format)
    assert [call.arguments for call in repair.after.calls] == [CALL["arguments"]]
    assert {fault.kind for fault in repair.before.faults} == {SAID[text]}
    assert {edit.rule for edit in repair.edits} == {EDITS[SAID[text]]}
