"""A model that has no weights and follows a script: a healthy one, and damage laid on to measure.

`ReplayModel` is a `transformers.PreTrainedModel` with a real vocabulary. Given a prompt that it has
a script for, and what was written after it, it finds how far along the script that is (`follow`)
and is sure of the token that comes next there: 0.92 to 0.98. The rest goes to other spellings of
the same text, to what comes a little later, to punctuation and control tokens (1e-6 to 1e-3 each),
and to everything else. All of it is drawn from the seed, the script and the place.

Damage adds `strength` nats to the logits of chosen tokens at chosen moments (their odds are
multiplied by e^strength, and the right token loses what they win); `noise` adds normal noise of
that standard deviation to all logits. At 0 it is the healthy model, to the bit.

Its key-value cache holds ids for keys, so that whatever decodes with it may crop, reorder and mask
it as any other: `generate`, batches with padding, beams, toolguard's roll-back.

What it cannot show: after damage it goes on as if it were healthy. A real model may not.
"""

from __future__ import annotations

import string
import zlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from toolguard.grammar.engine import Vocabulary

SURE = (0.92, 0.98)
"""Between these is the probability of the right token."""
SPELLINGS, LATER, OTHERS = 0.6, 0.25, 0.15
"""How the rest is shared: other spellings of the text, later tokens of the script, any tokens."""
LIKELY = (-6.0, -3.0)
"""Between these is the decimal logarithm of what each control token and punctuation mark has."""
FLOOR = 1e-4
"""What all tokens share that nothing speaks for."""
_SPACE = b" \t\r\n"
_AHEAD, _SPELLED, _ANY = 6, 12, 24  # how many later tokens, bytes of a spelling, other tokens


@dataclass(frozen=True)
class Script:
    """What is to be said after one prompt.

    Attributes:
        prompt: its ids.
        ids: the turn, in the tokenizer's own spelling, its end token last.
        kinds: what each of these ids is (`structure`, `value`, ...), for damage to choose by.
        strings: where the insides of string values are, in bytes of the turn.
    """

    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    kinds: tuple[str, ...] = ()
    strings: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Moment:
    """One next token: what damage may look at.

    Attributes:
        script: what is followed.
        at: how many bytes of the turn are written.
        written: how many tokens are written.
        place: the script's token that stands here.
        right: the token that a healthy model says.
    """

    script: Script
    at: int
    written: int
    place: int
    right: int

    @property
    def kind(self) -> str:
        """What the script's token here is."""
        return self.script.kinds[self.place] if self.script.kinds else ""


Logits = npt.NDArray[np.float32]
Damage = Callable[[Moment], Sequence[int]]
"""The tokens whose logits are raised at a moment."""


def follow(text: bytes, at: int, said: bytes, inside: bool = False) -> int:
    """How much of a script is written when one more token is, which may be another than the right.

    - What agrees, white space aside, is followed.
    - A word or a number that deviates stands for the script's own one at that place; where the
      script has none there, it was put in.
    - What closes or separates (a control token, a bracket, a quote) leads on to where it stands
      next in the script; inside a string only its quote and control tokens do. One that was just
      written is a doubling, and one that stands nowhere was put in.

    Args:
        text: the whole turn.
        at: how much of it is written.
        said: what the token spells.
        inside: whether the place is inside a string value.
    """
    given, there, agreed = 0, at, at
    while given < len(said):
        if text[there : there + 1] == said[given : given + 1]:
            given, there = given + 1, there + 1
            agreed = there
        elif said[given] in _SPACE:
            given += 1
        elif text[there : there + 1] and text[there] in _SPACE:
            there += 1
        else:
            break
    rest = said[given:].strip(_SPACE)
    if not rest:
        return there
    there = agreed
    control = len(rest) > 3 and not rest.isalnum()
    if not control and any(chr(byte).isalnum() or byte > 127 for byte in rest):
        end = there
        while text[end : end + 1].isalnum() or text[end : end + 1] in (b".", b"_", b"-"):
            end += 1
        return end if there == at or end > there else at
    if inside and not control and rest[:1] not in (b'"', b"'"):
        return at
    if text[:at].rstrip(_SPACE).endswith(rest):
        return at
    found = text.find(rest, there)
    return at if found < 0 else found + len(rest)


class ReplayConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """As much of a configuration as decoding loops ask for."""

    model_type = "replay"

    def __init__(self, vocab_size: int = 0, **options: Any) -> None:
        self.vocab_size = vocab_size
        self.num_hidden_layers = self.num_attention_heads = self.hidden_size = 1
        super().__init__(**options)


class ReplayModel(PreTrainedModel, GenerationMixin):  # type: ignore[no-untyped-call]
    """See the module.

    Args:
        config: with the real vocabulary's size, and `eos_token_id` and `pad_token_id`.
        vocabulary: what the ids spell.
        scripts: one per prompt.
        controls: the control tokens that it may say; of others it knows nothing.
        damage, strength: which logits are raised, by how many nats.
        noise: the standard deviation of what is added to every logit.
        seed: what the healthy distribution and the noise are drawn from.
    """

    config_class = ReplayConfig
    config: ReplayConfig

    def __init__(
        self,
        config: ReplayConfig,
        vocabulary: Vocabulary,
        scripts: Sequence[Script],
        *,
        controls: Sequence[int] = (),
        damage: Damage | None = None,
        strength: float = 0.0,
        noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(config)
        self.spelling = _Spelling.of(vocabulary)
        self.lines = {script.prompt: _Line(script, self.spelling) for script in scripts}
        if len(self.lines) < len(scripts):
            raise ValueError("two scripts have the same prompt: it could not tell them apart")
        self.damage, self.strength, self.noise, self.seed = damage, strength, noise, seed
        self._likely = np.array(sorted({*self.spelling.marks, *controls, *vocabulary.end_ids}))
        self._lengths = sorted({len(prompt) for prompt in self.lines}, reverse=True)
        random = np.random.default_rng(seed)
        size = config.vocab_size
        drawn = random.standard_normal(size)
        self._floor: Logits = (np.log(FLOOR) + drawn - np.logaddexp.reduce(drawn)).astype(
            np.float32
        )
        self._normal = random.standard_normal(size).astype(np.float32)
        self.anchor = torch.nn.Parameter(torch.zeros(1))  # where it is, and of what type
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: DynamicCache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **others: Any,
    ) -> CausalLMOutputWithPast:
        """The logits after the last tokens; of all of them, where `logits_to_keep` is 0."""
        rows, width = input_ids.shape
        past_key_values = others.get("cache", past_key_values)  # so from transformers 5.24 on
        if past_key_values is None and use_cache is not False:
            past_key_values = DynamicCache()
        ids = input_ids
        if past_key_values is not None:
            keys = input_ids[:, None, :, None]
            ids = past_key_values.update(keys, keys, 0)[0][:, 0, :, 0]
        columns = ids.shape[1]
        seen = torch.ones_like(ids) if attention_mask is None else attention_mask[:, -columns:]
        wanted = min(logits_to_keep or width, width)
        logits = torch.zeros((rows, wanted, self.config.vocab_size))
        held, mask = ids.tolist(), seen.bool().tolist()
        for row in range(rows):
            for place in range(wanted):
                end = columns - wanted + place + 1
                if mask[row][end - 1]:
                    kept = zip(held[row][:end], mask[row][:end], strict=True)
                    read = [token for token, is_seen in kept if is_seen]
                    logits[row, place] = torch.from_numpy(self.after(read))
        logits = logits.to(self.anchor.device, self.anchor.dtype)
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)

    def after(self, ids: Sequence[int]) -> Logits:
        """The logits of the token after a prompt and what was written so far."""
        line, turn = self._line(tuple(ids))
        if line is None:  # a part of a prompt
            return self._floor
        at = line.follow(turn)
        place = line.place(at)
        moment = Moment(line.script, at, len(turn), place, line.right(at))
        logits = self._healthy(line, moment)
        if self.damage is not None and self.strength:
            logits[list(dict.fromkeys(self.damage(moment)))] += self.strength
        if self.noise:
            logits += self.noise * np.roll(self._normal, _drawn(self.seed, moment) % len(logits))
        return logits

    def _line(self, ids: tuple[int, ...]) -> tuple[_Line | None, tuple[int, ...]]:
        for length in self._lengths:
            line = self.lines.get(ids[:length])
            if line is not None:
                return line, ids[length:]
        if len(ids) >= max(self._lengths, default=0):
            raise ValueError("there is no script for this prompt")
        return None, ()

    def _healthy(self, line: _Line, moment: Moment) -> Logits:
        random = np.random.default_rng(_drawn(self.seed, moment))
        logits = np.roll(self._floor, int(random.integers(len(self._floor))))
        logits[self.spelling.vocabulary.size :] = -40.0  # the ids that pad a vocabulary
        drawn = random.uniform(*LIKELY, len(self._likely))
        logits[self._likely] = drawn * np.log(10)
        sure = random.uniform(*SURE)
        any_token = random.integers(self.spelling.vocabulary.size, size=_ANY)
        for share, tokens in (
            (OTHERS, [int(token) for token in any_token if token not in self.spelling.controls]),
            (LATER, line.later(moment.place)),
            (SPELLINGS, line.spellings(moment.at)),
        ):
            masses = 0.5 ** np.arange(1, len(tokens) + 1)
            for token, mass in zip(tokens, masses, strict=True):
                logits[token] = np.log((1 - sure) * share * mass)
        logits[moment.right] = np.log(sure)
        return logits


@dataclass(eq=False)
class _Line:
    """A script, as text."""

    script: Script
    spelling: _Spelling
    _known: dict[tuple[int, ...], int] = field(default_factory=dict)

    @cached_property
    def text(self) -> bytes:
        return b"".join(map(self.spelling.of_token, self.script.ids[:-1]))

    @cached_property
    def starts(self) -> list[int]:
        """Where each token begins, the end token's place last."""
        sizes = (len(self.spelling.of_token(token)) for token in self.script.ids[:-1])
        return [*accumulate(sizes, initial=0)]

    def follow(self, turn: tuple[int, ...]) -> int:
        """How many bytes of the script a turn has written."""
        if not turn:
            return 0
        if turn not in self._known:
            at = self.follow(turn[:-1])
            inside = any(start <= at <= end for start, end in self.script.strings)
            if turn[-1] in self.spelling.ends:
                there = len(self.text)
            else:
                there = follow(self.text, at, self.spelling.of_token(turn[-1]), inside)
            self._known[turn] = there
        return self._known[turn]

    def place(self, at: int) -> int:
        """The script's token that a place is at or in."""
        return bisect_right(self.starts, at) - 1

    def right(self, at: int) -> int:
        """The token that the script goes on with: its own, or what spells the rest of it."""
        place = self.place(at)
        if self.starts[place] == at:
            return self.script.ids[place]
        rest = self.text[at : self.starts[place + 1]]
        return self.spelling.tokens.get(rest) or self.spelling.vocabulary.ids_of(rest)[0]

    def later(self, place: int) -> list[int]:
        """The next tokens after that one, the first of them first."""
        return list(dict.fromkeys(self.script.ids[place + 1 : place + 1 + _AHEAD]))

    def spellings(self, at: int) -> list[int]:
        """The tokens that spell a part of what comes, the longest first."""
        sizes = range(min(_SPELLED, len(self.text) - at), 0, -1)
        found = (self.spelling.tokens.get(self.text[at : at + size]) for size in sizes)
        return [token for token in found if token is not None]


class _Spelling:
    """What the ids of a vocabulary spell."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.ends = frozenset(vocabulary.end_ids)
        self.controls = frozenset(vocabulary.added.values()) | self.ends
        plain = (token for token in range(vocabulary.size) if token not in self.controls)
        self.tokens: Mapping[bytes, int] = {
            data: token for token in plain if (data := vocabulary.bytes_of([token]))
        }
        marks = (string.punctuation + string.digits).encode()
        self.marks = [self.tokens[bytes([m])] for m in marks if bytes([m]) in self.tokens]
        self._spelled: dict[int, bytes] = {}

    @staticmethod
    @lru_cache(maxsize=8)
    def of(vocabulary: Vocabulary) -> _Spelling:
        return _Spelling(vocabulary)

    def of_token(self, token: int) -> bytes:
        if token not in self._spelled:
            known = 0 <= token < self.vocabulary.size
            self._spelled[token] = self.vocabulary.bytes_of([token]) if known else b""
        return self._spelled[token]


def _drawn(seed: int, moment: Moment) -> int:
    """A number that stands for a seed, a script, a place and what is written there."""
    said = repr((seed, moment.script.ids, moment.at, moment.written))
    return zlib.crc32(said.encode())
