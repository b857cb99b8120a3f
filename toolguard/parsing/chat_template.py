"""What a tokenizer's chat template writes: where a turn begins in it, and what ends one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache
from itertools import product, takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import FormatError

if TYPE_CHECKING:
    from jinja2 import Template
    from transformers import PreTrainedTokenizerBase

    from ..formats.wire_format import WireFormat

NAME = "get_sentinel"
CALL: Mapping[str, Any] = {"name": NAME, "arguments": {"place": "sentinel town", "count": 417}}
"""The call that templates are asked to write."""
_OTHER: Mapping[str, Any] = {"name": NAME, "arguments": {"place": "other town", "count": 418}}
_QUESTION = "Sentinel?"
REPLY = "Sentinel town."
"""What they are asked to write as a reply."""
_TOOL = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "Sentinel.",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "A town."},
                "count": {"type": "integer", "description": "A number."},
            },
            "required": ["place", "count"],
        },
    },
}
# Mistral's templates insist on nine letters and digits, Kimi's write the call's name by its id.
_IDS = (("sentinel1", "sentinel2"), (f"functions.{NAME}:0", f"functions.{NAME}:1"))
_TAG = r"<[^<>\s]+>|\[/?[A-Z_]+\]"
"""What looks like a control token, whether or not the tokenizer has it."""


class Shape(NamedTuple):
    """A conversation, and how it is handed to a template: templates differ in what they take.

    Attributes:
        calls: those of its last turn.
        parts: contents are lists of parts.
        ids: the calls' ids.
        content: that of a turn that only calls.
        as_text: arguments are JSON text.
    """

    calls: Sequence[Mapping[str, Any]] = (CALL,)
    parts: bool = False
    ids: Sequence[str] = _IDS[0]
    content: str | None = ""
    as_text: bool = False

    def asked(self) -> list[dict[str, Any]]:
        """The question that the model is to answer."""
        return [{"role": "user", "content": self._said(_QUESTION)}]

    def replied(self) -> list[dict[str, Any]]:
        """The question, and a turn that replies."""
        return [*self.asked(), {"role": "assistant", "content": self._said(REPLY)}]

    def called(self) -> list[dict[str, Any]]:
        """The question, and a turn that calls."""
        calls = [
            {"id": name, "type": "function", "function": {**call, "arguments": self._given(call)}}
            for name, call in zip(self.ids, self.calls, strict=False)
        ]
        turn = {"role": "assistant", "content": self._said(self.content), "tool_calls": calls}
        return [*self.asked(), turn]

    def _said(self, text: str | None) -> Any:
        return [{"type": "text", "text": text}] if self.parts and text is not None else text

    def _given(self, call: Mapping[str, Any]) -> Any:
        return json.dumps(call["arguments"]) if self.as_text else call["arguments"]


# DeepSeek-R1's template closes the section of calls only behind a second one.
_SHAPES = tuple(
    Shape(*each)
    for each in product(((CALL,), (CALL, _OTHER)), (False, True), _IDS, ("", None), (False, True))
)
"""The usual one first."""


@dataclass(frozen=True)
class Rendering:
    """What a template writes behind the same question.

    Attributes:
        prompt: what the model goes on from.
        called: a turn that calls.
        replied: a turn that replies.
        calls: what is called.
        tag: what a control token looks like.
    """

    prompt: str
    called: str
    replied: str
    calls: Sequence[Mapping[str, Any]]
    tag: re.Pattern[str] = field(repr=False)

    @cached_property
    def starts(self) -> Sequence[int]:
        """Where the turn that calls may begin, the likeliest place first: behind all that it has in
        common with the prompt, or at a control token before."""
        return self._starts(self.called)

    @cached_property
    def reply_starts(self) -> Sequence[int]:
        """The same of the turn that replies."""
        return self._starts(self.replied)

    def _starts(self, answered: str) -> Sequence[int]:
        shared = _shared(self.prompt, answered)
        for text in (self.prompt, answered):
            for tag in self.tag.finditer(text):
                if tag.start() < shared < tag.end():
                    shared = tag.start()
        edges = {at for tag in self.tag.finditer(answered) for at in tag.span()}
        return sorted({shared, *(at for at in edges if 0 < at < shared)}, reverse=True)

    @property
    def turn(self) -> str:
        """The turn that calls, from where it most likely begins, and all that follows."""
        return self.called[self.starts[0] :]

    @property
    def shows_calls(self) -> bool:
        """Whether the template has not left the calls out."""
        return NAME in self.turn

    def end(self, wire_format: WireFormat) -> str | None:
        """The control token that ends either turn and means nothing else to the format."""
        shared = _shared(self.called[::-1], self.replied[::-1])
        inner = {*wire_format.controls} - {*wire_format.ends}
        tags = self.tag.finditer(self.called)
        behind = (tag[0] for tag in tags if tag.start() >= len(self.called) - shared)
        return next((tag for tag in behind if tag not in inner), None)


def _shared(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return sum(1 for _ in alike)


def rendering(tokenizer: PreTrainedTokenizerBase, shape: Shape) -> Rendering:
    """What the chat template makes of a conversation.

    Raises:
        FormatError: it cannot render it.
    """
    try:
        prompt = _behind(_written(tokenizer, shape.asked(), add_generation_prompt=True))
        replied = _behind(_written(tokenizer, shape.replied()))
        called = _behind(_written(tokenizer, shape.called()))
    except Exception as error:  # a template may raise anything
        raise FormatError(f"the chat template cannot render a tool call ({error})") from error
    added = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
    tag = re.compile("|".join([*map(re.escape, added), _TAG]))
    return Rendering(prompt, called, replied, shape.calls, tag)


def _written(
    tokenizer: PreTrainedTokenizerBase, conversation: list[dict[str, Any]], **options: Any
) -> str:
    try:
        text = tokenizer.apply_chat_template(conversation, tools=[_TOOL], tokenize=False, **options)
    except ImportError:
        raise
    except Exception as refusal:  # a template may raise anything
        try:
            text = _served(tokenizer, conversation, **options)
        except Exception:
            raise refusal from None
    assert isinstance(text, str)
    return text


def _served(
    tokenizer: PreTrainedTokenizerBase, conversation: list[dict[str, Any]], **options: Any
) -> str:
    """The same as models' own servers render it, with what transformers does not allow or give:
    lists that grow (Kimi-K2), generators as JSON, `functions` (Firefunction)."""
    return _compiled(tokenizer.get_chat_template(tools=[_TOOL])).render(
        messages=deepcopy(conversation),
        tools=[deepcopy(_TOOL)],
        functions=json.dumps([_TOOL]),
        datetime=str(datetime.now()),
        **tokenizer.special_tokens_map,
        **options,
    )


@lru_cache(maxsize=8)
def _compiled(template: str) -> Template:
    """A template in a sandbox, as transformers' own, but for what it may do to lists."""
    from jinja2.sandbox import SandboxedEnvironment

    def raise_exception(message: str) -> None:
        raise ValueError(message)

    def tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, default=list, **options)

    sandbox = SandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    sandbox.filters["tojson"] = tojson
    sandbox.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": lambda format: datetime.now().strftime(format),
    }
    return sandbox.from_string(template)


def _behind(text: str) -> str:
    """What stands behind the question; some templates move the tools about before it."""
    return text[text.rindex(_QUESTION) + len(_QUESTION) :] if _QUESTION in text else text


def renderings(
    tokenizer: PreTrainedTokenizerBase,
) -> Iterator[tuple[Shape, Rendering | FormatError]]:
    """The different things that the template writes, or why it does not."""
    seen = []
    for shape in _SHAPES:
        made: Rendering | FormatError
        try:
            made = rendering(tokenizer, shape)
        except FormatError as error:
            made = error
        if made not in seen:
            seen.append(made)
            yield shape, made


def template_end(tokenizer: PreTrainedTokenizerBase, wire_format: WireFormat) -> str | None:
    """The control token that the chat template ends turns with, where the format has no other use
    for it; None where it shows none."""
    if tokenizer.chat_template is None:
        return None
    made = _usual(tokenizer, str(tokenizer.chat_template))
    return made.end(wire_format) if made else None


@lru_cache(maxsize=64)
def _usual(tokenizer: PreTrainedTokenizerBase, template: str) -> Rendering | None:
    """The first rendering that shows a call; the template's text is there for the cache."""
    made = (made for _, made in renderings(tokenizer))
    return next((it for it in made if isinstance(it, Rendering) and it.shows_calls), None)
