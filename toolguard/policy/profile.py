"""A profile: the control mass of a healthy model, by control token and place."""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from ..errors import ProfileError
from ..formats.nodes import Region
from ..formats.wire_format import WireFormat
from ..report.report import GATE, Position, Step

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VERSION = 2
QUANTILES = (0.5, 0.9, 0.99, 0.999)
ODDS_QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
"""Those that a profile's file shows beside its sketches: of masses, and of log-odds."""
ILLEGAL = "illegal tokens"
"""Stands for all illegal tokens of a step together, among the control tokens of a sign."""
POSITIONS: tuple[Position, ...] = get_args(Position)

# REQ's size: with it, the largest 150 masses of a place are kept one by one.
_K = 50
_SIGMAS = 3  # rank errors are counted at three standard deviations

Measure = Literal["mass", "doubt"]
Sign: TypeAlias = tuple[str, Position, Measure]
"""What is looked at in a turn: a control token or `ILLEGAL`, a position, and there the largest mass
or the largest doubt, min(mass, 1 - mass)."""
Place: TypeAlias = tuple[Region, Position]


class Profile:
    """How much control mass a healthy model has where: per step, and per turn.

    Masses are kept in REQ sketches (Cormode and others, "Relative Error Streaming Quantiles",
    arXiv 2004.01668; Apache DataSketches), whose rank error shrinks towards the upper tail, where
    spikes are. They merge, so shards of a calibration can be recorded apart. A step at which a
    control token did not reach the watch's gate counts as mass 0 of it.

    Per turn it keeps *signs*: for each control token and position, the largest mass in the turn,
    and the largest doubt, min(mass, 1 - mass). A healthy model knows where its control tokens
    belong; doubt grows while mass moves, away from the right token as well as to a wrong one.

    Attributes:
        wire_format: the name of the wire format; empty in the default profile.
        controls: the text of the control tokens: the format's, and what else ends a turn; none in
            the default profile.
        fingerprint: of the tokenizer's vocabulary and the wire format.
        turns: the number of turns recorded.
    """

    def __init__(self, wire_format: str, controls: Sequence[str], fingerprint: str) -> None:
        self.wire_format = wire_format
        self.controls = tuple(controls)
        self.fingerprint = fingerprint
        self.turns = 0
        self._steps: Counter[Place] = Counter()
        self._masses: dict[tuple[str, Place], Any] = {}
        self._signs: dict[Sign, Any] = {}
        self._odds: Any = None

    @staticmethod
    def of(
        wire_format: WireFormat,
        tokenizer: PreTrainedTokenizerBase,
        end_tokens: Sequence[int] | None = None,
    ) -> Profile:
        """An empty profile of a model with this wire format and tokenizer.

        Args:
            wire_format: the format.
            tokenizer: the tokenizer.
            end_tokens: the ids that end a turn, if others than the tokenizer's `eos_token_id` and
                the format's own turn ends: they are control tokens, too.
        """
        ends = [tokenizer.eos_token_id] if end_tokens is None else list(end_tokens)
        names = tokenizer.convert_ids_to_tokens([end for end in ends if end is not None])
        controls = dict.fromkeys([*wire_format.controls, *names])
        return Profile(wire_format.name, [*controls], fingerprint_of(wire_format, tokenizer))

    @staticmethod
    def default() -> Profile:
        """The built-in profile, for a model that was never profiled.

        It knows no masses, and assumes two things. An illegal token with more than half of the
        mass is a spike: masks overrule it whatever it is, and a healthy model, whose likeliest
        tokens are nearly always legal, wants one in at most one turn of 16, at any position. A
        legal control token never is one: how often a model calls depends on what it is asked, and
        only a profile of the model can tell.
        """
        return Profile("", (), "")

    def add(self, steps: Iterable[Step]) -> None:
        """Records one finished turn.

        Raises:
            ProfileError: it has no steps, or masses of control tokens that the format lacks.
        """
        steps = list(steps)
        if not steps:
            raise ProfileError("a turn without steps: decode it with trace=True, which keeps them")
        for step in steps:
            unknown = step.masses.keys() - set(self.controls)
            if unknown or not self.controls:
                raise ProfileError(
                    f"a profile of {self.wire_format or 'nothing (the default one)'} cannot record "
                    f"{', '.join(sorted(unknown)) or 'turns'}: make it with Profile.of"
                )
        for step in steps:
            place = (step.region, step.position)
            self._steps[place] += 1
            for control, mass in step.masses.items():
                _record(self._masses, (control, place), _whole(mass))
        for sign, size in signs(steps).items():
            _record(self._signs, sign, size)
        decided = [step.odds for step in steps if step.odds is not None]
        if decided:
            self._odds = self._odds or _kll()
            self._odds.update(decided[-1])
        self.turns += 1

    def merge(self, other: Profile) -> None:
        """Takes in what another profile of the same format and tokenizer recorded.

        Raises:
            ProfileError: it is of another one.
        """
        if (other.fingerprint, other.controls) != (self.fingerprint, self.controls):
            raise ProfileError(
                f"profiles of {self.wire_format!r} and {other.wire_format!r} with different "
                "fingerprints cannot be merged: record both with the same tokenizer and format"
            )
        self._steps += other._steps
        _merge(self._masses, other._masses)
        _merge(self._signs, other._signs)
        if other._odds is not None:
            self._odds = self._odds or _kll()
            self._odds.merge(other._odds)
        self.turns += other.turns

    def count(self, region: Region, position: Position) -> int:
        """How many steps were recorded there."""
        return self._steps[region, position]

    def quantile(self, control: str, region: Region, position: Position, q: float) -> float:
        """The mass that a share `q` of the steps there does not exceed; NaN if there were none.

        Raises:
            ProfileError: the format has no such control token.
        """
        place = (region, position)
        return _quantile(self._sketch(control, place), self._steps[place], q)

    def p_value(self, control: str, region: Region, position: Position, mass: float) -> float:
        """The conformal p-value of a mass: (1 + how many recorded ones are as large) / (n + 1).

        If the steps recorded there and this one are exchangeable, it is at most `u` with
        probability at most `u`. What the sketch may be wrong by, at three standard deviations, is
        counted against the alarm. 1 where nothing was recorded.

        Raises:
            ProfileError: the format has no such control token.
        """
        place = (region, position)
        n = self._steps[place]
        return (1 + _reach(self._sketch(control, place), n, _whole(mass))) / (n + 1)

    def sign_bound(self, sign: Sign, size: float, risk: float) -> float:
        """How many healthy turns have such a sign at most: an upper confidence bound of the share.

        Whatever healthy turns look like, it is too low with probability at most `risk`, over the
        turns that were recorded (Chernoff's bound for the binomial tail). That is more than a
        conformal p-value says, and it is what a detector needs that holds every turn against the
        same calibration: its p-values are not independent (Bates and others, arXiv 2104.08279).
        """
        n = self.turns
        return binomial_bound(_reach(self._signs.get(sign), n, size), n, risk) if n else 1.0

    def sign_quantile(self, sign: Sign, q: float) -> float:
        """The size that a share `q` of the turns does not exceed; NaN if there were none."""
        return _quantile(self._signs.get(sign), self.turns, q)

    @property
    def decisions(self) -> int:
        """How many turns decided between a call and a reply by the odds of an opener."""
        return self._odds.n if self._odds is not None else 0

    def odds_quantile(self, q: float) -> float:
        """The log-odds of the opener there that a share `q` of these turns does not exceed; NaN if
        there were none. Kept in a KLL sketch (Karnin, Lang and Liberty, arXiv 1603.05346), exact up
        to 1,000 turns."""
        return float(self._odds.get_quantile(q)) if self._odds is not None else math.nan

    @property
    def places(self) -> tuple[Place, ...]:
        """The places where steps were recorded, in the order of `Position`."""
        return tuple(sorted(self._steps, key=lambda place: (POSITIONS.index(place[1]), place[0])))

    def to_json(self) -> dict[str, Any]:
        """The profile as plain JSON values: quantiles to read, sketches (base64) to load."""
        content = {
            "toolguard_profile": VERSION,
            "wire_format": self.wire_format,
            "fingerprint": self.fingerprint,
            "controls": list(self.controls),
            "turns": self.turns,
            "steps": [
                {"region": region, "position": position, "steps": n}
                for (region, position), n in self._steps.items()
            ],
            "masses": [
                {
                    "control": control,
                    "region": place[0],
                    "position": place[1],
                    **_shown(sketch, self._steps[place]),
                }
                for (control, place), sketch in self._masses.items()
            ],
            "signs": [
                {
                    "control": control,
                    "position": position,
                    "measure": measure,
                    **_shown(sketch, self.turns),
                }
                for (control, position, measure), sketch in self._signs.items()
            ],
        }
        if self._odds is not None:
            content["decisions"] = {
                "turns": self.decisions,
                "quantiles": {str(q): round(self.odds_quantile(q), 3) for q in ODDS_QUANTILES},
                "sketch": base64.b64encode(self._odds.serialize()).decode("ascii"),
            }
        return {**content, "checksum": _checksum(content)}

    def save(self, path: Path) -> None:
        """Writes the profile as JSON.

        Raises:
            ProfileError: it cannot be written.
        """
        try:
            path.write_text(json.dumps(self.to_json(), indent=1) + "\n", "utf-8")
        except OSError as error:
            raise ProfileError(f"cannot write the profile {path}: {error}") from error

    @staticmethod
    def load(
        path: Path,
        wire_format: WireFormat | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> Profile:
        """Reads a profile, and checks that it is of this wire format and tokenizer, if given.

        The checksum finds damage, not malice: like a model's pickle, load what you trust.

        Raises:
            ProfileError: the file is broken, of an unknown version, or of another model.
        """
        again = "record it again with `toolguard profile`"
        try:
            content = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ProfileError(f"cannot read the profile {path}: {error}; {again}") from error
        version = content.get("toolguard_profile") if isinstance(content, dict) else None
        if version is None:
            raise ProfileError(f"{path} is no profile: it has no 'toolguard_profile'; {again}")
        if version != VERSION:
            raise ProfileError(
                f"{path} is a profile of version {version}, and this toolguard reads {VERSION}; "
                f"{again}"
            )
        if content.pop("checksum", None) != _checksum(content):
            raise ProfileError(f"{path} is broken: its checksum does not match; {again}")
        try:
            profile = _read(content)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ProfileError(f"{path} is broken: {error!r}; {again}") from error
        if wire_format is not None and wire_format.name != profile.wire_format:
            raise ProfileError(
                f"{path} is a profile of the wire format {profile.wire_format!r}, and the model "
                f"writes {wire_format.name!r}; {again}"
            )
        if wire_format is None or tokenizer is None:
            return profile
        if fingerprint_of(wire_format, tokenizer) != profile.fingerprint:
            raise ProfileError(
                f"{path} was recorded with another vocabulary or another version of the grammar "
                f"{wire_format.name!r}; {again}"
            )
        return profile

    def _sketch(self, control: str, place: Place) -> Any:
        if self.controls and control not in self.controls:
            raise ProfileError(
                f"{self.wire_format} has no control token {control!r}: it has "
                f"{', '.join(self.controls)}"
            )
        return self._masses.get((control, place))


def signs(steps: Iterable[Step]) -> dict[Sign, float]:
    """The signs of one turn that reach the gate."""
    found: dict[Sign, float] = {}
    for step in steps:
        for control, mass in (*step.masses.items(), (ILLEGAL, step.illegal)):
            sizes: tuple[tuple[Measure, float], ...] = (
                ("mass", _whole(mass)),
                ("doubt", min(mass, 1 - mass)),
            )
            for measure, size in sizes:
                sign = (control, step.position, measure)
                if size >= GATE:
                    found[sign] = max(size, found.get(sign, 0.0))
    return found


def _whole(mass: float) -> float:
    """What is as near to 1 as the gate is to 0 counts as 1: a model that becomes surer of what it
    was sure of does no harm."""
    return 1.0 if mass > 1 - GATE else mass


def fingerprint_of(wire_format: WireFormat, tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of the tokenizer's vocabulary and of what the format's grammar file says."""
    from ..grammar.engine import fast_tokenizer

    vocabulary = sorted(fast_tokenizer(tokenizer).get_vocab().items())
    text = json.dumps([wire_format.name, repr(wire_format.rules), vocabulary])
    return sha256(text.encode()).hexdigest()


def binomial_bound(found: int, n: int, risk: float) -> float:
    """An upper confidence bound of a probability, from `found` successes in `n` trials.

    The p above found/n with n * KL(found/n, p) = ln(1/risk): too low with probability at most
    `risk` (Chernoff).
    """
    share = found / n
    if share >= 1:
        return 1.0
    low, high = share, 1.0
    for _ in range(50):
        p = (low + high) / 2
        divergence = (1 - share) * math.log((1 - share) / (1 - p))
        if share:
            divergence += share * math.log(share / p)
        low, high = (p, high) if n * divergence < -math.log(risk) else (low, p)
    return high


def _record(sketches: dict[Any, Any], key: Any, size: float) -> None:
    if size <= 0:
        return
    if key not in sketches:
        from datasketches import req_floats_sketch

        sketches[key] = req_floats_sketch(_K, True)
    sketches[key].update(size)


def _kll() -> Any:
    from datasketches import kll_doubles_sketch

    return kll_doubles_sketch(1000)


def _merge(into: dict[Any, Any], sketches: dict[Any, Any]) -> None:
    from datasketches import req_floats_sketch

    for key, sketch in sketches.items():
        into.setdefault(key, req_floats_sketch(_K, True)).merge(sketch)


def _reach(sketch: Any, n: int, size: float) -> int:
    """How many of `n` sizes are at least this one: what is not in the sketch is 0."""
    if size <= 0:
        return n
    if sketch is None:
        return 0
    rank = sketch.get_rank_lower_bound(sketch.get_rank(size, False), _SIGMAS)
    # rounded, as 1 - rank is only as sharp as a float
    return min(n, math.ceil(round(float(sketch.n * (1 - rank)), 6)))


def _quantile(sketch: Any, n: int, q: float) -> float:
    if not n:
        return math.nan
    above = 0 if sketch is None else sketch.n
    if q * n <= n - above:
        return 0.0
    return float(sketch.get_quantile(min(1.0, max(0.0, (q * n - (n - above)) / above)), True))


def _shown(sketch: Any, n: int) -> dict[str, Any]:
    return {
        "quantiles": {str(q): round(_quantile(sketch, n, q), 6) for q in QUANTILES},
        "largest": round(_quantile(sketch, n, 1.0), 6),
        "above_zero": sketch.n,
        "sketch": base64.b64encode(sketch.serialize()).decode("ascii"),
    }


def _checksum(content: dict[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read(content: dict[str, Any]) -> Profile:
    from datasketches import kll_doubles_sketch, req_floats_sketch

    profile = Profile(content["wire_format"], content["controls"], content["fingerprint"])
    profile.turns = int(content["turns"])
    for row in content["steps"]:
        profile._steps[row["region"], row["position"]] = int(row["steps"])
    for row in content["masses"]:
        sketch = req_floats_sketch.deserialize(base64.b64decode(row["sketch"]))
        profile._masses[row["control"], (row["region"], row["position"])] = sketch
    for row in content["signs"]:
        sketch = req_floats_sketch.deserialize(base64.b64decode(row["sketch"]))
        profile._signs[row["control"], row["position"], row["measure"]] = sketch
    if "decisions" in content:
        sketch = kll_doubles_sketch.deserialize(base64.b64decode(content["decisions"]["sketch"]))
        profile._odds = sketch
    return profile
