"""The cases that come with toolguard: `tools.json` holds the tools, `cases.jsonl` names them."""

from __future__ import annotations

import json
from pathlib import Path

from ..case import Cases, case_of
from ..lines import lines

_HERE = Path(__file__).parent


def builtin_cases() -> Cases:
    """The cases that come with toolguard, written for it by hand.

    Kinds: `single` (one call), `parallel` (two or three), `none` (chat, something is missing, no
    tool helps, or the question is about tools), `multi_step` (after calls and their results: the
    next call, or the final answer). Each has one right answer, or says which others are acceptable.
    """
    tools = json.loads((_HERE / "tools.json").read_text("utf-8"))
    cases = Cases()
    for line in lines(_HERE / "cases.jsonl"):
        offered = [
            {"type": "function", "function": {"name": name, **tools[name]}}
            for name in line.row["tools"]
        ]
        cases.append(case_of({**line.row, "tools": offered}, line.place, line.number))
    return cases
