"""A report in the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from .report import Report
from .words import DONE, facts, printable

_STYLES = {
    "healthy_call": "green",
    "healthy_response": "green",
    "polluted": "yellow",
    "collapsed": "red",
}


def table(report: Report) -> Group:
    """The header line of a report, and a table of its interventions."""
    # Nothing here is rich's markup: tokens and reasons hold what a model wrote.
    heading = Text()
    for name, value in facts(report).items():
        heading.append(f"{name} ", "dim").append(value, "bold").append("  ")
    for state, style in _STYLES.items():
        heading.highlight_words([state], f"not dim {style}")
    if not report.interventions:
        return Group(heading, Text("no interventions"))
    rows = Table(box=box.SIMPLE_HEAD)
    rows.add_column("step", justify="right")
    rows.add_column("region")
    rows.add_column("token", overflow="fold")
    rows.add_column("mass", justify="right")
    rows.add_column("action")
    rows.add_column("reason")
    for item in report.interventions:
        rows.add_row(
            f"{item.step:,}",
            item.region,
            Text(repr(item.token), "bold"),
            "" if item.mass is None else f"{item.mass:.3f}",
            DONE[item.action],
            Text(printable(item.reason)),
        )
    return Group(heading, rows)
