"""A strict judge of finished turns, independent of toolguard so that it can check it.

The states are those of arXiv 2606.26027, section 4.3; the rules are for the lab's Hermes format.
"""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from jsonschema import Draft202012Validator

from benchmarks.lab.cases import Call, Case
from benchmarks.lab.tokenizer import CLOSER, CONTROL, OPENER

State = Literal["healthy_call", "healthy_response", "polluted", "collapsed"]
STATES: tuple[State, ...] = ("healthy_call", "healthy_response", "polluted", "collapsed")

CALL = re.compile(rf"{OPENER}\n(.*)\n{CLOSER}")
ROLES = r"system|user|assistant|tool"
ARTIFACT = re.compile("|".join(map(re.escape, CONTROL)) + r'|</?tool_|\{\s*"name"')
"""What has no place in a natural-language reply."""
HUSK = re.compile(rf"(?:{'|'.join(map(re.escape, CONTROL))}|{ROLES}|\s)*")
"""A turn without content: nothing but control tokens, role names and white space."""


@dataclass(frozen=True)
class Verdict:
    state: State
    calls: list[Call]
    exact: bool
    """Whether the calls are the expected ones, in order (none where none is expected)."""


def judge(text: str, ended: bool, case: Case) -> Verdict:
    """Judge a turn: its text with control tokens but without its end token."""
    calls = parse(text, case.tools) if ended else None
    if calls:
        return Verdict("healthy_call", calls, canonical(calls) == canonical(case.calls))
    if not ended or HUSK.fullmatch(text):
        return Verdict("collapsed", [], False)
    if ARTIFACT.search(text):
        return Verdict("polluted", [], False)
    return Verdict("healthy_response", [], not case.calls)


def parse(text: str, tools: list[dict[str, Any]]) -> list[Call] | None:
    """The calls of a turn that is nothing but schema-valid calls in exact framing."""
    calls = []
    for block in text.split(f"{CLOSER}\n"):
        block = block if block.endswith(CLOSER) else block + CLOSER
        if not (match := CALL.fullmatch(block)):
            return None
        try:
            call = json.loads(match[1])
        except ValueError:
            return None
        if not _validator(json.dumps(tools)).is_valid(call):
            return None
        calls.append(call)
    return calls


def canonical(calls: list[Call]) -> str:
    """Equal for equal calls; tells 1 from true, which Python's `==` does not."""
    return json.dumps(calls, sort_keys=True)


@lru_cache(maxsize=1024)
def _validator(tools: str) -> Draft202012Validator:
    calls = [
        {
            "properties": {"name": {"const": tool["name"]}, "arguments": tool["parameters"]},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in (entry["function"] for entry in json.loads(tools))
    ]
    return Draft202012Validator({"type": "object", "anyOf": calls})
