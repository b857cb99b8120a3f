"""Whether the guard's mask admits a valid turn of the suite, id by id, to its end."""

from __future__ import annotations

from canitoolcall.results import Status

from toolguard import ToolguardError

from .cases import Case
from .ids import Ids
from .readings import compiled, walked


def admitted(case: Case, ids: Ids) -> tuple[Status, str]:
    """Pass, or where it is refused."""
    try:
        guard = compiled(case, ids)
    except ToolguardError as error:
        return Status.FAIL, f"{type(error).__name__}: {error}"
    state = walked(guard, ids)
    place = len(state.ids)
    if place < len(ids.ids):
        before, wanted = ids.tokenizer.decode(state.ids)[-40:], ids.tokenizer.decode(ids.ids[place])
        return Status.FAIL, f"{wanted!r} is refused after {before!r}"
    if not any(state.accept(end) for end in guard.vocabulary.end_ids):
        return Status.FAIL, "the turn may not end"
    return Status.PASS, ""
