"""Where a row keeps its turns and its tools, and what a repair makes of the row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import RowError
from ..parsing.opening import Opened
from ..parsing.turn import Turn
from ..repair.classify import classify
from ..repair.edits import Repair
from ..repair.repair import repair
from ..tools.toolset import Toolset
from .opened import read_text

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Layout:
    """How rows are laid out.

    A chat row has `messages`, OpenAI style: its turns are assistant messages that are text and were
    not parsed into `tool_calls` yet. Any other row has one turn, in a column of text; its
    `messages`, if it has any, are the prompt, and end before the assistant speaks.

    Attributes:
        column: the column of text. Unless given, a row with `messages` is a chat row, but for one
            whose messages are a prompt beside a `text`; any other has its turn in `text`.
        every: every turn of a chat row, not only its last message of the assistant.
        tools: the tools of all rows, or of each toolset by its name, as JSON text. Unless given,
            each row has its own in `tools`: a list, or a list as JSON text.
        toolset_column: where a row names its toolset.
        format: the wire format's name; `auto` finds it turn by turn.
        opened: what the prompts had opened already: the reasoning (true), a reply (`reply`), or
            nothing (false). With `auto` a row's prompt says so, or else each turn shows it.
        prompt_column: where a row has its prompt, or the end of one (a generation prompt), as text.
    """

    column: str | None = None
    every: bool = False
    tools: str | Mapping[str, str] | None = None
    toolset_column: str = "toolset"
    format: str = "auto"
    opened: Opened = "auto"
    prompt_column: str = "prompt"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a repair reads, where a row has them."""
        turns = ("messages", "text") if self.column is None else (self.column,)
        return (*turns, "tools", self.toolset_column, self.prompt_column)

    def turns(self, row: Row) -> dict[int | None, str]:
        """The turns of a row by the index of their message; None where it has no messages.

        Raises:
            RowError: it has no turn that is text.
        """
        if self._is_chat(row):
            return self._messages_turns(_messages(row))
        column = self.column or "text"
        text = row.get(column)
        if isinstance(text, str):
            return {None: text}
        if column not in row:
            raise RowError(f"no column {column!r}, only {_listed(row)}: name the one with the turn")
        raise RowError(f"{column!r} is {_kind(text)}, not text")

    def toolset(self, row: Row) -> Toolset:
        """The tools that a row's turns were offered.

        Raises:
            RowError: it has none, or its toolset is not among those given.
            ToolsetError: one of them is malformed.
        """
        if isinstance(self.tools, str):
            return _toolset(self.tools)
        if self.tools is not None:
            name = row.get(self.toolset_column)
            if not isinstance(name, str) or name not in self.tools:
                raise RowError(
                    f"{self.toolset_column!r} is {name!r}, which is not one of the "
                    f"{len(self.tools)} toolsets given"
                )
            return _toolset(self.tools[name])
        tools = row.get("tools")
        if tools is None:
            raise RowError("no 'tools': put them into the row, or give a file of tools")
        return _toolset(tools if isinstance(tools, str) else json.dumps(tools))

    def classified(self, row: Row) -> list[Turn]:
        """What each of a row's turns says.

        Raises:
            RowError, ToolsetError: as `turns` and `toolset` do.
        """
        turns, toolset = self.turns(row), self.toolset(row)
        opened, prompt = self.opened, self._prompt(row)
        return [
            classify(text, toolset, self.format, opened=opened, prompt=prompt)
            for text in turns.values()
        ]

    def repairs(self, row: Row) -> dict[int | None, Repair]:
        """The repair of each of a row's turns, by the index of its message.

        Raises:
            RowError, ToolsetError: as `turns` and `toolset` do.
        """
        turns, toolset = self.turns(row), self.toolset(row)
        opened, prompt = self.opened, self._prompt(row)
        return {
            place: repair(text, toolset, self.format, opened=opened, prompt=prompt)
            for place, text in turns.items()
        }

    def repaired(self, row: Row) -> Row:
        """The row with its turns repaired, and what was done in the field `toolguard`.

        The field is a list with one record a turn where `every` turn is repaired. In a chat row, a
        turn that makes calls and has no fault becomes a message with `tool_calls`.

        Raises:
            RowError, ToolsetError: as `turns` and `toolset` do.
        """
        repairs = self.repairs(row)
        records = [_record(made) for made in repairs.values()]
        new: Row = {}
        if self._is_chat(row):
            messages = list(_messages(row))
            for place, made in repairs.items():
                assert place is not None
                messages[place] = _message(messages[place], made, place)
            text = isinstance(row["messages"], str)
            new["messages"] = json_text(messages) if text else messages
        else:
            new[self.column or "text"] = repairs[None].text
        return {**row, **new, "toolguard": records if self.every else records[0]}

    def unrepaired(self, row: Row, error: str) -> Row:
        """The row as it was, and why in the field `toolguard`."""
        return {**row, "toolguard": [{"error": error}] if self.every else {"error": error}}

    def _prompt(self, row: Row) -> str | None:
        """The prompt of a row; a list of messages does not say how the turn began."""
        prompt = row.get(self.prompt_column)
        return prompt if isinstance(prompt, str) else None

    def _is_chat(self, row: Row) -> bool:
        if self.column is not None or "messages" not in row:
            return False
        return not (isinstance(row.get("text"), str) and _is_prompt(_messages(row)))

    def _messages_turns(self, messages: list[Any]) -> dict[int | None, str]:
        said = [
            place
            for place, message in enumerate(messages)
            if isinstance(message, Mapping) and message.get("role") == "assistant"
        ]
        turns: dict[int | None, str] = {
            place: messages[place]["content"]
            for place in (said if self.every else said[-1:])
            if isinstance(messages[place].get("content"), str)
            and not messages[place].get("tool_calls")
        }
        if not said:
            raise RowError("no message of the assistant")
        if not turns:
            parsed = any(messages[place].get("tool_calls") for place in said)
            raise RowError(
                "the assistant's message has 'tool_calls' already: there is no text to repair"
                if parsed
                else "the 'content' of the assistant's message is not text"
            )
        return turns


def read_tools(path: Path) -> str | dict[str, str]:
    """The `tools` of a layout from a JSON file: a list of tools, or an object of such lists.

    Raises:
        RowError: it is neither.
        ToolsetError: a tool of a list for all rows is malformed.
    """
    try:
        tools = json.loads(read_text(path))
    except ValueError as error:
        raise RowError(f"{path} is no JSON: {error}") from error
    if isinstance(tools, list):
        Toolset.of(tools)
        return json.dumps(tools)
    if isinstance(tools, dict) and all(isinstance(offered, list) for offered in tools.values()):
        return {name: json.dumps(offered) for name, offered in tools.items()}
    raise RowError(f"{path} is neither a list of tools nor an object of such lists by toolset")


def json_text(value: Any) -> str:
    """JSON that UTF-8 can carry: characters as they are, but for lone surrogates."""
    text = json.dumps(value, ensure_ascii=False)
    return text if _encodable(text) else json.dumps(value)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@lru_cache(maxsize=256)
def _toolset(text: str) -> Toolset:
    try:
        tools = json.loads(text)
    except ValueError as error:
        raise RowError(f"'tools' is text, but no JSON: {error}") from error
    if not isinstance(tools, list):
        raise RowError(f"'tools' is {_kind(tools)}, not a list of tools")
    return Toolset.of(tools)


def _messages(row: Row) -> list[Any]:
    messages = row["messages"]
    if isinstance(messages, str):
        try:
            messages = json.loads(messages)
        except ValueError as error:
            raise RowError(f"'messages' is text, but no JSON: {error}") from error
    if not isinstance(messages, list):
        raise RowError(f"'messages' is {_kind(messages)}, not a list of messages")
    return messages


def _is_prompt(messages: list[Any]) -> bool:
    """Whether it is the assistant's turn to speak behind them."""
    last = messages[-1] if messages else None
    return not (isinstance(last, Mapping) and last.get("role") == "assistant")


def _message(message: Mapping[str, Any], made: Repair, place: int) -> dict[str, Any]:
    """The message with its turn repaired; its calls as the API of OpenAI gives them."""
    turn = made.after
    if turn.faults or not turn.calls:
        return {**message, "content": made.text}
    calls = [
        {
            "id": f"call_{place}_{index}",
            "type": "function",
            "function": {"name": call.name, "arguments": json_text(call.arguments)},
        }
        for index, call in enumerate(turn.calls)
    ]
    reasoning = {"reasoning_content": turn.reasoning} if turn.reasoning else {}
    return {**message, "content": turn.text or None, **reasoning, "tool_calls": calls}


def _record(made: Repair) -> dict[str, Any]:
    said = made.to_json()
    return {
        "state_before": made.before.state,
        "state_after": made.after.state,
        "confidence": made.confidence,
        "faults": said["before"]["faults"],
        "edits": said["edits"],
        "calls": [{"name": c.name, "arguments": c.arguments} for c in made.after.calls],
        "candidates": said["candidates"],
        "reason": made.reason,
    }


def _listed(names: Sequence[str] | Row) -> str:
    return ", ".join(map(repr, names)) or "none"


def _kind(value: Any) -> str:
    return "missing" if value is None else f"of type {type(value).__name__}"
