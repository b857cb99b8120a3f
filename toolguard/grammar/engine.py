"""The mask engine behind one narrow door: vocabulary, matcher, batch fill.

Everything that toolguard asks of llguidance is here: compile, fill, accept, roll back, copy, and
forced tokens.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache, cached_property, lru_cache
from itertools import groupby, pairwise, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from llguidance import LLExecutor, LLMatcher, LLParserLimits, LLTokenizer

from ..errors import TokenizerError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Leave the tokenisation to the model: with forcing, llguidance's masks admit only the canonical
# spelling of a forced span, and a healthy model that spells it otherwise would be overruled.
_OPTIONS = '%llguidance {"no_forcing": true}\n'

_LAST_BYTE = ("\u00ff", "<0xFF>")
"""The byte 0xFF as a token of vocabularies of bytes, and of those that fall back on bytes."""

_LAYOUTS = (b'{"name": "x", "n": [1, 2]}', b'{"name":"x","n":[1,2]}')

# The engine precomputes masks of these parts of a vocabulary, for terminals that contain a part.
# The first are without what begins or ends a control token, an end tag or a Python string.
_SLICES = [
    rf'[^{besides}"\\\x00-\x1F\x7F]{times}'
    for besides in (r"'<>\[\](=", "")
    for times in ("{1,10}", "{1,30}", "+")
]


# An item for each way that a turn may go on, some five a tool: the engine's own 2,000 are too few
# behind the opener of hundreds of tools. Fuel is for some thousand strings without quotes, and for
# a step where a value ends and a dozen others may begin: a step that fails may take 150 ms.
_LIMITS = LLParserLimits(
    max_items_in_row=20_000, initial_lexer_fuel=20_000_000, step_lexer_fuel=2_000_000
)


class Vocabulary:
    """A tokenizer as the mask engine sees it. Make it with `Vocabulary.of`.

    Attributes:
        engine: llguidance's tokenizer.
        size: the number of ids; masks have (size + 31) // 32 words.
        added: id by text of the added tokens, special or not, but for those that are text here: no
            free text may contain them.
        end_ids: the ids that end a turn.
        last_byte: the ids of the byte 0xFF, of which the engine makes nothing.
    """

    def __init__(
        self,
        engine: LLTokenizer,
        added: Mapping[str, int],
        end_ids: tuple[int, ...],
        last_byte: frozenset[int],
    ) -> None:
        self.engine = engine
        self.last_byte = last_byte
        self.size = engine.vocab_size
        self.added = added
        self.end_ids = end_ids

    @staticmethod
    @lru_cache(maxsize=16)
    def of(
        tokenizer: PreTrainedTokenizerBase,
        end_ids: tuple[int, ...],
        texts: frozenset[str] = frozenset(),
    ) -> Vocabulary:
        """The vocabulary of a fast tokenizer (about 1 s at 150k entries, then cached).

        Args:
            end_ids: the ids that end a turn.
            texts: the added tokens that are text, as any other token: parts of spelled tags.

        Raises:
            TokenizerError: it has no token that ends a turn.
        """
        from llguidance.hf import from_tokenizer  # imports transformers, as its caller did

        if not end_ids:
            raise TokenizerError(
                f"{type(tokenizer).__name__} has no token that ends a turn: set its eos_token, or "
                "pass end_tokens"
            )
        added = {text: i for text, i in tokenizer.get_added_vocab().items() if text not in texts}
        if texts:
            tokenizer = _with_texts(tokenizer, texts)
        tokenizer = _without_gaps(tokenizer)
        engine = from_tokenizer(tokenizer, eos_token=list(end_ids), slices=_SLICES)  # type: ignore[arg-type]
        spelled = tokenizer.get_vocab()
        last_byte = frozenset(spelled[text] for text in _LAST_BYTE if text in spelled)
        return Vocabulary(engine, added, end_ids, last_byte)

    @cached_property
    def specials(self) -> frozenset[int]:
        """The ids that are never text."""
        return frozenset(i for i in self.added.values() if self.engine.is_special_token(i))

    def bytes_of(self, ids: Sequence[int]) -> bytes:
        """The bytes that the ids spell; special tokens by their name."""
        if self.last_byte.isdisjoint(ids):
            return self.engine.decode_bytes(list(ids))
        return b"".join(
            self.engine.decode_bytes([i]) or b"\xff" * (i in self.last_byte) for i in ids
        )

    def text_of(self, ids: Sequence[int]) -> str:
        """The same as a reader sees it; what is no UTF-8 is replaced."""
        return self.bytes_of(ids).decode("utf-8", "replace")

    def ids_of(self, data: bytes) -> list[int]:
        """The ids that spell the bytes; no added token among them."""
        # The tokenizer takes the text of an added token for that token: cut it in two.
        cuts = [found.start() + 1 for found in self._added_texts.finditer(data)]
        parts = [data[a:b] for a, b in pairwise([0, *cuts, len(data)])]
        return [token for part in parts for token in _tokenized(self.engine, part)]

    def respelled(self, ids: Sequence[int]) -> list[int]:
        """The ids that the tokenizer itself takes for the same text; added tokens stay."""
        spelled: list[int] = []
        for kept, run in groupby(ids, key=self._kept.__contains__):
            part = [*run]
            spelled += part if kept else self.ids_of(self.bytes_of(part))
        return spelled

    def spells(self, ids: Sequence[int], token: int) -> bool:
        """Whether the tokenizer spells the text of ids and one more token as it spells that text,
        and the token."""
        if token in self._kept:
            return True
        # What is before an added token is spelled by itself.
        run = [*takewhile(lambda id: id not in self._kept, reversed(ids))][::-1]
        return self.respelled([*run, token]) == [*self.respelled(run), token]

    @cached_property
    def _kept(self) -> frozenset[int]:
        return frozenset([*self.added.values(), *self.end_ids])

    @cached_property
    def spaced(self) -> bool:
        """Whether JSON takes fewer tokens with spaces: a vocabulary has them for one layout."""
        with_spaces, without = map(self.ids_of, _LAYOUTS)
        return len(with_spaces) <= len(without)

    @cached_property
    def _added_texts(self) -> re.Pattern[bytes]:
        return re.compile("|".join(map(re.escape, self.added)).encode() or b"(?!)")


@lru_cache(maxsize=16)
def id_count(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many ids a tokenizer may give: more than it has tokens where there is a gap, as in
    Phi-4-mini's."""
    return max(tokenizer.get_vocab().values()) + 1


@lru_cache(maxsize=1024)
def _tokenized(engine: LLTokenizer, data: bytes) -> tuple[int, ...]:
    # Whatever comes next, a turn is mostly completed by the same text.
    return tuple(engine.tokenize_bytes(data))


def _with_texts(
    tokenizer: PreTrainedTokenizerBase, texts: frozenset[str]
) -> PreTrainedTokenizerBase:
    """A tokenizer with the same ids to which these added tokens are not special."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in backend["added_tokens"]:
        token["special"] = token["special"] and token["content"] not in texts
    return _made_of(backend)


def _without_gaps(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A tokenizer with the same ids, and a special token for each id that has none: the engine
    takes the number of tokens for the number of ids."""
    unused = {*range(id_count(tokenizer))} - {*tokenizer.get_vocab().values()}
    if not unused:
        return tokenizer
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    for token in sorted(unused):
        text = f"<|unused id {token}|>"
        backend["added_tokens"].append({"id": token, "content": text, "special": True, **flags})
    # An added token that the model's own vocabulary lacks would get another id.
    for added in backend["added_tokens"]:
        backend["model"]["vocab"][added["content"]] = added["id"]
    return _made_of(backend)


def _made_of(backend: Mapping[str, object]) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer.from_str(json.dumps(backend))
    return PreTrainedTokenizerFast(tokenizer_object=made)  # type: ignore[no-untyped-call]


@lru_cache(maxsize=16)
def fast_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The fast tokenizer with the same ids: itself, or what transformers makes of mistral-common's.

    mistral-common's never encodes control tokens, and cannot render a chat as text.

    Raises:
        TokenizerError: there is none.
    """
    from transformers.tokenization_mistral_common import MistralCommonBackend

    if isinstance(tokenizer, MistralCommonBackend):
        return _from_mistral_common(tokenizer.tokenizer.instruct_tokenizer.tokenizer.file_path)
    if not getattr(tokenizer, "is_fast", False):
        raise TokenizerError(
            f"{type(tokenizer).__name__} is no fast tokenizer: load it with "
            "AutoTokenizer.from_pretrained(..., use_fast=True)"
        )
    return tokenizer


def _from_mistral_common(path: Path) -> PreTrainedTokenizerBase:
    from transformers.integrations.mistral import (  # type: ignore[attr-defined]
        convert_tekken_tokenizer,
    )

    if path.suffix != ".json":
        raise TokenizerError(
            f"{path.name} is a SentencePiece model, and only Tekken's JSON makes a fast tokenizer: "
            "load the model's tokenizer.json with AutoTokenizer.from_pretrained(..., "
            "mistral_format=False)"
        )
    return convert_tekken_tokenizer(str(path))


def compile_grammar(vocabulary: Vocabulary, grammar: str) -> LLMatcher:
    """A matcher at the start of a grammar; `copy` it per sequence.

    Raises:
        ValueError: the engine refuses the grammar; the message is the engine's.
    """
    matcher = LLMatcher(vocabulary.engine, source(grammar), limits=_LIMITS)
    if matcher.is_error():
        raise ValueError(matcher.get_error())
    return matcher


def source(grammar: str) -> str:
    """A grammar with the options that ours are compiled with."""
    return _OPTIONS + grammar


@lru_cache(maxsize=4096)
def refusal(expression: str) -> str:
    """Why the engine refuses an expression, as one of its grammars' rules; empty if it takes it."""
    return LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(f"start: {expression}"))


@lru_cache(maxsize=1024)
def _byte_matcher(grammar: str) -> LLMatcher:
    matcher = LLMatcher(_byte_vocabulary(), source(grammar))
    if matcher.is_error():
        raise ValueError(matcher.get_error())
    return matcher


@cache
def _byte_vocabulary() -> LLTokenizer:
    return LLTokenizer("byte")


# Where several bytes lead on: first what closes, then digits, then letters; white space is last.
_ORDER = sorted(
    range(256),
    key=lambda b: (b not in b'"]}', not chr(b).isalnum() or b > 127, b in b" \t\r\n", b),
)


MOST_TRIED = 50_000
"""How many bytes are tried for a shortest suffix, about a second's worth."""


_KEPT = 64  # bytes of a prefix whose suffix is worth keeping, and texts that may grow


def shortest_suffix(grammar: str, prefix: bytes) -> bytes | None:
    """The fewest bytes that complete `prefix` under a small grammar; None if nothing can, or
    nothing that is found in `MOST_TRIED` steps.

    A breadth-first search that keeps one state per mask and length: states with equal masks are
    alike for what is to come, but for counters, and those only count down along a path.
    """
    if len(prefix) <= _KEPT:
        return _short_suffix(grammar, prefix)
    start = _walks(grammar).to(prefix)
    return None if start is None else _search(start)


@lru_cache(maxsize=4096)
def _short_suffix(grammar: str, prefix: bytes) -> bytes | None:
    start = _byte_matcher(grammar).deep_copy()
    if start.try_consume_tokens(list(prefix)) < len(prefix):
        return None
    return _search(start)


class _Walks:
    """A grammar's matchers behind long texts, one for each of the texts that were last asked for: a
    turn's text is asked for again and again as it grows, and with one token or another behind it.

    Of a text that grows, only the last is kept that others went on from, and those.
    """

    def __init__(self, start: LLMatcher) -> None:
        self.start = start
        self.kept: dict[bytes, tuple[LLMatcher, bytes]] = {}  # with the text that it went on from

    def to(self, text: bytes) -> LLMatcher | None:
        """The matcher behind a text; None if the grammar refuses it."""
        longest = sorted([*self.kept], key=len, reverse=True)
        known = next(filter(text.startswith, longest), b"")
        before, origin = self.kept.pop(known, (self.start, b""))
        matcher = before.deep_copy()
        rest = list(text[len(known) :])
        accepted = matcher.try_consume_tokens(rest) == len(rest)
        if accepted and rest:
            self.kept.pop(origin, None)
            self.kept[text] = (matcher.deep_copy(), known)
        if known:
            self.kept[known] = (before, origin)  # the last to be dropped
        if len(self.kept) > _KEPT:
            self.kept.pop(next(iter(self.kept)), None)
        return matcher if accepted else None


@lru_cache(maxsize=64)
def _walks(grammar: str) -> _Walks:
    return _Walks(_byte_matcher(grammar))


def _search(start: LLMatcher) -> bytes | None:
    if start.is_accepting():
        return b""
    level, tried = [(start, b"")], 0
    while level and tried < MOST_TRIED:
        following: dict[bytes, tuple[LLMatcher, bytes]] = {}
        for matcher, suffix in level:
            mask = matcher.compute_bitmask()
            for byte in _ORDER:
                if mask[byte >> 3] >> (byte & 7) & 1:
                    tried += 1
                    child = matcher.deep_copy()
                    child.consume_token(byte)
                    if child.is_accepting():
                        return suffix + bytes([byte])
                    following.setdefault(child.compute_bitmask(), (child, suffix + bytes([byte])))
        level = list(following.values())
    return None


@cache
def executor() -> LLExecutor:
    """The thread pool that fills masks of a batch."""
    return LLExecutor(num_threads=max(1, (os.cpu_count() or 2) // 2))
