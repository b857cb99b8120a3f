"""Reads cases from a file or a folder: toolguard's own format, BFCL's and ACEBench's.

Which of them it is shows in the first line: `case.py`, `bfcl.py` and `acebench.py` say how each is
laid out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from ..errors import CaseError
from . import acebench, bfcl
from .case import Acceptable, Case, Cases, case_of
from .lines import lines

__all__ = ["Acceptable", "Case", "Cases", "read_cases"]

_LAYOUTS = (
    "'tools', 'messages' and 'calls' (toolguard), or 'question' and 'function' (BFCL, ACEBench)"
)


def read_cases(path: str | os.PathLike[str]) -> Cases:
    """The cases of a file or a folder, in order of the files' names.

    A JSONL file of `tools`, `messages` and `calls` (the README says what else), a file of BFCL
    (v3, v4) or of ACEBench with its `possible_answer/` beside it, or a folder of such: which it is
    is recognised by its content. What makes no case (BFCL's and ACEBench's categories that run
    against a simulation, expected calls that violate their own schema) is refused in a file of its
    own, and left out of a folder: `Cases.left_out` says how many and why.

    Raises:
        CaseError: a line is broken, an id is given twice, or there is nothing to read; the message
            names file, line and remedy.
    """
    path = Path(path)
    if not path.is_dir():
        if reason := _unread(path):
            raise CaseError(f"{path} is not read: {reason}; give another file, or the folder")
        cases = _file(path)
    else:
        found = [p for p in sorted(path.iterdir()) if p.suffix in (".json", ".jsonl")]
        if not found:
            folders = ", ".join(sorted(p.name for p in path.iterdir() if p.is_dir())) or "none"
            raise CaseError(
                f"{path} has no .json or .jsonl files: give a file, or a folder of files "
                f"(the folders in it: {folders})"
            )
        cases = Cases()
        for file in found:
            if reason := _unread(file):
                cases.left_out[f"{file.name} is not read: {reason}"] += 1
                continue
            read = _file(file)
            cases += read
            cases.left_out.update(read.left_out)
    _unique(cases, path)
    return cases


def _unread(path: Path) -> str:
    return bfcl.unread(path) or acebench.unread(path)


def _file(path: Path) -> Cases:
    first = next(iter(islice(lines(path), 1)), None)
    if first is None:
        return Cases()
    row = first.row
    if isinstance(row.get("question"), list):
        return bfcl.BFCL.read(path)
    if isinstance(row.get("question"), str):
        return acebench.ACEBENCH.read(path)
    if "ground_truth" in row:
        raise CaseError(
            f"{path} holds the answers: give the file of that name in the folder above it"
        )
    if not row.keys() & {"tools", "messages", "calls", "expected_calls"}:
        raise CaseError(f"{first.place}: no case: a line has {_LAYOUTS}")
    return _own(path)


def _own(path: Path) -> Cases:
    cases = Cases()
    for line in lines(path):
        if line.row.get("schema_valid") is False:
            cases.left_out["the expected call violates its tool's schema"] += 1
        else:
            cases.append(case_of(line.row, line.place, line.number))
    return cases


def _unique(cases: Iterable[Case], path: Path) -> None:
    seen = set[str]()
    for case in cases:
        if case.id in seen:
            raise CaseError(f"{path}: two cases have the id {case.id!r}: rename or drop one")
        seen.add(case.id)
