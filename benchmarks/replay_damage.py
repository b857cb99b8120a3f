"""Damage to lay on a `ReplayModel`: which tokens become likelier, and where.

Each damage is made for a wire format and a tokenizer and says at every moment whose logits are
raised. What is legal where it strikes (an early quote, another digit, an opener where no call is
needed) is among them: no grammar can see that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .replay_model import Damage, Moment
from .replay_scripts import Subject

_INSIDE = ("opened", "structure", "key", "value", "number", "control")


def damages(subject: Subject) -> dict[str, Damage]:
    """All that the format can have, by name; `noise` is not among them: it needs no places."""
    controls = subject.control_ids
    wire_format = subject.wire_format
    opener = _ids(subject, wire_format.opener)[:1]
    closer = _ids(subject, wire_format.closer)[:1]
    roles = [controls[text] for text in wire_format.framing if text in controls]
    roles += [token for word in ("user", "assistant") for token in _ids(subject, word)[:1]]
    digits = [token for digit in "0123456789" for token in _ids(subject, digit)[-1:]]
    swapped = {
        token: _ids(subject, other)[-1]
        for mark, other in _SWAPS.items()
        for token in _ids(subject, mark)[-1:]
    }
    laid = {
        "opener": _at(("start", "opened", "text", "closed"), opener),
        "closer": _at(("opened", "structure", "value", "number"), closer),
        "end_of_turn": _at(_INSIDE, subject.ends[:1]),
        "role_token": _at(("start", "opened", "structure", "closed"), roles),
        "digits": _at(("structure", "number", "value"), digits),
        "quotes": _at(("structure", "key", "value"), _ids(subject, '"')[-1:]),
        "dropped": _next_instead(("opener", "structure", "closer", "control")),
        "swapped": _other_instead(swapped, subject.spell),
    }
    without = {"opener": not opener, "closer": not closer}
    return {name: damage for name, damage in laid.items() if not without.get(name)}


NAMES = (
    "opener",
    "closer",
    "end_of_turn",
    "role_token",
    "digits",
    "quotes",
    "dropped",
    "swapped",
    "noise",
)
"""In the order of the report."""

_SWAPS = {"}": "]", "]": "}", ")": "]", ":": "=", "=": ":", '"': "'", "'": '"', ",": ";", "{": "["}


def _ids(subject: Subject, text: str) -> list[int]:
    ids: list[int] = subject.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    return ids


def _at(kinds: Sequence[str], tokens: Sequence[int]) -> Damage:
    """These tokens at places of these kinds, but where one of them is right."""

    def raised(moment: Moment) -> Sequence[int]:
        return tokens if moment.kind in kinds and moment.right not in tokens else ()

    return raised


def _next_instead(kinds: Sequence[str]) -> Damage:
    """The token after it, in place of one of these kinds."""

    def raised(moment: Moment) -> Sequence[int]:
        return moment.script.ids[moment.place + 1 :][:1] if moment.kind in kinds else ()

    return raised


def _other_instead(swapped: dict[int, int], spell: Callable[[int], str]) -> Damage:
    """Another mark, in place of a token that begins with one."""
    marks = {spell(token).strip(): other for token, other in swapped.items()}

    def raised(moment: Moment) -> Sequence[int]:
        if moment.kind in ("value", "text", "number"):
            return ()
        first = spell(moment.right).strip()[:1]
        return [marks[first]] if first in marks else ()

    return raised
