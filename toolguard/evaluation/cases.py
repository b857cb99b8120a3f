"""Evaluation cases: a request, and what a healthy model does with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CaseError, ToolsetError
from ..tools.toolset import Toolset


@dataclass(frozen=True)
class Case:
    """One line of a case file.

    Attributes:
        id: its name, unique in the file.
        kind: what sort of request it is, for grouping.
        toolset: the tools offered.
        messages: the conversation, OpenAI style.
        calls: the expected calls in order (`name`, `arguments`); empty where none is needed.
        reply: the expected reply where no call is needed; None if any healthy one will do.
    """

    id: str
    kind: str
    toolset: Toolset
    messages: tuple[Mapping[str, Any], ...]
    calls: tuple[Mapping[str, Any], ...]
    reply: str | None


def read_cases(path: Path) -> list[Case]:
    """The cases of a JSONL file: `tools`, `messages`, `calls`, and `id`, `kind`, `reply` if given.

    Raises:
        CaseError: a line is broken; the message names file, line and remedy.
    """
    return list(_read(path))


def _read(path: Path) -> Iterator[Case]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise CaseError(f"cannot read the case file {path}: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path.name}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise CaseError(f"{place}: no JSON ({error}); write one JSON object a line") from error
        if not isinstance(row, dict) or not row.keys() >= {"tools", "messages", "calls"}:
            raise CaseError(f"{place}: a case is an object with 'tools', 'messages' and 'calls'")
        if not isinstance(row["messages"], list) or not row["messages"]:
            raise CaseError(f"{place}: 'messages' is no list of messages")
        try:
            toolset = Toolset.of(row["tools"])
        except ToolsetError as error:
            raise CaseError(f"{place}: {error}") from error
        calls = row["calls"]
        if not isinstance(calls, list) or not all(
            isinstance(call, dict) and call.keys() >= {"name", "arguments"} for call in calls
        ):
            raise CaseError(f"{place}: 'calls' is no list of objects with 'name' and 'arguments'")
        yield Case(
            str(row.get("id", number)),
            str(row.get("kind", "")),
            toolset,
            tuple(row["messages"]),
            tuple(calls),
            row.get("reply"),
        )
