"""What to do about a diagnosis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..evaluation.rates import Difference
from .verdict import Verdict

WORTH = 0.01
"""A dearer way has to be that much better to be advised."""


@dataclass(frozen=True)
class Advice:
    """What to do.

    Attributes:
        mode: how to run the model: the mode that gives back most at least cost.
        retrain: whether that is not enough.
        sentence: why, with the figures.
        command: how to serve it so; empty where that cannot be served by one command.
        code: the same with transformers; empty where nothing is to be done.
    """

    mode: str
    retrain: bool
    sentence: str
    command: str
    code: str

    def to_json(self) -> dict[str, Any]:
        """The advice as plain JSON values."""
        return asdict(self)


def advise(
    verdict: Verdict,
    right: Mapping[str, Sequence[bool]],
    tokens: Mapping[str, int],
    model: str,
    reference: str | None,
) -> Advice:
    """The cheapest mode that is as good as any.

    Args:
        verdict: what is wrong.
        right: by mode, cheapest first, which cases were answered rightly.
        tokens: by mode, how many tokens that took.
        model, reference: their names, for the command.
    """
    mode = "unguarded"
    for other in right:
        gain = Difference.between(right[other], right[mode])
        if gain.share > WORTH and gain.low > 0:
            mode = other
    shares = ", ".join(
        f"{name} {sum(hits) / len(hits):.1%} ({tokens[name]:,} tokens)"
        for name, hits in right.items()
    )
    retrain = verdict.skill_intact is False
    sentence = f"Turns that are right: {shares}."
    if retrain and mode != "unguarded":
        gained = sum(right[mode]) - sum(right["unguarded"])
        sentence += (
            f" `{mode}` gives back {gained} of {len(right[mode])} turns as it is: that part of the "
            "skill is there. Retrain, from before the damage, for what is still missing."
        )
    elif retrain:
        sentence += (
            " Retrain, from before the damage: a guard gives calls back that the model knows, and "
            "it does not know them."
        )
    elif mode == "unguarded":
        sentence += " There is nothing for a guard to give back."
    else:
        sentence += f" `{mode}` gives back most at least cost."
    return Advice(mode, retrain, sentence, *_ways(mode, model, reference))


def _ways(mode: str, model: str, reference: str | None) -> tuple[str, str]:
    match mode:
        case "enforce":
            return (
                f"toolguard serve {model}",
                "toolguard.generate(model, tokenizer, messages, tools)",
            )
        case "recover":
            given = ", reference=reference" if reference else ""
            return (
                f"toolguard serve {model} --resample",
                f'toolguard.generate(model, tokenizer, messages, tools, policy="recover"{given})',
            )
        case "repaired":
            return "", "toolguard.repair(text, tools)"
        case _:
            return "", ""
