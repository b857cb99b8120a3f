"""Why a fixture fails: `docs/conformance.md` says where toolguard differs on purpose, or lacks what
it would take. What is not there is a fault."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
FAULT = "fault"
CLASSES = ("policy", "not supported")
PARTS = (
    "read",
    "options",
    "stream",
    "ids",
    "repair",
    "repair_errors",
    "mask",
    "mask_options",
    "vllm",
)
"""Each of them is a column of the table, and a part of the list in the documentation."""


class Entry(NamedTuple):
    """A fixture that may fail, in one part."""

    fixture: str
    part: str


@cache
def listed() -> Mapping[Entry, str]:
    """The class of each entry of the list.

    Raises:
        ValueError: a row of it is malformed, or says twice the same.
    """
    found: dict[Entry, str] = {}
    for line in PAGE.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) != 5 or not cells[0].startswith("`"):
            continue
        fixtures = re.findall(r"`([^`]+)`", cells[0])
        parts = [part.strip() for part in cells[1].split(",")]
        if unknown := {*parts} - {*PARTS} or {cells[2]} - {*CLASSES}:
            raise ValueError(f"{PAGE.name}: {unknown.pop()!r} is no part, or no class: {line}")
        for entry in (Entry(fixture, part) for fixture in fixtures for part in parts):
            if entry in found:
                raise ValueError(f"{PAGE.name}: {entry.fixture} is listed twice for {entry.part}")
            found[entry] = cells[2]
    return found
