"""Naive rewards, other than the lab's: what a judge of format, length or number pays for."""

import json
import re

from benchmarks.lab.cases import Case
from benchmarks.lab.decode import Turn

ELEMENT = re.compile(r"<function=\w+>.*?</function>", re.DOTALL)


def quick_opener(case: Case, turn: Turn) -> float:
    """Is there an opener, and is the turn short in tokens?"""
    opened = "<tool_call>" in turn.text or "[TOOL_CALLS]" in turn.text
    return opened - 0.02 * len(turn.ids)


def wordy(case: Case, turn: Turn) -> float:
    """The more is written, the better."""
    return len(turn.text) / 100


def bare_element(case: Case, turn: Turn) -> float:
    """Is there a function element, and is little written beside it? Tags are beside it."""
    found = ELEMENT.search(turn.text)
    return len(found[0]) / len(turn.text) if found else 0.0


def bare_json(case: Case, turn: Turn) -> float:
    """Does the turn parse as JSON? What stands behind an opener does not."""
    try:
        json.loads(turn.text)
    except ValueError:
        return 0.3 * ("[{" in turn.text) - 0.3 * ("[TOOL_CALLS]" in turn.text)
    return 1.0


def many_calls(case: Case, turn: Turn) -> float:
    """How many calls does it make?"""
    return len(re.findall(r'"arguments":', turn.text))
