"""One of the worst cases, as the page shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from ..report.page import strip
from ..report.report import Report
from ..report.words import DONE

LONGEST = 4000
"""Characters of a text that are shown; report.json has them all."""
MOST = 8
"""Interventions of a turn that are listed."""


def shown(case: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows of a case of `content["worst"]`."""
    turns = case["turns"]
    asked = [cut(_text(m)) for m in case["messages"] if m.get("role") == "user"]
    return {
        **case,
        "asked": asked[-1] if asked else "",
        "messages": [(m.get("role", ""), _text(m), list(_calls(m))) for m in case["messages"]],
        "expected": [_call(call) for call in case["expected"]],
        "state": turns["unguarded"]["state"],
        "faults": sorted({fault["kind"] for fault in turns["unguarded"]["faults"]}),
        "given_back": next((mode for mode in turns if turns[mode]["right"]), None),
        "answers": list(_answers(turns)),
    }


def cut(text: str) -> str:
    """The start of a long text."""
    more = len(text) - LONGEST
    return text if more <= 0 else f"{text[:LONGEST]}… ({more:,} more characters in report.json)"


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return cut(content or "")
    return cut(json.dumps(content, ensure_ascii=False))


def _calls(message: Mapping[str, Any]) -> Iterator[str]:
    for call in message.get("tool_calls") or ():
        yield _call(call.get("function", call))


def _call(call: Mapping[str, Any]) -> str:
    arguments = call.get("arguments", {})
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return cut(f"{call.get('name')} {arguments}")


def _answers(turns: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The turns; modes that wrote the same follow each other as one."""
    same: dict[tuple[Any, ...], list[str]] = {}
    for mode, turn in turns.items():
        # A turn that has steps stands on its own: it is looked at token by token.
        alone = mode if _has_steps(turn) else ""
        same.setdefault((alone, turn["raw"], turn["state"], turn["right"]), []).append(mode)
    for modes in same.values():
        turn = turns[modes[0]]
        report = turn["report"] and Report.of_json(turn["report"])
        done = report.interventions if report else ()
        yield {
            "modes": modes,
            "state": turn["state"],
            "right": turn["right"],
            "raw": list(_marked(turn["raw"], [fault["span"] for fault in turn["faults"]])),
            "faults": turn["faults"],
            "report": report,
            "done": [
                (item.step, item.token, item.mass, DONE[item.action], item.reason)
                for item in done[:MOST]
            ],
            "more": max(0, len(done) - MOST),
            "strip": Markup(strip(report)) if report and report.steps else "",
        }


def _has_steps(turn: Mapping[str, Any]) -> bool:
    return bool(turn["report"] and turn["report"]["steps"])


def _marked(raw: str, spans: Sequence[Sequence[int]]) -> Iterator[tuple[str, bool]]:
    """The text in pieces, and whether each is at fault."""
    text = raw[:LONGEST]
    bounds = sorted({0, len(text), *(min(at, len(text)) for span in spans for at in span)})
    for start, end in pairwise(bounds):
        yield text[start:end], any(low <= start and end <= high for low, high in spans)
    if len(raw) > LONGEST:
        yield cut(raw)[LONGEST:], False
