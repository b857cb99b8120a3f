"""What happened to one turn, and what the guard did to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..formats.nodes import Region

if TYPE_CHECKING:
    from rich.console import Group

Policy = Literal["observe", "enforce", "recover"]
Action = Literal["mask", "close", "lead", "despike", "mention", "rollback", "unguard"]
Position = Literal["start", "opened", "value", "structure", "closed", "text", "reasoning"]
"""Where a token stands, as far as control tokens are concerned: at the start of the turn, right
after the opener of a call, inside a value, elsewhere in a call, after a call, in text, in
reasoning."""
State = Literal["healthy_call", "healthy_response", "polluted", "collapsed"]
"""The four structural states of arXiv 2606.26027, section 4.3."""

GATE = 1e-3
"""The smallest control mass that the watch reads."""


@dataclass(frozen=True, slots=True)
class Intervention:
    """One thing that the guard did.

    Attributes:
        step: the number of tokens of the turn before it.
        region: where the turn stood; `done` where an end was taken back.
        token: the token that the model wanted most, spelled out.
        token_id: its id.
        mass: the model's own probability of it, before any mask; None for `lead`.
        action: `mask`: the token is illegal there; `close`: it is legal, but with it the turn
            could no longer end within its budget; `lead`: the model was writing the bare body of a
            call, so that was taken back and led into the opener; `despike`: a legal control token
            was held to what a reference gives it; `mention`: a control token in prose was left as
            a word; `rollback`: what was written since a sound point was taken back; `unguard`: the
            mask engine cannot follow the turn, which goes on without the guard.
        reason: why, in a few words.
    """

    step: int
    region: Region
    token: str
    token_id: int
    mass: float | None
    action: Action
    reason: str


@dataclass(frozen=True, slots=True)
class Step:
    """What the watch read before one token was chosen.

    Masses are the model's own probabilities at temperature 1, before any mask. They are read where
    some control token may reach `GATE`, or the likeliest token is illegal;
    elsewhere `masses` is empty, and `illegal` and `pressure` are 0.

    Attributes:
        step: the number of tokens of the turn before it.
        region: where the turn stood.
        position: the same as far as control tokens are concerned.
        token: the token that was chosen, spelled out.
        token_id: its id.
        masses: the mass of each control token that reaches the gate, by its text.
        illegal: the mass of all illegal tokens together.
        pressure: mask pressure, in nats: -log of the mass that the mask left.
        rank: of the chosen token among all tokens, by the model's own probability; 1 is the first.
        odds: the log-odds of the opener against content, where the turn decides between a call and
            a reply; None elsewhere, and where the opener is not one token.
    """

    step: int
    region: Region
    position: Position
    token: str
    token_id: int
    masses: Mapping[str, float]
    illegal: float
    pressure: float
    rank: int
    odds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The step as plain JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Report:
    """What happened to one turn while it was decoded.

    Attributes:
        policy: the policy it was decoded under.
        tokens: the number of tokens of the turn, its end included.
        forced: how many of them the grammar forced, so that no pass of their own was needed.
        forward_passes: the model's forward passes while this turn was open.
        seconds: wall time while this turn was open; turns of one batch share it.
        pressure: mask pressure summed over the turn, in nats: -log of the mass that masks left.
        interventions: what the guard did, in order.
        steps: what the watch read, token by token; empty if it was not asked to keep that.
        state_before: the state that the turn was heading for: of what was written up to the first
            intervention and the token wanted there; None if there was no intervention.
        state_after: the state of the turn.
        retries: how often something was taken back and sampled again.
        retried_tokens: how many tokens were taken back in all.
        cleaned: how many corrupt assistant turns of the history were mended or left out.
        cut: the budget, not the model, ended the turn.
    """

    policy: Policy
    tokens: int
    forced: int
    forward_passes: int
    seconds: float
    pressure: float
    interventions: tuple[Intervention, ...]
    steps: tuple[Step, ...] = ()
    state_before: State | None = None
    state_after: State | None = None
    retries: int = 0
    retried_tokens: int = 0
    cleaned: int = 0
    cut: bool = False

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        for several in ("interventions", "steps"):
            fields[several] = [
                {name: getattr(item, name) for name in item.__slots__} for item in fields[several]
            ]
        return fields

    @staticmethod
    def of_json(fields: Mapping[str, Any]) -> Report:
        """What `to_json` wrote."""
        interventions = tuple(Intervention(**item) for item in fields["interventions"])
        steps = tuple(Step(**step) for step in fields["steps"])
        return Report(**{**fields, "interventions": interventions, "steps": steps})

    def to_html(self) -> str:
        """The report as one HTML page that needs nothing else."""
        from .page import page

        return page(self)

    def _repr_html_(self) -> str:
        """The report in a notebook."""
        from .page import fragment

        return fragment(self)

    def __rich__(self) -> Group:
        """The report as `rich.print` shows it."""
        # Neither rich nor the page is loaded before somebody looks at a report.
        from .table import table

        return table(self)
