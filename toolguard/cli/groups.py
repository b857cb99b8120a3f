"""Turns by state and by fault, group by group: tables and bars."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..parsing.turn import STATES
from ..rows.classify import Group

WIDTH = 40
"""The longest bar, in characters."""
# told apart without colours, too
_INK = tuple(
    zip(
        STATES,
        (("█", "green"), ("▓", "cyan"), ("▒", "yellow"), ("░", "red")),
        strict=True,
    )
)

LEGEND = tuple(Text(f" {glyph} {state}", style) for state, (glyph, style) in _INK)


def states_table(groups: Mapping[Any, Group], by: str | None) -> Table:
    table = Table(title="Turns by state", box=box.SIMPLE_HEAD)
    table.add_column(escape(by or ""), overflow="fold")
    for heading in ("turns", *STATES):
        table.add_column(heading.replace("_", "\n"), justify="right", no_wrap=True)
    for value, group in groups.items():
        shares = (f"{group.states[state] / group.turns:.1%}" for state in STATES)
        table.add_row(_name(value), f"{group.turns:,}", *shares)
    return table


def state_bars(groups: Mapping[Any, Group]) -> Table:
    """The states as one bar a group, all of the same length."""
    chart = Table(box=None, show_header=False)
    chart.add_column(overflow="fold")
    chart.add_column(no_wrap=True)
    for value, group in groups.items():
        bar = Text()
        ends = 0
        for state, (glyph, style) in _INK:
            start, ends = ends, ends + group.states[state]
            # the parts' ends are rounded, not their lengths: these add up
            size = round(WIDTH * ends / group.turns) - round(WIDTH * start / group.turns)
            bar.append(glyph * size, style)
        chart.add_row(_name(value), bar)
    return chart


def faults_table(groups: Mapping[Any, Group], faults: Counter[str], by: str | None) -> Table:
    table = Table(title="Turns with a fault, by its kind", box=box.SIMPLE_HEAD)
    table.add_column("fault", no_wrap=True)
    table.add_column(escape(by or ""), overflow="fold")
    table.add_column("turns", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for kind, _ in faults.most_common():
        label = kind
        for value, group in groups.items():
            count = group.faults[kind]
            if count:
                share = count / group.turns
                bar = Text("█" * max(1, round(WIDTH / 2 * share)), "red")
                table.add_row(label, _name(value), f"{count:,}", f"{share:.1%}", bar)
                label = ""
        table.add_section()
    return table


def _name(value: Any) -> str:
    return "all" if value is None else escape(str(value))
