"""Diagnosis: is a checkpoint's skill gone, or only its format?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import RequestError
from ..evaluation.cases import Case
from ..evaluation.forced import Forced
from ..evaluation.journal import Journal
from ..evaluation.masses import ControlMass
from ..evaluation.rates import Rate
from ..evaluation.run import Part, Watch, run
from ..evaluation.subject import Mode, Subject
from ..formats.wire_format import WireFormat
from ..parsing.turn import STATES, Turn
from ..policy.drift import spikes
from ..policy.profile import ILLEGAL, POSITIONS, Profile
from .advice import Advice, advise
from .answers import answers, as_json, described
from .answers import right as right_turns
from .sweep import DESCRIBED
from .verdict import Behaviour, Evidence, Verdict, verdict

OTHER_FORMATS = ("pythonic", "llama3_json", "hermes")
"""In two of these, other than the model's own, some cases are asked, too: they are spelled in
ordinary characters."""
OTHER_CASES = 48
"""How many of the cases that need a call."""
_UNSAID: dict[str, Any] = {"model": "MODEL", "reference": None, "profile": None, "settings": {}}
NOTABLE = 0.005
"""Less excess of control mass is not worth a word."""
WORST = 20
"""How many cases are shown."""


@dataclass(frozen=True)
class Diagnosis:
    """What was found out about a checkpoint. Make it with `toolguard.diagnose`.

    Attributes:
        verdict: what is wrong with it.
        advice: what to do about it.
        content: everything behind that, as JSON values (`toolguard/diagnosis/report.schema.json`).
    """

    verdict: Verdict
    advice: Advice
    content: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The whole report as plain JSON values."""
        return self.content


def parts(subject: Subject, cases: Sequence[Case], reference: Subject | None) -> list[Part]:
    """What a diagnosis asks."""

    def skill(model: Subject, name: str) -> Part:
        return Part(name, cases, lambda some: _forced(model, some))

    def turns(model: Subject, mode: Mode, name: str) -> Part:
        return Part(name, cases, lambda some: as_json(model.answer(some, mode)))

    asked = [skill(subject, "skill"), *(turns(subject, mode, mode) for mode in subject.modes)]
    if reference is not None:
        asked += [
            skill(reference, "reference skill"),
            turns(reference, "unguarded", "reference unguarded"),
        ]
    calling = [case for case in cases if case.calls][:OTHER_CASES]
    others = [name for name in OTHER_FORMATS if name != subject.wire_format.name][:2]
    return asked + [
        Part(f"in {name}", calling, described(subject, WireFormat.load(name), subject.modes_in[-1]))
        for name in others
    ]


def _forced(subject: Subject, cases: Sequence[Case]) -> Iterator[Any]:
    found = {forced.case: forced.to_json() for forced in subject.force(cases)}
    return (found.get(case.id) for case in cases)


def diagnose(
    subject: Subject,
    cases: Sequence[Case],
    *,
    reference: Subject | None = None,
    profile: Profile | None = None,
    about: dict[str, Any] | None = None,
    journal: Journal | None = None,
    watch: Watch = lambda part, done: None,
) -> Diagnosis:
    """Asks a model cases in several ways, and says whether it lost the skill or only the format.

    Args:
        subject: the model: `toolguard.LocalModel` or `toolguard.Endpoint`.
        cases: what to ask it.
        reference: the model from before the damage.
        profile: the control mass of a healthy model, to find spikes by.
        about: what the report is to say of model, reference, profile and settings.
        journal: what is found out is kept there at once, and what it has is not asked again.
        watch: is told the progress.

    Raises:
        RequestError: there are no cases.
        ToolguardError: as `toolguard.generate`.
    """
    if not cases:
        raise RequestError("no cases to diagnose with: give at least one, better 200")
    asked = parts(subject, cases, reference)
    found = run(asked, subject.batch, journal or Journal(None, {}), watch)
    turns = {
        name: [Turn.of_json(row) for row in rows]
        for name, rows in found.items()
        if not name.endswith("skill")
    }
    forced = {
        name: {row["case"]: Forced.of_json(row) for row in rows if row}
        for name, rows in found.items()
        if name.endswith("skill")
    }
    by_part = {part.name: part.cases for part in asked}
    from .. import __version__

    said = {**_UNSAID, "toolguard": __version__, **(about or {})}
    return _diagnosis(subject, by_part, turns, forced, profile or Profile.default(), said)


def _diagnosis(
    subject: Subject,
    asked: dict[str, Sequence[Case]],
    turns: dict[str, list[Turn]],
    forced: dict[str, dict[str, Forced]],
    profile: Profile,
    about: dict[str, Any],
) -> Diagnosis:
    cases = asked["unguarded"]
    right: dict[str, list[bool]] = {mode: right_turns(cases, turns[mode]) for mode in subject.modes}
    calling = [case for case in cases if case.calls]
    known, known_reference = forced["skill"], forced.get("reference skill", {})
    led = [all(known[case.id].right) for case in calling if case.id in known]
    led_reference = [
        all(known_reference[case.id].right) for case in calling if case.id in known_reference
    ]
    masses = _masses(cases, known, known_reference)
    structures = [known[case.id].structure for case in calling if case.id in known]
    guarded = {
        mode: [hit for hit, case in zip(right[mode], cases, strict=True) if case.calls]
        for mode in subject.modes[1:]
    }
    found = verdict(
        Evidence(
            behaviour=_behaviour(cases, turns["unguarded"]),
            healthy=_behaviour(cases, turns["reference unguarded"]) if known_reference else None,
            led=led,
            led_reference=led_reference,
            structure=sum(structures) / len(structures) if structures else None,
            spike=_furthest(masses),
            guarded=max(guarded.values(), key=sum),
        )
    )
    advice = advise(
        found,
        right,
        {mode: sum(turn.report.tokens for turn in turns[mode] if turn.report) for mode in right},
        about["model"],
        about["reference"],
    )
    return Diagnosis(
        found,
        advice,
        {
            **about,
            "wire_format": subject.wire_format.name,
            "cases": {"all": len(cases), "with_calls": len(calling)},
            "verdict": found.to_json(),
            "advice": advice.to_json(),
            "answers": [
                {"name": mode, **answers(cases, turns[mode])}
                for mode in (*subject.modes, "reference unguarded")
                if mode in turns
            ],
            "sweep": [
                {
                    "format": part.removeprefix("in "),
                    "variation": DESCRIBED,
                    "mode": subject.modes_in[-1],
                    **answers(asked[part], turns[part]),
                }
                for part in turns
                if part.startswith("in ")
            ],
            "skill": _skill(led, known, led_reference, known_reference),
            "control_mass": masses,
            "spikes": _spikes(profile, turns["unguarded"]),
            "worst": _worst(cases, turns, right),
        },
    )


def _behaviour(cases: Sequence[Case], turns: Sequence[Turn]) -> Behaviour:
    pairs = list(zip(cases, turns, strict=True))
    return Behaviour(
        malformed=[not turn.state.startswith("healthy") for turn in turns],
        silent=[not turn.calling for case, turn in pairs if case.calls],
        rash=[turn.calling for case, turn in pairs if not case.calls],
        right=right_turns(cases, turns),
    )


def _skill(
    led: Sequence[bool],
    known: dict[str, Forced],
    led_reference: Sequence[bool],
    known_reference: dict[str, Forced],
) -> dict[str, Any] | None:
    if not led:
        return None
    skill = _led(led, known)
    skill["reference"] = _led(led_reference, known_reference) if led_reference else None
    return skill


def _led(led: Sequence[bool], known: dict[str, Forced]) -> dict[str, Any]:
    calls = [forced for forced in known.values() if forced.right]
    values = [right for forced in calls for right in forced.right]
    return {
        "calls": Rate.among(led).to_json(),
        "values": Rate.among(values).to_json(),
        "structure": round(sum(forced.structure for forced in calls) / len(calls), 4),
        "nats_per_token": round(
            -sum(forced.likelihood for forced in calls) / sum(forced.tokens for forced in calls), 4
        ),
    }


def _masses(
    cases: Sequence[Case], known: dict[str, Forced], reference: dict[str, Forced]
) -> list[dict[str, Any]]:
    """The mean control mass along the right turns, by place, beside what it ought to be: how often
    the token comes next there; and beside the reference's."""
    rows = []
    for asked, needs in (("call", True), ("reply", False)):
        those = [case.id for case in cases if bool(case.calls) is needs]
        own, healthy = ControlMass(), ControlMass()
        for id in those:
            if id in known:
                own.add(_along(known[id]))
            if id in reference:
                healthy.add(_along(reference[id]))
        rows += [
            {
                "asked": asked,
                "position": position,
                "steps": own.count(position),
                "token": token,
                "mass": round(own.mean(token, position), 4),
                "right": round(own.share(token, position), 4),
                "reference": round(healthy.mean(token, position), 4) if reference else None,
            }
            for position in POSITIONS
            if own.count(position)
            for token in (*own.tokens, ILLEGAL)
        ]
    return rows


def _along(forced: Forced) -> Iterator[Any]:
    """The steps of a right turn. Where none is known, no control token is the right one."""
    return (step if forced.tokens else replace(step, token="") for step in forced.steps)


def _furthest(masses: Sequence[dict[str, Any]]) -> tuple[float, str] | None:
    """The largest excess of a control token's mass, and where."""
    if not masses:
        return None
    rows = [row for row in masses if row["token"] != ILLEGAL] or masses
    row = max(rows, key=excess)
    if excess(row) < NOTABLE:
        illegal = max((row for row in masses if row["token"] == ILLEGAL), key=excess)
        return excess(row), (
            f"none is above it, but {illegal['mass']:.1%} is on tokens that are not allowed there, "
            f"at {illegal['position']} of turns that need a {illegal['asked']}"
            if excess(illegal) >= NOTABLE
            else "none is above it anywhere"
        )
    place = f"{row['token']} with {row['mass']:.1%} at {row['position']} of turns that need a"
    if row["reference"] is None:
        return excess(row), f"{place} {row['asked']}, where {row['right']:.1%} is right"
    return excess(row), f"{place} {row['asked']}, where the reference has {row['reference']:.1%}"


def excess(row: dict[str, Any]) -> float:
    """By how much a control token's mass is above what it ought to be."""
    ought = row["right"] if row["reference"] is None else row["reference"]
    return float(row["mass"] - ought)


def _spikes(profile: Profile, turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """In how many of the unguarded turns there is a spike, by token and position."""
    found: Counter[tuple[str, str]] = Counter()
    for turn in turns:
        if turn.report and turn.report.steps:
            each = spikes(profile, turn.report.steps)
            found.update({(spike.control, spike.step.position) for spike in each})
    return [
        {"token": token, "position": position, **Rate(count, len(turns)).to_json()}
        for (token, position), count in found.most_common()
    ]


def _worst(
    cases: Sequence[Case], turns: dict[str, list[Turn]], right: dict[str, list[bool]]
) -> list[dict[str, Any]]:
    """The cases that went worst, those that the guard gives back first."""
    best = max(right, key=lambda mode: sum(right[mode]))
    places = [at for at in range(len(cases)) if not right["unguarded"][at]]
    places.sort(
        key=lambda at: (not right[best][at], -STATES.index(turns["unguarded"][at].state), at)
    )
    return [
        {
            "case": cases[at].id,
            "kind": cases[at].kind,
            "messages": list(cases[at].messages),
            "tools": list(cases[at].toolset.names),
            "expected": [dict(call) for call in cases[at].calls],
            "turns": {
                mode: {**turns[mode][at].to_json(), "right": right[mode][at]} for mode in right
            },
        }
        for at in places[:WORST]
    ]
