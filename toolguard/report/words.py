"""What the table and the page of a report say alike."""

from __future__ import annotations

from collections.abc import Mapping

from .report import Action, Report

DONE: Mapping[Action, str] = {
    "mask": "masked",
    "close": "held back",
    "lead": "led into the opener",
    "despike": "despiked",
    "mention": "left as prose",
    "rollback": "taken back",
    "unguard": "let go",
}
"""What was done to the token of an intervention."""

NO_STEPS = (
    "This report has no steps: they are kept on request, with toolguard.generate(..., trace=True)."
)

_MARKS = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍"}


def facts(report: Report) -> dict[str, str]:
    """The header line of a report: what is named, and its figure."""
    state: str = report.state_after or "not read"
    if report.state_before is not None:
        state = f"{report.state_before} → {state}"
    taken_back = f" ({report.retried_tokens:,} tokens)" if report.retries else ""
    return {
        "state": state,
        "policy": report.policy,
        "tokens": f"{report.tokens:,}",
        "forced": f"{report.forced:,}",
        "forward passes": f"{report.forward_passes:,}",
        "seconds": f"{report.seconds:.2f}",
        "pressure": f"{report.pressure:.2f} nats",
        "retries": f"{report.retries:,}{taken_back}",
    }


def printable(text: str) -> str:
    """The text with everything escaped that cannot be seen, or that reorders what is around it."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def visible(token: str) -> str:
    """The text of a token, its white space visible."""
    return printable("".join(_MARKS.get(c, c) for c in token)) or "∅"
