"""What the API server tells the engine about a guarded request.

It travels in the sampling parameters' `extra_args`, as JSON text: vLLM passes only plain values
there.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ...decoding.guard import Guard, turn_ends
from ...errors import FormatError, RequestError, ToolguardError
from ...formats.wire_format import WireFormat
from ...grammar.engine import fast_tokenizer
from ...grammar.request import CHOICES, reasoning_after
from ...tools.toolset import Toolset

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KEY = "toolguard"
"""Under this name it stands in `extra_args` (`vllm_xargs` of an HTTP request)."""
NAME = "toolguard_request"
"""Under this one what the log may call the request."""
KEPT, BANNED = "toolguard_kept", "toolguard_banned"
"""And under these where a turn is taken up that was taken back (`Resumption`)."""
LARGEST, NODES, DEPTH = 1_000_000, 100_000, 60
"""How many characters, values and levels the tools of a request may have, so that the time to
compile them is bounded; `toolguard.grammar.arguments.MOST_WRITTEN` bounds it where they are odd."""
POLICIES = ("observe", "enforce")
_FIELDS = {"format": str, "tools": list, "tool_choice": str, "parallel": bool, "policy": str}


@dataclass(frozen=True)
class GuardRequest:
    """A request as the engine guards it.

    Attributes:
        format: the wire format.
        tools: the tools offered.
        tool_choice: `auto`, `required`, `none`, or the name of the one tool to call.
        parallel: whether one turn may hold several calls.
        policy: `enforce`, or `observe`, which changes no logit.
    """

    format: WireFormat
    tools: Toolset
    tool_choice: str = "auto"
    parallel: bool = True
    policy: str = "enforce"

    @staticmethod
    def of(extra: Mapping[str, Any] | None) -> GuardRequest | None:
        """What `extra_args` say; None: the request is not to be guarded.

        Raises:
            RequestError: they are malformed; the message names the field.
        """
        text = (extra or {}).get(KEY)
        if text is None:
            return None
        if not isinstance(text, str):
            raise RequestError(f"{KEY}: JSON text is wanted, not {type(text).__name__}")
        return _read(text)

    @staticmethod
    def checked(
        wire_format: WireFormat,
        tools: Sequence[Mapping[str, Any]],
        tool_choice: str = "auto",
        parallel: bool = True,
        policy: str = "enforce",
    ) -> GuardRequest:
        """A request whose parts go together.

        Raises:
            RequestError: they do not; the message names the field.
        """
        _measure(tools)
        try:
            toolset = Toolset.of(tools)
        except (ToolguardError, RecursionError) as error:
            raise RequestError(f"tools: {error}") from error
        if policy not in POLICIES:
            raise RequestError(f"policy: {policy!r} is none of {', '.join(POLICIES)}")
        if tool_choice not in (*CHOICES, *toolset.names):
            raise RequestError(
                f"tool_choice: {tool_choice!r} is neither auto, required or none nor one of the "
                f"tools {', '.join(toolset.names)}"
            )
        return GuardRequest(wire_format, toolset, tool_choice, parallel, policy)

    def to_extra(self) -> dict[str, str]:
        """The same as `extra_args`."""
        fields = {
            "format": self.format.name,
            "tools": self.tools.definitions,
            "tool_choice": self.tool_choice,
            "parallel": self.parallel,
            "policy": self.policy,
        }
        return {KEY: json.dumps(fields, ensure_ascii=False)}

    def guard(
        self, tokenizer: PreTrainedTokenizerBase, stops: Collection[int], prompt: Iterable[int] = ()
    ) -> Guard:
        """The compiled guard.

        Args:
            stops: the ids at which the engine ends a turn.
            prompt: the last ids of the prompt, which may have opened or closed the reasoning.

        Raises:
            RequestError, TokenizerError: the tools, or the tokenizer, cannot be compiled.
        """
        tokenizer = fast_tokenizer(tokenizer)
        # An end at which the engine does not stop would be followed by an unguarded turn.
        kept = [token for token in turn_ends(self.format, tokenizer) if token in stops]
        known = {*tokenizer.get_added_vocab().values()}
        kept = kept or sorted(token for token in stops if token in known)
        return Guard.compile(
            self.format,
            self.tools,
            tokenizer,
            tool_choice=self.tool_choice,
            parallel=self.parallel,
            reasoning=reasoning_after(str(tokenizer.decode([*prompt])), self.format),
            end_tokens=kept or None,
        )


@dataclass(frozen=True)
class Resumption:
    """Where a turn is taken up that was taken back: what is kept of it is prompt to the engine.

    Attributes:
        kept: the turn's tokens that stand at the end of the prompt.
        banned: those that must not follow.
    """

    kept: tuple[int, ...] = ()
    banned: tuple[int, ...] = ()

    @staticmethod
    def of(extra: Mapping[str, Any] | None) -> Resumption:
        """What `extra_args` say; without a word of it, the turn begins.

        Raises:
            RequestError: they are malformed; the message names the field.
        """
        return Resumption(*(_ids(extra or {}, name) for name in (KEPT, BANNED)))

    def to_extra(self) -> dict[str, list[int]]:
        """The same as `extra_args`."""
        return {KEPT: [*self.kept], BANNED: [*self.banned]}


def _ids(extra: Mapping[str, Any], name: str) -> tuple[int, ...]:
    ids = extra.get(name, [])
    if not isinstance(ids, list) or any(type(token) is not int or token < 0 for token in ids):
        raise RequestError(f"{name}: a list of token ids is wanted")
    return tuple(ids)


@lru_cache(maxsize=256)  # the same tools come with request after request
def _read(text: str) -> GuardRequest:
    if len(text) > 2 * LARGEST:
        raise RequestError(f"{KEY}: {len(text):,} characters are too many")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{KEY}: no JSON ({error})") from error
    if not isinstance(fields, dict):
        raise RequestError(f"{KEY}: an object is wanted, not {type(fields).__name__}")
    for name, value in fields.items():
        if name not in _FIELDS:
            raise RequestError(f"{KEY}.{name}: unknown; known are {', '.join(_FIELDS)}")
        if not isinstance(value, _FIELDS[name]):
            raise RequestError(
                f"{KEY}.{name}: {_FIELDS[name].__name__} is wanted, not {type(value).__name__}"
            )
    for name in ("format", "tools"):
        if name not in fields:
            raise RequestError(f"{KEY}.{name} is missing")
    try:
        wire_format = WireFormat.load(fields.pop("format"))
    except FormatError as error:
        raise RequestError(f"{KEY}.format: {error}") from error
    return GuardRequest.checked(wire_format, fields.pop("tools"), **fields)


def _measure(tools: Sequence[Any]) -> None:
    """Refuses tools that are too large to be compiled while others wait."""
    nodes, size, level = 0, 0, list[Any](tools)
    for _ in range(DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, Mapping):
                size += sum(map(len, value))
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str):
                size += len(value)
        nodes += len(level)
        if nodes > NODES or size > LARGEST:
            raise RequestError(
                f"tools: more than {NODES:,} values, or {LARGEST:,} characters: offer fewer tools, "
                "or smaller schemas"
            )
        level = below
    if level:
        raise RequestError(f"tools: nested more than {DEPTH} levels deep: flatten the schemas")
