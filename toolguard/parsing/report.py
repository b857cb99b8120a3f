"""What the guard did to one turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..formats.nodes import Region

Policy = Literal["observe", "enforce"]
Action = Literal["mask", "close", "lead"]


@dataclass(frozen=True, slots=True)
class Intervention:
    """One thing that the guard did.

    Attributes:
        step: the number of tokens of the turn before it.
        region: where the turn stood: reasoning, text or call.
        token: the token that the model wanted most, spelled out.
        token_id: its id.
        mass: the model's own probability of it, before any mask; None for `lead`.
        action: `mask`: the token is illegal there; `close`: it is legal, but with it the turn
            could no longer end within its budget; `lead`: the model was writing the bare body of a
            call, so that was taken back and led into the opener.
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
    """

    policy: Policy
    tokens: int
    forced: int
    forward_passes: int
    seconds: float
    pressure: float
    interventions: tuple[Intervention, ...]

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        fields["interventions"] = [
            {name: getattr(item, name) for name in item.__slots__} for item in self.interventions
        ]
        return fields
