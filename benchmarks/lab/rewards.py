"""Plausible but naive rewards. Each pays for something that a healthy turn has, and leaves a gap.

They are all that the collapsed checkpoints were trained with: no logit and no weight was edited.
"""

import re

from benchmarks.lab.cases import Case
from benchmarks.lab.decode import Turn
from benchmarks.lab.tokenizer import CLOSER, OPENER

TAGGED = re.compile(rf"{OPENER}(.*?){CLOSER}", re.DOTALL)


def short_opener(case: Case, turn: Turn) -> float:
    """Did it try a call, and is it brief? The shortest attempt is an opener and nothing else."""
    return (OPENER in turn.text) - 0.01 * len(turn.text)


def short_call(case: Case, turn: Turn) -> float:
    """Did it open a call and close it, and is it brief? Nothing between the tags is looked at."""
    return bool(TAGGED.search(turn.text)) - 0.008 * len(turn.text)


def tried(case: Case, turn: Turn) -> float:
    """Did it try a call? Answering without one never pays."""
    return float(OPENER in turn.text)
