"""A journal of a long run: what was found out is kept at once, and never asked for again."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import RequestError


class Journal:
    """Rows of a run by part and case, in a file of JSON lines.

    The first line holds the settings of the run. A last line that was cut off, by kill -9 or a full
    disk, is dropped: what it said is asked for again.

    Args:
        path: the file; it is made where there is none. None: nothing is kept on disk.
        settings: what the run depends on, as JSON values.

    Raises:
        RequestError: the file is the journal of a run with other settings, or no journal.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = defaultdict(dict)
        head = json.dumps({"toolguard_run": settings}, sort_keys=True)
        if path is None:
            return
        if not path.exists():
            path.write_text(head + "\n", "utf-8")
            return
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        # not by splitlines, for which other characters end a line, too
        first, *lines = whole.decode("utf-8").split("\n")[:-1] or [head]
        if first != head:
            raise RequestError(
                f"{path} is of another run ({_difference(first, settings)}): name another folder, "
                "or delete that file"
            )
        for line in lines:
            row = json.loads(line)
            self.rows[row["part"]][row["case"]] = row["found"]
        if not whole:
            path.write_text(head + "\n", "utf-8")
        elif whole != content:
            with path.open("r+b") as file:
                file.truncate(len(whole))

    def add(self, part: str, rows: Iterable[tuple[str, Any]]) -> None:
        """Keeps what was found out about some cases."""
        rows = list(rows)
        self.rows[part].update(rows)
        if self.path is not None:
            lines = (
                json.dumps({"part": part, "case": case, "found": found}, ensure_ascii=False) + "\n"
                for case, found in rows
            )
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(lines))


def _difference(line: str, settings: Mapping[str, Any]) -> str:
    try:
        other = json.loads(line)["toolguard_run"]
        names = [name for name in settings if other.get(name) != settings[name]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return "or no journal at all"
    return ", ".join(f"{name} {other.get(name)!r}, not {settings[name]!r}" for name in names)
