"""Files that are there as a whole or as they were before, whenever one is cut off."""

from __future__ import annotations

from pathlib import Path


def save(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(text, "utf-8")
    beside.replace(path)
