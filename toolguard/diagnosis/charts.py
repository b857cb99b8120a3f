"""What is drawn of a diagnosis: states by mode, and heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..parsing.turn import STATES
from ..report.words import printable
from .svg import Inks, drawing, inline

_LINE, _GAP, _LETTER = 26, 26, 6.4  # pixels
_LONGEST = 44
"""Letters of a label that are shown."""
_SLIGHT = 0.005
"""Smaller shares are said by their colour alone."""


def states_by_mode(rows: Sequence[Mapping[str, Any]], width: int) -> str:
    """The four states of each row of `answers` as one bar.

    Args:
        rows: what has a `name` and `states`.
        width: of the picture, in pixels.
    """
    names = [str(row["name"]).removesuffix(" unguarded") for row in rows]
    wide = width > 600
    left, line = (104, 38) if wide else (78, 34)
    height = line * len(rows) + 24
    inks, titles = Inks(), {}
    with drawing():
        figure, axes = _canvas(width, height, left, 4, width - left - 16, line * len(rows))
        axes.set(xlim=(0, 1), ylim=(len(rows), 0))
        for y, (name, row) in enumerate(zip(names, rows, strict=True)):
            _write(axes, -8 / (width - left), y + 0.5, name, inks("var(--ink)"), 13, "right")
            start = 0.0
            for state in STATES:
                rate = row["states"][state]
                share = rate["hits"] / rate["of"] if rate["of"] else 0.0
                gid = f"bar {y} {state}"
                titles[gid] = (
                    f"{name}: {_spaced(state)} {rate['share']:.1%} ({rate['hits']} of {rate['of']})"
                )
                axes.add_patch(
                    Rectangle(
                        (start, y + 0.1), share, 0.8, gid=gid, linewidth=1.5, clip_on=False,
                        facecolor=inks(f"var(--{state})"), edgecolor=inks("var(--paper)"),
                    )
                )  # fmt: skip
                room = share * (width - left - 16)
                said = f"{share:.0%}"
                if room > 8 * len(state) + 40:
                    said = f"{_spaced(state)} {said}"
                if room > 34:
                    _write(axes, start + share / 2, y + 0.5, said, inks("var(--ink)"), 12)
                start += share
        for at in (0.0, 0.25, 0.5, 0.75, 1.0):
            _write(axes, at, len(rows) + 12 / line, f"{at:.0%}", inks("var(--muted)"), 11)
        spoken = "; ".join(
            f"{name}: "
            + ", ".join(f"{_spaced(state)} {row['states'][state]['share']:.1%}" for state in STATES)
            for name, row in zip(names, rows, strict=True)
        )
        return inline(figure, inks, f"States of the turns by mode. {spoken}", titles)


@dataclass(frozen=True)
class Cell:
    """One cell of a heat map.

    Attributes:
        share: from 0 to 1.
        title: what hovering over it shows.
        marked: it has a border.
    """

    share: float
    title: str
    marked: bool = False


def heat_map(
    label: str,
    rows: Sequence[str],
    columns: Sequence[tuple[str, str]],
    panels: Mapping[str, Sequence[Sequence[Cell]]],
    wide: int = 48,
) -> str:
    """Several heat maps side by side, their rows and their scale the same.

    Args:
        label: what a screen reader says in its place.
        rows: what they are.
        columns: their groups and names.
        panels: cells by row and column, by heading.
        wide: how wide a cell is, in pixels.
    """
    names = [_short(printable(name)) for name in rows]
    left = 12 + _LETTER * max(map(len, names))
    each = wide * len(columns)
    top, height = 52, 52 + _LINE * len(rows) + 4
    width = round(left + (each + _GAP) * len(panels))
    inks, titles = Inks(), {}
    with drawing():
        figure, axes = _canvas(width, height, 0, 0, width, height)
        axes.set(xlim=(0, width), ylim=(height, 0))
        for y, name in enumerate(names):
            middle = top + _LINE * (y + 0.5)
            _write(axes, left - 8, middle, name, inks("var(--ink)"), 11, "right")
        for number, (heading, cells) in enumerate(panels.items()):
            x = left + (each + _GAP) * number
            _write(axes, x, 9, heading, inks("var(--ink)"), 12, "left", weight=700)
            for at, (group, column) in enumerate(columns):
                if group != (columns[at - 1][0] if at else None):
                    _write(axes, x + wide * at, 27, group, inks("var(--muted)"), 10, "left")
                _write(axes, x + wide * (at + 0.5), 43, column, inks("var(--muted)"), 10)
            for y, line in enumerate(cells):
                for at, cell in enumerate(line):
                    corner = (x + wide * at, top + _LINE * y)
                    gid = f"cell {number} {y} {at}"
                    titles[gid] = cell.title
                    _draw(axes, inks, corner, wide, cell, gid)
        return inline(figure, inks, label, titles)


def _draw(
    axes: Axes, inks: Inks, corner: tuple[float, float], wide: int, cell: Cell, gid: str
) -> None:
    x, y = corner
    level = f"{100 * min(max(cell.share, 0.0), 1.0):.0f}%"
    axes.add_patch(
        Rectangle(
            (x + 1, y + 1), wide - 2, _LINE - 2, gid=gid, clip_on=False,
            linewidth=2 if cell.marked else 0,
            facecolor=inks(f"color-mix(in srgb, var(--heat) {level}, var(--track))"),
            edgecolor=inks("var(--bad)"),
        )
    )  # fmt: skip
    if cell.share >= _SLIGHT:
        middle = (x + wide / 2, y + _LINE / 2)
        _write(axes, *middle, f"{cell.share:.2f}", inks("var(--ink)"), 11)


def _canvas(
    width: float, height: float, left: float, top: float, wide: float, high: float
) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, nothing of which is drawn; all in pixels."""
    figure = Figure(figsize=(width / 72, height / 72))
    box = (left / width, 1 - (top + high) / height, wide / width, high / height)
    axes = figure.add_axes(box)
    axes.set_axis_off()
    return figure, axes


def _write(
    axes: Axes, x: float, y: float, text: str, colour: str, size: int, align: str = "center",
    weight: int = 400,
) -> None:  # fmt: skip
    axes.text(
        x, y, printable(text), color=colour, size=size, ha=align, va="center", weight=weight,
        clip_on=False,
    )  # fmt: skip


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def _spaced(state: str) -> str:
    return state.replace("_", " ")
