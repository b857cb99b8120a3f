"""What commands draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ..evaluation.watch import Watched, moved
from ..parsing.turn import STATES
from ..rows.classify import Group, fault_totals

_COLOURS = {
    "healthy_call": "tab:green",
    "healthy_response": "tab:cyan",
    "polluted": "tab:orange",
    "collapsed": "tab:red",
}
KINDS = (".svg", ".png", ".pdf")
SHOWN = 10
"""Kinds of faults that have a colour of their own."""


def draw(groups: Mapping[Any, Group], by: str | None, path: Path) -> None:
    """Shares of the turns by state above, and by fault below: a bar for each group."""
    names = ["all turns" if value is None else str(value) for value in groups]
    figure = Figure(figsize=(max(6.4, 1.5 + 0.5 * len(names)), 7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    bottom = [0.0] * len(names)
    for state in STATES:
        shares = [group.states[state] / group.turns for group in groups.values()]
        above.bar(names, shares, bottom=bottom, label=state, color=_COLOURS[state])
        bottom = [low + share for low, share in zip(bottom, shares, strict=True)]
    faults = fault_totals(groups)
    bottom = [0.0] * len(names)
    for kind, _ in faults.most_common(SHOWN):
        shares = [group.faults[kind] / group.turns for group in groups.values()]
        below.bar(names, shares, bottom=bottom, label=kind)
        bottom = [low + share for low, share in zip(bottom, shares, strict=True)]
    above.set_ylabel("turns by state")
    above.set_ylim(0, 1)
    below.set_ylabel("faults per turn")
    below.set_xlabel(by or "")
    below.tick_params(axis="x", rotation=0 if len("".join(names)) < 60 else 90)
    _finish(figure, path)


def draw_steps(watched: Watched, path: Path) -> None:
    """States above, stacked; below, the control mass that moved most; the alarm's step marked."""
    names = [str(step) for step in watched.steps]
    places = range(len(names))
    made = [*watched.steps.values()]
    figure = Figure(figsize=(max(8.0, 2.5 + 0.4 * len(names)), 7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    shares = [[one.share(state) for one in made] for state in STATES]
    colours = [_COLOURS[state] for state in STATES]
    if len(names) > 1:
        above.stackplot(places, shares, labels=STATES, colors=colours)
    else:
        bottom = 0.0
        for state, colour, (share,) in zip(STATES, colours, shares, strict=True):
            above.bar(places, [share], bottom=[bottom], label=state, color=colour)
            bottom += share
    for position, token in moved(made, SHOWN - 2):
        masses = [one.mass.mean(token, position) for one in made]
        below.plot(places, masses, marker="o", markersize=3, label=f"{token}, {position}")
    marked = [place for place, one in enumerate(made) if one.alarms]
    for axis in (above, below):
        for place in marked[:1]:
            axis.axvline(place, color="black", linestyle="--", label="drift alarm")
    above.set_ylabel("turns by state")
    above.set_ylim(0, 1)
    below.set_ylabel("mean control mass")
    below.set_ylim(-0.02, 1.02)
    below.set_xlabel("step")
    apart = max(1, len(names) // 30)
    below.set_xticks([*places][::apart], names[::apart])
    below.tick_params(axis="x", rotation=0 if len("".join(names[::apart])) < 60 else 90)
    _finish(figure, path)


def _finish(figure: Figure, path: Path) -> None:
    for axis in figure.axes:
        if axis.get_legend_handles_labels()[0]:
            axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    figure.savefig(path)


def heat_map(
    rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[float | None]], path: Path
) -> None:
    """Shares as colours, with the figures in them; empty where there is no share."""
    figure = Figure(figsize=(3.5 + len(columns), 1 + 0.22 * len(rows)), layout="constrained")
    axis = figure.subplots()
    values = [[math.nan if cell is None else cell for cell in row] for row in cells]
    axis.imshow(values, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
    axis.set_xticks(range(len(columns)), [name.replace("_", " ") for name in columns], fontsize=8)
    axis.set_yticks(range(len(rows)), rows, fontsize=7)
    axis.xaxis.tick_top()
    for y, row in enumerate(cells):
        for x, cell in enumerate(row):
            if cell is not None:
                axis.text(x, y, f"{cell:.0%}", ha="center", va="center", fontsize=7)
    figure.savefig(path)
