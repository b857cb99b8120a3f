"""One turn as its client is told it, whole or as it is streamed: reasoning, content and calls."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from vllm.entrypoints.generate.base.protocol import (
    DeltaFunctionCall,
    DeltaMessage,
    DeltaToolCall,
    FunctionCall,
)
from vllm.renderers.chat_utils import make_tool_call_id

from ...formats.reader import fixed_text
from ...formats.wire_format import WireFormat
from ...parsing.events import (
    ArgumentsDelta,
    CallEnd,
    CallName,
    CallStart,
    Event,
    ReasoningDelta,
    TextDelta,
    TurnEnd,
)
from ...parsing.opening import Known, Opened, longest, shown
from ...parsing.parser import TurnParser
from ...parsing.read import read_turn
from ...parsing.turn import Turn
from ...repair.repair import repair
from ...tools.toolset import Toolset
from .metrics import count_turn


@dataclass
class Told:
    """What a client is told, or what more.

    Attributes:
        calls: by their number.
    """

    reasoning: str = ""
    content: str = ""
    calls: dict[int, FunctionCall] = field(default_factory=dict)

    def add(self, more: Told) -> None:
        """Puts more to it."""
        self.reasoning += more.reasoning
        self.content += more.content
        for number, call in more.calls.items():
            if number in self.calls:
                self.calls[number].arguments += call.arguments
            else:
                self.calls[number] = call

    def message(self) -> DeltaMessage | None:
        """The same as vLLM streams it: one entry for each call. None if it is nothing."""
        if not (self.reasoning or self.content or self.calls):
            return None
        calls = [_delta(number, call) for number, call in self.calls.items()]
        message = DeltaMessage(content=self.content or None, tool_calls=calls)
        if self.reasoning:
            message.reasoning = self.reasoning
        return message


class Reading:
    """Reads one turn.

    Text is told as it comes, until a call begins; what comes then waits until it is known to be
    one. A call that the engine guards is told as it comes, too; any other once it is sound.

    Args:
        toolset: the tools that may be called.
        opened: what the prompt had opened.
        thinks: reasoning is told as such; otherwise it is content, tags and all.
        guarded: no call is unsound, and none is left open but by the budget.
    """

    def __init__(
        self,
        wire_format: WireFormat,
        toolset: Toolset,
        opened: Opened,
        *,
        thinks: bool,
        guarded: bool = False,
    ) -> None:
        self._format, self._toolset, self._opened = wire_format, toolset, opened
        self._thinks, self._guarded = thinks, guarded
        self._opening, self._closing = map(fixed_text, wire_format.reasoning)
        if opened is True:
            self._opening = ""  # the prompt has it
        self._text = ""
        self._sought = 0  # nothing before shows what the prompt had opened
        self._told = Told()  # the calls with their names alone
        self._waiting: dict[int, str] = {}  # arguments whose name is to come, by the turn's numbers
        self._numbers: dict[int, int] = {}  # of the calls that were told of, by the turn's
        self._begin(False if opened == "auto" else opened)

    def _begin(self, opened: Known) -> None:
        self._turn = TurnParser(self._format, self._toolset, opened=opened)
        self._thinking = self._in_calls = False

    def whole(self, text: str, ended: bool = True) -> Told:
        """A finished turn.

        Args:
            ended: by the model, not by a budget.
        """
        turn = read_turn(text, self._format, self._toolset, opened=self._opened, ended=ended)
        mended = self._mended(turn, ended)
        self._count(turn, mended)
        thought, _ = self._thought(turn)
        calls = {
            number: FunctionCall(
                id=_id(number, mended.raw), name=call.name, arguments=_json(call.arguments)
            )
            for number, call in enumerate(mended.calls)
        }
        return Told(thought if self._thinks else "", self._content(turn, mended, ended), calls)

    def feed(self, text: str) -> Told:
        """What more of the turn is told after more of its text."""
        self._text += text
        if self._opened == "auto":
            known = shown(self._text, self._format, self._sought, final=False)
            overlap = max(map(len, self._format.controls)) + longest(self._format)
            self._sought = max(0, len(self._text) - overlap)
            if known:
                return self._begin_again(known)
            self._opened = "auto" if known is None else known
        return self._more(self._turn.feed(text))

    def _begin_again(self, opened: Known) -> Told:
        """The turn shows what the prompt had opened: text that was told was that."""
        said, self._told.content = self._told.content, ""
        self._opened = opened
        self._begin(opened)
        more = self._more(self._turn.feed(self._text))
        more.content = more.content.removeprefix(said)
        return more

    def finish(self, ended: bool = True) -> Told:
        """What the end of the turn tells; `ended` as for `whole`."""
        known = self._opened == "auto" and shown(self._text, self._format)
        again = self._begin_again(known) if known else Told()
        *events, end = self._turn.finish(ended)
        assert isinstance(end, TurnEnd)
        more, told = self._more(events, again), self._told
        mended = end.turn if told.calls else self._mended(end.turn, ended)
        self._count(end.turn, mended)
        content = self._content(end.turn, mended, ended)
        if content.startswith(told.content):
            more.content += content[len(told.content) :]
        thought, _ = self._thought(end.turn)
        if self._thinks and thought.startswith(told.reasoning):
            more.reasoning += thought[len(told.reasoning) :]
        if not told.calls:
            for number, call in enumerate(mended.calls):
                more.calls[number] = FunctionCall(
                    id=_id(number, mended.raw), name=call.name, arguments=_json(call.arguments)
                )
        return more

    def _mended(self, turn: Turn, ended: bool) -> Turn:
        """The turn, or what of it can be proved if it has no call and is faulty."""
        mended = turn
        if turn.faults and not turn.calls and len(self._toolset):
            mended = repair(
                turn.raw, self._toolset, self._format, opened=self._opened, ended=ended
            ).after
        return mended

    def _count(self, turn: Turn, mended: Turn) -> None:
        """Counts a finished turn of a request that offers tools."""
        if len(self._toolset):
            count_turn(turn, mended)

    def _thought(self, turn: Turn) -> tuple[str, int]:
        """Its reasoning, and where that ends in it; with control tokens in the middle of it, where
        the turn is faulty."""
        raw, start = turn.raw, _behind(self._opening, turn.raw, 0)
        end = raw.find(self._closing, start)
        whole = raw[start:end].strip()
        opened = start or not self._opening
        if turn.faults and opened and end >= 0 and whole.startswith(turn.reasoning):
            return whole, end + len(self._closing)
        return turn.reasoning, _end_of(turn.reasoning, raw, start)

    def _content(self, turn: Turn, mended: Turn, ended: bool) -> str:
        """Prose, and what is neither that nor reasoning where it makes no call, unless it is one
        that the budget cut off."""
        thought, end = self._thought(turn)
        if thought and not self._thinks:
            closed = self._closing if self._closing in turn.raw else ""
            thought = f"{self._opening}{thought}{closed}"
        else:
            thought = ""
        read = not turn.calling and all(it.kind == "unfinished_turn" for it in turn.faults)
        if mended.calls or read or (self._guarded and not ended):
            return thought + mended.text
        opening, closing = map(fixed_text, self._format.answer)
        rest = turn.raw[_end_of(turn.text, turn.raw, _behind(opening, turn.raw, end)) :]
        framing = rest.replace(closing, "")
        return thought + turn.text + ("" if self._format.blank.fullmatch(framing) else rest)

    def _more(self, events: Iterable[Event], more: Told | None = None) -> Told:
        more = more or Told()
        before, thought = len(more.content), len(more.reasoning)
        for event in events:
            match event:
                case ReasoningDelta(text) if self._thinks:
                    more.reasoning += text
                case ReasoningDelta(text):
                    more.content += text if self._thinking else self._opening + text
                    self._thinking = True
                case TextDelta(text) if not self._in_calls:
                    more.content += self._thought_over() + text
                case CallStart():
                    self._in_calls = True
                case CallName(index, name) if self._guarded:
                    self._start(more, index, name)
                case ArgumentsDelta(index, text) if index in self._numbers:
                    self._argue(more, index, text)
                case ArgumentsDelta(index, text):
                    self._waiting[index] = self._waiting.get(index, "") + text
                case CallEnd(index, call) if index not in self._numbers:
                    self._waiting[index] = _json(call.arguments)
                    self._start(more, index, call.name)
        self._told.content += more.content[before:]
        self._told.reasoning += more.reasoning[thought:]
        return more

    def _thought_over(self) -> str:
        """The tag that ends the reasoning, if that was being told as content."""
        over, self._thinking = self._closing if self._thinking else "", False
        return over

    def _start(self, more: Told, index: int, name: str) -> None:
        more.content += self._thought_over()
        number = self._numbers[index] = len(self._numbers)
        call = FunctionCall(id=_id(number, self._text), name=name, arguments="")
        more.calls[number] = self._told.calls[number] = call
        if index in self._waiting:
            self._argue(more, index, self._waiting.pop(index))

    def _argue(self, more: Told, index: int, text: str) -> None:
        number = self._numbers[index]
        call = more.calls.setdefault(number, FunctionCall(id=None, name="", arguments=""))
        call.arguments += text


def _behind(tag: str, raw: str, place: int) -> int:
    """The place behind a tag, if one stands there, white space aside."""
    rest = raw[place:].lstrip()
    return len(raw) - len(rest) + len(tag) if tag and rest.startswith(tag) else place


def _end_of(text: str, raw: str, start: int) -> int:
    """Where the end of a prose stands in a turn that says it, line by line."""
    for line in text.splitlines():
        found = raw.find(line, start)
        start = start if found < 0 else found + len(line)
    return start


def _delta(number: int, call: FunctionCall) -> DeltaToolCall:
    """A call, or more of its arguments, without fields that nothing is said of: clients add up
    what they are told."""
    said = DeltaFunctionCall()
    if call.name:
        said.name = call.name
    if call.arguments:
        said.arguments = call.arguments
    if call.id is None:
        return DeltaToolCall(index=number, function=said)
    return DeltaToolCall(index=number, id=call.id, type="function", function=said)


_CALL_ID = re.compile(r"functions\.[^\s:]+:\d+")  # Kimi's are part of its turns


def _id(number: int, text: str) -> str:
    """The id of a call: what the model wrote, or a new one."""
    written = _CALL_ID.findall(text)
    return written[number] if number < len(written) else make_tool_call_id()


def _json(arguments: dict[str, Any]) -> str:
    return json.dumps(arguments, ensure_ascii=False)
