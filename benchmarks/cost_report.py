"""The Markdown section and the figure of `benchmarks.cost`, from its rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from .tables import table

Rows = list[dict[str, Any]]
PLACES = {"text": "o", "string": "s", "opened": "^", "usual word": "D", "rare word": "v"}
"""Where a step is taken, and its mark in the figure."""


def cost_section(rows: Rows, folder: Path) -> str:
    """The tables of all parts that are there; the figure goes into the folder."""
    parts: dict[str, Rows] = {}
    for row in rows:
        rest = {name: value for name, value in row.items() if name != "part"}
        parts.setdefault(row["part"], []).append(rest)
    texts = []
    for part, own in parts.items():
        texts.append(f"### {part}")
        if part == "scale":
            scale_picture(own, folder / "cost_scale.png")
            texts.append("![Microseconds a token](results/cost_scale.png)")
            texts.append(flatness(own))
        texts.append(table(own))
    return "\n\n".join(texts)


def flatness(rows: Rows) -> str:
    """How the cost of a step changes from the smallest of what grows to the largest."""
    lines = []
    for kind in dict.fromkeys(row["grows"] for row in rows):
        for ids in dict.fromkeys(row["ids"] for row in rows):
            own = [row for row in rows if (row["grows"], row["ids"]) == (kind, ids)]
            first, last = own[0], own[-1]
            changes = ", ".join(
                f"{place} x{last[place] / first[place]:.2f}" for place in PLACES if place in first
            )
            lines.append(
                f"- {kind}, from {first['size']:,} to {last['size']:,}, {ids:,} ids: {changes}"
            )
    return "\n".join(lines)


def scale_picture(rows: Rows, path: Path) -> None:
    """A step's cost over what grows, a panel for each; a flat line is what is claimed."""
    kinds = list(dict.fromkeys(row["grows"] for row in rows))
    figure = Figure(figsize=(3.6 * len(kinds) + 1.8, 3.2), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for kind, panel in zip(kinds, panels, strict=True):
        for shade, ids in enumerate(dict.fromkeys(row["ids"] for row in rows)):
            own = [row for row in rows if (row["grows"], row["ids"]) == (kind, ids)]
            for place in (place for place in PLACES if all(place in row for row in own)):
                panel.plot(
                    [row["size"] for row in own],
                    [row[place] for row in own],
                    f"{PLACES[place]}-",
                    color=f"C{shade}",
                    label=f"{place}, {ids:,} ids",
                )
        panel.set_xscale("log")
        panel.set_xlabel(kind)
    panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel("microseconds a token")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    figure.savefig(path, dpi=90)
