"""DSML's calls without arguments may close themselves."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerBase

import toolguard
from toolguard import Guard, Toolset

ZONE = {"type": "object", "properties": {"zone": {"type": "string"}}}
TOOLS = Toolset.of(
    [
        {"name": "submit", "parameters": {"type": "object", "properties": {}}},
        {"name": "now", "parameters": ZONE},
        {"name": "time_in", "parameters": ZONE | {"required": ["zone"]}},
    ]
)


@pytest.mark.parametrize("name", ["dsml", "deepseek_v41"])
def test_it_is_a_call_where_its_tool_needs_no_arguments(
    name: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    guard = Guard.compile(name, TOOLS, tokenizer)
    for tool, sound in (("submit", True), ("now", True), ("time_in", False)):
        call = {"name": tool, "arguments": {}}
        paired = toolguard.render(guard.format, [call, call])
        head, *_, tail = paired.split(">\n")
        tag = next(line for line in paired.split("\n") if tool in line)
        text = f"{head}>\n{tag[:-1]}/>\n{tag[:-1]}/>\n{tail}"
        turn = toolguard.read_turn(text, guard.format, TOOLS)
        assert [called.name for called in turn.calls] == [tool] * 2 * sound
        assert (turn.state == "healthy_call") is sound
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        state = guard.start(400)
        assert all(state.accept(token) for token in ids) is sound
