"""Real requests and real transcripts, where they lie beside the project: they are no part of it."""

from __future__ import annotations

import json
import lzma
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from toolguard import Toolset, Turn

DATA = Path(os.environ.get("TOOLGUARD_DATA", Path(__file__).parents[2] / "shared" / "data"))
"""Set TOOLGUARD_DATA, or put the data into ../shared/data."""


class Message(NamedTuple):
    """An assistant message that a checkpoint wrote: `text`, without an end token."""

    id: str
    checkpoint: str
    text: str
    toolset: Toolset


def messages(transcripts: Path) -> list[Message]:
    """The messages of a file of transcripts; its toolsets are in `NAME_tools.json.xz` beside it."""
    name = transcripts.name.partition(".")[0]
    tools = lzma.decompress(transcripts.with_name(f"{name}_tools.json.xz").read_bytes())
    toolsets = {key: Toolset.of(tools) for key, tools in json.loads(tools).items()}
    rows = map(json.loads, lzma.decompress(transcripts.read_bytes()).decode().splitlines())
    return [Message(r["id"], r["checkpoint"], r["text"], toolsets[r["toolset"]]) for r in rows]


def requests(path: Path) -> list[dict[str, Any]]:
    """Cases with `tools` and `expected_calls`, a JSON object a line."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def expected_calls(row: Mapping[str, Any], toolset: Toolset) -> list[dict[str, Any]]:
    """The expected calls of a case that its own tools allow."""
    calls = [{"name": c["name"], "arguments": c["arguments"]} for c in row["expected_calls"]]
    return [call for call in calls if not toolset.errors(call["name"], call["arguments"])]


def made_calls(turn: Turn) -> list[dict[str, Any]]:
    """The calls of a turn, as cases write them."""
    return [{"name": call.name, "arguments": call.arguments} for call in turn.calls]
