"""The guard: one request, compiled. Immutable, and shared between threads and sequences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from ..errors import RequestError, StateError, TokenizerError
from ..formats.nodes import Control
from ..formats.reader import STRAY, marker
from ..formats.wire_format import WireFormat
from ..grammar.arguments import Relaxation
from ..grammar.completion import Completer, Pieces
from ..grammar.engine import Vocabulary, fast_tokenizer, id_count, source
from ..grammar.loosening import MOST_VALUES
from ..grammar.mask_grammar import mask_grammar
from ..grammar.matcher import CompiledGrammar
from ..grammar.request import (
    PROMPT_END,
    Reasoning,
    RequestGrammar,
    reasoning_after,
    request_grammar,
)
from ..parsing.chat_template import template_end
from ..parsing.faults import line
from ..parsing.opening import OPENED
from ..parsing.parser import Spelling, TurnParser
from ..parsing.read import finished
from ..parsing.turn import Turn
from ..tools.toolset import ToolLike, Toolset
from .state import GuardState
from .still_text import PlainTokens, plain_tokens
from .words import Words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class Guard:
    """An immutable compiled (wire format, toolset, tokenizer, tool choice). Make it with `compile`.

    Attributes:
        format: the wire format.
        toolset: the tools offered.
        tool_choice: `auto`, `required`, `none` or a tool's name.
        parallel: whether one turn may hold several calls.
        reasoning: `auto`, `open` (the prompt has opened it), `none`, or `reply` (the prompt has
            opened a reply).
        tokenizer: the tokenizer.
        vocabulary: the tokenizer as the mask engine sees it.
        relaxations: the parts of the tools' schemas that masks do not enforce, or not in every
            spelling.
    """

    format: WireFormat
    toolset: Toolset
    tool_choice: str
    parallel: bool
    reasoning: Reasoning
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    vocabulary: Vocabulary = field(repr=False)
    relaxations: tuple[Relaxation, ...]
    grammar: RequestGrammar = field(repr=False)
    compiled: CompiledGrammar = field(repr=False)

    @staticmethod
    def compile(
        wire_format: WireFormat | str,
        tools: Toolset | str | Iterable[ToolLike],
        tokenizer: PreTrainedTokenizerBase,
        *,
        tool_choice: str = "auto",
        parallel: bool = True,
        reasoning: Reasoning = "auto",
        end_tokens: Sequence[int] | None = None,
    ) -> Guard:
        """Compiles a guard, or returns the one compiled before for the same content.

        Args:
            wire_format: a format or its name.
            tools: the tools offered; see `Toolset.of`.
            tokenizer: a fast Hugging Face tokenizer, or mistral-common's Tekken. Guards are cached
                by its identity.
            tool_choice: `auto`, `required`, `none`, or the name of the one tool to call.
            parallel: whether one turn may hold several calls.
            reasoning: `auto` if the turn may open with reasoning, `open` if the prompt has opened
                it already, `none` if there is none, `reply` if it has opened a reply.
            end_tokens: the ids that end a turn; by default the tokenizer's `eos_token_id` and the
                format's own turn ends.

        Raises:
            FormatError, ToolsetError, TokenizerError, RequestError: see `toolguard.errors`.
        """
        if isinstance(wire_format, str):
            wire_format = WireFormat.load(wire_format)
        toolset = Toolset.of(tools)
        tokenizer = fast_tokenizer(tokenizer)
        ends = _end_ids(wire_format, tokenizer, end_tokens)
        return _compile(wire_format, toolset, tokenizer, tool_choice, parallel, reasoning, ends)

    def after(self, prompt: Sequence[int]) -> Guard:
        """The guard of a turn that follows these ids: what they have opened, or closed, is taken
        from them where it was left open (`auto`)."""
        if self.reasoning != "auto":
            return self
        end = self.vocabulary.text_of(prompt[-PROMPT_END:])
        reasoning = reasoning_after(end, self.format)
        if reasoning == "auto":
            return self
        return _compile(
            self.format,
            self.toolset,
            self.tokenizer,
            self.tool_choice,
            self.parallel,
            reasoning,
            self.vocabulary.end_ids,
        )

    def start(self, max_new_tokens: int) -> GuardState:
        """The state of a fresh sequence that may have this many tokens, its end included.

        Raises:
            RequestError: not even the shortest legal turn fits.
        """
        least = len(self.shortest_turn) + 1
        if max_new_tokens < least:
            raise RequestError(
                f"max_new_tokens={max_new_tokens} is too small: the shortest turn with "
                f"tool_choice={self.tool_choice!r} takes {least} tokens"
            )
        return GuardState(self, max_new_tokens)

    def read(
        self,
        ids: Sequence[int],
        mentions: frozenset[int] = frozenset(),
        cut: int | None = None,
    ) -> Turn:
        """The turn that these ids say; what follows the first end token is ignored.

        Args:
            mentions: the places of ids that are words of prose (`GuardState.mentions`).
            cut: from which of them on the budget wrote them (`GuardState.cut`). A call that was not
                said in full by then is none of the turn's calls.
        """
        own = None
        if cut is not None:
            begun = self.parser(mentions)
            begun.feed(ids[:cut])
            own = begun.said()
        parser = self.parser(mentions, own)
        parser.feed(ids)
        return finished(parser)

    def parser(self, mentions: frozenset[int] = frozenset(), own: int | None = None) -> TurnParser:
        """A parser of one turn, fed as it is sampled; `mentions` as for `read`, `own` as there."""
        return TurnParser(
            self.format,
            self.toolset,
            opened=OPENED[self.reasoning] if self.reasoning != "auto" else False,
            spelling=self.spelling,
            mentions=mentions,
            own=own,
        )

    def completion(self, ids: Sequence[int]) -> list[int]:
        """The ids of the shortest completion of a turn that begins so, without its end token.

        Raises:
            StateError: no legal turn begins so.
        """
        text = self.vocabulary.bytes_of(ids)
        frontier = self.completer.advance(self.completer.beginning, text)
        pieces = self.completer.complete(frontier, text)
        if pieces is None:
            raise StateError(f"no legal turn begins with {text[:80]!r}")
        return self.spell(pieces)

    def spell(self, pieces: Pieces) -> list[int]:
        """The ids of a completion."""
        ids: list[int] = []
        for piece in pieces:
            if isinstance(piece, Control):
                ids.append(self.control_ids[piece.text])
            else:
                ids += self.vocabulary.ids_of(piece)
        return ids

    @property
    def engine_grammar(self) -> str:
        """The whole turn in llguidance's dialect, for a server that has that engine built in."""
        return source(_mask_grammar(self.grammar, self.format, self.vocabulary))

    @cached_property
    def completer(self) -> Completer:
        """Finds shortest completions, in the layout that this vocabulary spells in fewer tokens."""
        grammar, controls = self.grammar, self.format.controls
        spaced = self.vocabulary.spaced
        return Completer(grammar.rules, grammar.start, controls, self.control_ids, spaced)

    @cached_property
    def control_ids(self) -> dict[str, int]:
        """The ids of the format's control tokens that the tokenizer has as one."""
        return _control_ids(self.format, self.vocabulary)

    @cached_property
    def control_texts(self) -> dict[int, str]:
        """The control tokens by their ids."""
        return {token: text for text, token in self.control_ids.items()}

    @cached_property
    def plain(self) -> PlainTokens:
        """The tokens in which no control token begins."""
        return plain_tokens(self.vocabulary, self.format.controls)

    @cached_property
    def words(self) -> Words:
        """Which control tokens prose may hold as words."""
        return Words(self.format, self.vocabulary, self.control_ids)

    @cached_property
    def opener_ids(self) -> list[int]:
        """The opener of a call: one id, or those that spell it."""
        opener = self.format.opener
        if opener in self.control_ids:
            return [self.control_ids[opener]]
        return self.vocabulary.ids_of(opener.encode())

    @cached_property
    def shortest_turn(self) -> list[int]:
        """The ids of the shortest legal turn, without its end token."""
        return self.completion(())

    @cached_property
    def longest_step(self) -> int:
        """How many tokens one more token can add to the shortest completion, at the most."""
        # A token may open several values at once; the margin covers their brackets.
        return len(self.spell(self.completer.longest_step)) + 8

    @cached_property
    def spelling(self) -> Spelling:
        """What token ids say to a parser."""
        marks = dict.fromkeys(self.vocabulary.specials, STRAY)
        for index, text in enumerate(self.format.controls):
            if text in self.control_ids:
                marks[self.control_ids[text]] = marker(index)
        return Spelling(marks, self.vocabulary.bytes_of, self.vocabulary.end_ids)


def _control_ids(wire_format: WireFormat, vocabulary: Vocabulary) -> dict[str, int]:
    added = vocabulary.added
    return {text: added[text] for text in wire_format.controls if text in added}


def _mask_grammar(grammar: RequestGrammar, wire_format: WireFormat, vocabulary: Vocabulary) -> str:
    ids = _control_ids(wire_format, vocabulary)
    return mask_grammar(grammar.rules, grammar.start, wire_format.controls, ids)


def _parts_of_tags(wire_format: WireFormat, tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """The added tokens that are only a part of a format's tags, as DeepSeek's DSML: text there."""
    controls = wire_format.controls
    return frozenset(
        text
        for text in tokenizer.get_added_vocab()
        if text not in controls and any(text in control for control in controls)
    )


def turn_ends(wire_format: WireFormat, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that end a turn, for the tokenizer, for the format and for the chat template."""
    added = tokenizer.get_added_vocab()
    ends = [tokenizer.eos_token_id, *map(added.get, end_texts(wire_format, tokenizer))]
    return [token for token in dict.fromkeys(ends) if token is not None]


def end_texts(wire_format: WireFormat, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The control tokens that end a turn, for the format and for the chat template."""
    told = template_end(fast_tokenizer(tokenizer), wire_format)
    return [*dict.fromkeys(end for end in (*wire_format.ends, told) if end)]


def _end_ids(
    wire_format: WireFormat, tokenizer: PreTrainedTokenizerBase, given: Sequence[int] | None
) -> tuple[int, ...]:
    if given is not None:
        size = id_count(tokenizer)
        for token in given:
            if not 0 <= token < size:
                raise TokenizerError(f"end token {token} is not in a vocabulary of {size} ids")
        return tuple(dict.fromkeys(given))
    return tuple(turn_ends(wire_format, tokenizer))


@lru_cache(maxsize=256)
def _compile(
    wire_format: WireFormat,
    toolset: Toolset,
    tokenizer: PreTrainedTokenizerBase,
    tool_choice: str,
    parallel: bool,
    reasoning: Reasoning,
    end_ids: tuple[int, ...],
) -> Guard:
    vocabulary = Vocabulary.of(tokenizer, end_ids, _parts_of_tags(wire_format, tokenizer))
    for most in (MOST_VALUES, MOST_VALUES // 20, 0):
        grammar = request_grammar(wire_format, toolset, tool_choice, parallel, reasoning, most)
        try:
            compiled = CompiledGrammar(vocabulary, _mask_grammar(grammar, wire_format, vocabulary))
            break
        except ValueError as error:  # most often the engine's limits, which looser tools keep
            refused = error
    else:
        raise RequestError(
            f"the mask engine refuses the grammar of these tools: {line(refused)}. Simplify the "
            "largest schema, or offer fewer tools"
        ) from refused
    guard = Guard(
        wire_format,
        toolset,
        tool_choice,
        parallel,
        reasoning,
        tokenizer,
        vocabulary,
        grammar.relaxations,
        grammar,
        compiled,
    )
    endless = guard.completer.endless()
    if endless:
        raise RequestError(
            f"the schemas of these tools: nothing was found that satisfies {endless} and is short "
            "enough for a call. Lower its minLength, minItems or pattern"
        )
    _warm(guard)
    return guard


def _warm(guard: Guard) -> None:
    """Walks into a call, so that no step of a batch waits for the engine to build its lexer.

    It builds what a mask reaches for the first time, and all copies of a matcher share it. Text and
    an opener that is spelled cost milliseconds, what follows the opener a tenth of one.
    """
    matcher = guard.compiled.start()
    for token in guard.opener_ids:
        matcher.mask()
        matcher.accept([token])
