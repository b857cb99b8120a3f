"""The verdict: is the skill gone, or only the format?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..evaluation.rates import Difference, Rate

VerdictName = Literal[
    "healthy", "format damaged, skill intact", "skill damaged", "both", "undetermined"
]

LEEWAY = 0.05
"""What counts as damage beyond the reference, or of all turns where there is none."""
HALF = 0.5
"""Without a reference, a model that gets fewer than half of the calls right, each word of them led
by hand, has not the skill; and one that decides wrongly in more than half of the cases is damaged
where it decides."""
SPIKED = 0.1
"""A control token with so much more mass at a place than it ought to have, on average, is what does
the damage."""


@dataclass(frozen=True)
class Behaviour:
    """What a model did in each case, unguarded; all are in the order of the cases.

    Attributes:
        malformed: the turn is polluted or collapsed.
        silent: a call is needed, and none is tried; of the cases that need one.
        rash: a call is tried, and none is needed; of the cases that need none.
        right: the expected calls, or a healthy reply where none is needed.
    """

    malformed: Sequence[bool]
    silent: Sequence[bool]
    rash: Sequence[bool]
    right: Sequence[bool]


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a checkpoint.

    Attributes:
        name: the verdict. `undetermined`: the format is or is not damaged (`format_damaged`), and
            nothing was found out about the skill.
        sentence: the same in one sentence, with the figures that decide.
        format_damaged: whether it says well what it knows.
        skill_intact: whether it knows what to call; None where that could not be measured.
        reasons: each thing that was looked at, with its figures and intervals.
    """

    name: VerdictName
    sentence: str
    format_damaged: bool
    skill_intact: bool | None
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The verdict as plain JSON values."""
        return {
            "name": self.name,
            "sentence": self.sentence,
            "format_damaged": self.format_damaged,
            "skill_intact": self.skill_intact,
            "reasons": list(self.reasons),
        }


@dataclass(frozen=True)
class Evidence:
    """What a verdict is reached from.

    Attributes:
        behaviour: of the model, unguarded.
        healthy: of the reference; None without one.
        led: for each case with calls, whether every name and value is right, given the right turn
            so far; empty where that could not be measured.
        led_reference: the same of the reference.
        structure: the mean share of the right turns' structure that the model would have written;
            None where that could not be measured.
        spike: the largest excess of a control token's mean mass at a place over what it ought to
            be, and where, in words; None where that could not be measured.
        guarded: for each case with calls, whether it is exactly right in the best guarded mode.
    """

    behaviour: Behaviour
    healthy: Behaviour | None
    led: Sequence[bool]
    led_reference: Sequence[bool]
    structure: float | None
    spike: tuple[float, str] | None
    guarded: Sequence[bool]


def verdict(evidence: Evidence) -> Verdict:
    """The verdict.

    Damage is what the intervals (95%) leave no doubt about: with a reference, what is worse than it
    by more than 5 points; without one, malformed turns in more than 5% of the cases, wrong
    decisions about calling in more than half of them, less than half of the calls known. A format
    that was never there is not damaged: a model that neither writes the structure of right turns
    nor has spikes of control tokens lacks the skill.
    """
    reasons: list[str] = []
    worse = _worse(evidence, reasons)
    learned = _learned(evidence, reasons)
    intact = _intact(evidence, reasons)
    damaged = worse and learned
    name: VerdictName
    if intact is None:
        name = "undetermined"
    elif intact:
        name = "format damaged, skill intact" if damaged else "healthy"
    else:
        name = "both" if damaged else "skill damaged"
    return Verdict(name, _sentence(name, evidence, damaged), damaged, intact, tuple(reasons))


def _worse(evidence: Evidence, reasons: list[str]) -> bool:
    """Whether it behaves worse than a healthy model does."""
    found = False
    for what, attribute, bound in (
        ("malformed turns", "malformed", LEEWAY),
        ("no call where one is needed", "silent", HALF),
        ("a call where none is needed", "rash", HALF),
    ):
        own = getattr(evidence.behaviour, attribute)
        if not own:
            continue
        if evidence.healthy is None:
            rate = Rate.among(own)
            far = rate.low > bound
            reasons.append(f"{what}: {rate}; damage above {bound:.0%}")
        else:
            healthy = getattr(evidence.healthy, attribute)
            more = Difference.between(own, healthy)
            far = more.low > LEEWAY
            reasons.append(
                f"{what}: {Rate.among(own)}, the reference {Rate.among(healthy).share:.1%}, "
                f"{_points(more)}; damage above {100 * LEEWAY:.0f} points"
            )
        found = found or far
    return found


def _learned(evidence: Evidence, reasons: list[str]) -> bool:
    """Whether there is a format that could be damaged."""
    if evidence.structure is None or evidence.spike is None:
        return True
    excess, where = evidence.spike
    reasons.append(
        f"structure of the right turns known: {evidence.structure:.1%}; the control mass furthest "
        f"from what it ought to be: {where}"
    )
    return evidence.structure >= HALF or excess >= SPIKED


def _intact(evidence: Evidence, reasons: list[str]) -> bool | None:
    if evidence.led:
        led = Rate.among(evidence.led)
        if evidence.led_reference:
            lost = Difference.between(evidence.led_reference, evidence.led)
            reasons.append(
                f"names and values right, led by hand through the right turn: {led}, the "
                f"reference {Rate.among(evidence.led_reference).share:.1%}, lost "
                f"{_points(lost)}; damage above {100 * LEEWAY:.0f} points"
            )
            return lost.low <= LEEWAY
        reasons.append(
            f"names and values right, led by hand through the right turn: {led}; damage below half"
        )
        if led.high >= HALF:
            return True
    guarded = Rate.among(evidence.guarded)
    reasons.append(f"exact calls when guarded: {guarded}; the skill is there above half")
    if guarded.of and guarded.low > HALF:
        return True
    return False if evidence.led else None


def _points(difference: Difference) -> str:
    share, low, high = (100 * x for x in (difference.share, difference.low, difference.high))
    return f"{share:+.1f} points ({low:+.1f} to {high:+.1f})"


def _sentence(name: VerdictName, evidence: Evidence, damaged: bool) -> str:
    behaviour = evidence.behaviour
    broken = f"{Rate.among(behaviour.malformed).share:.1%} of its turns are malformed"
    if behaviour.silent and Rate.among(behaviour.silent).share > HALF:
        broken += f", {Rate.among(behaviour.silent).share:.1%} of the calls needed are not tried"
    if behaviour.rash and Rate.among(behaviour.rash).share > HALF:
        broken += f", {Rate.among(behaviour.rash).share:.1%} of the cases that need none get a call"
    led = Rate.among(evidence.led)
    knows = f"it knows {led.share:.1%} of the calls when led through them word for word"
    guarded = f"{Rate.among(evidence.guarded).share:.1%} come out right when guarded"
    right = Rate.among(behaviour.right)
    match name:
        case "healthy":
            return f"Healthy: {right.share:.1%} of its turns are right as they are; {broken}."
        case "format damaged, skill intact":
            skill = f"{knows}, and {guarded}" if evidence.led else guarded
            return f"The format is damaged and the skill intact: {broken}, yet {skill}."
        case "skill damaged" if Rate.among(behaviour.malformed).low > HALF:
            return f"There is no skill, and no format that could be damaged: {knows}; {broken}."
        case "skill damaged":
            return f"The skill is damaged, not the format: {knows}, and {guarded}; {broken}."
        case "both":
            return f"Format and skill are damaged: {broken}; {knows}, and {guarded}."
        case _:
            state = "is damaged" if damaged else "is sound"
            return (
                f"The format {state}: {broken}; whether the skill is there could not be measured "
                f"({guarded})."
            )
