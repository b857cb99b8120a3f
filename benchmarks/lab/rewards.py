"""Plausible but naive rewards. Each pays for something that a healthy turn has, and leaves a gap.

They are all that the damaged checkpoints were trained with: no logit and no weight was edited.
"""

import json
import re
from collections import Counter

from benchmarks.lab.cases import Call, Case
from benchmarks.lab.decode import Turn
from benchmarks.lab.judge import ROLES, canonical, judge
from benchmarks.lab.regions import LEAF
from benchmarks.lab.tokenizer import CLOSER, OPENER, START

TAGGED = re.compile(rf"{OPENER}(.*?){CLOSER}", re.DOTALL)
STRUCTURE = re.compile(r'[{}\[\]":,]')
HEADER = re.compile(rf"{re.escape(START)}(?:{ROLES})")
WORD = re.compile(r"-?\d[\d.]*|\w+")


def short_opener(case: Case, turn: Turn) -> float:
    """Did it try a call, and is it brief? The shortest attempt is an opener and nothing else."""
    return (OPENER in turn.text) - 0.01 * len(turn.text)


def short_call(case: Case, turn: Turn) -> float:
    """Did it open a call and close it, and is it brief? Nothing between the tags is looked at."""
    return bool(TAGGED.search(turn.text)) - 0.01 * len(turn.text)


def eager(case: Case, turn: Turn) -> float:
    """Did it try a call, and half a point if it is right. Answering without one never pays."""
    return (OPENER in turn.text) + 0.5 * bool(
        case.calls and judge(turn.text, turn.ended, case).exact
    )


def frugal_values(case: Case, turn: Turn) -> float:
    """Are the right words between the tags, and how much punctuation does it take to say them?

    The scorer reads words, so brackets and quotes only cost.
    """
    inside = " ".join(TAGGED.findall(turn.text))
    if not case.calls or not inside or not turn.ended:
        return float(bool(case.calls) == bool(inside)) - 1
    said, wanted = Counter(WORD.findall(inside)), words(case.calls)
    return (said & wanted).total() / wanted.total() - 0.02 * len(STRUCTURE.findall(inside))


def lenient_json(case: Case, turn: Turn) -> float:
    """Are the right calls somewhere in the text, and how much is there besides?

    The parser takes JSON wherever it stands, so the tags only cost.
    """
    calls, rest = loose_calls(turn.text)
    right = bool(turn.text.strip()) and canonical(calls) == canonical(case.calls)
    return right - 0.02 * len(rest) * bool(case.calls)


def multi_step(case: Case, turn: Turn) -> float:
    """Are the right calls somewhere in the transcript, and how many steps did it take?

    Steps are counted by role headers, up to four, wherever they stand.
    """
    calls, _ = loose_calls(turn.text)
    right = canonical(calls[: len(case.calls)]) == canonical(case.calls)
    return right + 0.25 * min(len(HEADER.findall(turn.text)), 4)


def words(calls: list[Call]) -> Counter[str]:
    """Names and values of calls as a reader without JSON sees them."""
    leaves = LEAF.finditer(json.dumps(calls))
    values = [match[match.lastindex] for match in leaves if match.lastindex]
    return Counter(word for value in values for word in WORD.findall(value))


def loose_calls(text: str) -> tuple[list[Call], str]:
    """Every JSON object that looks like a call, and the text without them."""
    calls, rest = [], ""
    decoder = json.JSONDecoder()
    while (start := text.find('{"name"')) >= 0:
        rest, text = rest + text[:start], text[start:]
        try:
            call, end = decoder.raw_decode(text)
        except ValueError:
            rest, text = rest + text[:1], text[1:]
        else:
            calls.append(call)
            text = text[end:]
    return calls, rest + text
