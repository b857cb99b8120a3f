"""A report as one HTML page, or as a piece of one in a notebook.

Nothing is loaded and no script runs: figures are shown on hover and on keyboard focus by the style
sheet alone, so they also work where a notebook takes scripts out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path

from .report import Intervention, Report, Step
from .words import DONE, NO_STEPS, facts, printable, visible

ROWS = 8
"""How many control tokens the chart shows: those with the highest masses."""

_LABEL, _PEAK, _ROW, _BAR, _TOP = 128, 92, 34, 26, 44  # the chart's measures, in pixels
_SLIGHT, _THICKEST = 0.05, 6.0  # pressure from which tokens are underlined; the most pixels of it

# Each intervention with its number in the table.
_Marks = Mapping[int, Sequence[tuple[int, Intervention]]]


def page(report: Report) -> str:
    """The report as a self-contained HTML page."""
    return f"""<!doctype html>
<html lang="en" class="toolguard-page">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>toolguard report</title>
</head>
<body>
{fragment(report)}
</body>
</html>
"""


def fragment(report: Report) -> str:
    """The report as one element that brings its style along and changes nothing around it."""
    marks = _marks(report)
    if report.steps:
        tokens = f"<h2>Tokens</h2>\n{_strip(report.steps, marks)}"
        shown = tokens + _chart(report, marks)
    else:
        shown = f'<p class="note">{escape(NO_STEPS)}</p>'
    return (
        f'<section class="toolguard" aria-label="toolguard report">\n<style>\n{style()}</style>\n'
        f"{_summary(report)}\n{shown}\n{_interventions(report.interventions)}\n</section>"
    )


def strip(report: Report) -> str:
    """The tokens of a report that has steps, for a page that has the `style`."""
    return f'<div class="toolguard">\n{_strip(report.steps, _marks(report))}</div>'


@cache
def style() -> str:
    """The style sheet of all that is made here."""
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def _marks(report: Report) -> _Marks:
    marks: dict[int, list[tuple[int, Intervention]]] = defaultdict(list)
    for number, item in enumerate(report.interventions, 1):
        marks[item.step].append((number, item))
    return marks


def _summary(report: Report) -> str:
    figures = facts(report)
    # The parts of "collapsed → healthy_call" are coloured one by one.
    states = " → ".join(
        f'<b class="{escape(state.split()[0])}">{escape(state)}</b>'
        for state in figures.pop("state").split(" → ")
    )
    listed = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in figures.items()
    )
    return f'<h1>toolguard report <span class="states">{states}</span></h1>\n<dl>{listed}</dl>'


def _strip(steps: Sequence[Step], marks: _Marks) -> str:
    numbers = f"<span>{_number(1)} intervention, by its number below</span>" if marks else ""
    return (
        '<p class="legend">'
        '<span class="scale">0 <i></i> 1 control mass before the mask</span>'
        f'<span><i class="thin"></i> <i class="thick"></i> mask pressure</span>{numbers}</p>\n'
        '<div class="tokens"><ol class="strip">'
        f"{''.join(_token(step, marks.get(step.step, ())) for step in steps)}</ol>\n"
        '<p class="hint">Hover over a token, or tab to it, for its figures.</p></div>\n'
    )


def _token(step: Step, marks: Sequence[tuple[int, Intervention]]) -> str:
    mass = min(sum(step.masses.values()), 1.0)
    look = [f"--mass:{mass:.2f}"] if mass >= 0.005 else []
    if step.pressure >= _SLIGHT:
        look.append(f"--pressure:{min(1 + step.pressure, _THICKEST):.1f}px")
    style = f' style="{";".join(look)}"' if look else ""
    held = ' class="held"' if marks else ""
    # The text of a line ends with its last token, outside of the token's box.
    end = "\n" if step.token.endswith("\n") else ""
    return (
        f'<li tabindex="0"{held}{style}>{"".join(_number(number) for number, _ in marks)}'
        f'<span class="box">{_code(step.token)}</span><wbr>{_figures(step, marks)}</li>{end}'
    )


def _figures(step: Step, marks: Sequence[tuple[int, Intervention]]) -> str:
    """What is shown on hover: all that is known of a step."""
    rank = f"rank {step.rank:,}" if step.rank else "rank not read"
    lines = [
        f"<b>step {step.step:,}</b> in {step.region}, {step.position}: "
        f"<code>{_code(step.token)}</code> (id {step.token_id}), {rank}",
        f"illegal mass {step.illegal:.3f}, pressure {step.pressure:.2f} nats",
        "control mass "
        + (
            ", ".join(
                f"<code>{_code(token)}</code> {mass:.3f}"
                for token, mass in sorted(step.masses.items(), key=lambda item: -item[1])
            )
            or "below the gate"
        ),
    ]
    for number, item in marks:
        mass = "" if item.mass is None else f" ({item.mass:.3f})"
        lines.append(
            f"{_number(number)} <code>{_code(item.token)}</code>{mass} {DONE[item.action]}: "
            f"{escape(printable(item.reason))}"
        )
    # `hidden` holds where a viewer takes the style sheet out; the style sheet overrules it.
    return f'<span class="tip" role="tooltip" hidden>{"<br>".join(lines)}</span>'


def _chart(report: Report, marks: _Marks) -> str:
    """One row of bars per control token, one for pressure, on a common axis of steps."""
    steps = report.steps
    peaks: dict[str, float] = defaultdict(float)
    for step in steps:
        for token, mass in step.masses.items():
            peaks[token] = max(peaks[token], mass)
    tokens = sorted(peaks, key=lambda token: -peaks[token])
    count = max(report.tokens, *(step.step + 1 for step in steps))
    unit = max(1.5, min(18.0, 640 / count))
    width = _LABEL + unit * count + _PEAK
    right = _LABEL + unit * count + 8
    bars = [
        (
            token,
            "mass",
            f"peak {peaks[token]:.3f}",
            {step.step: step.masses[token] for step in steps if token in step.masses},
        )
        for token in tokens[:ROWS]
    ]
    peak = max(step.pressure for step in steps)
    scale = max(peak, 1.0)  # less than a nat is not drawn as if it were much
    pressures = {step.step: step.pressure / scale for step in steps if step.pressure > 0}
    bars.append(("pressure", "pressure", f"peak {peak:.2f} nats", pressures))
    bottom = _TOP + _ROW * len(bars)
    drawn = [*_regions(steps, unit), *_axis(count, unit, bottom)]
    for row, (name, kind, note, values) in enumerate(bars):
        base = _TOP + _ROW * row + _BAR
        path = "".join(
            f"M{_LABEL + unit * at:.1f} {base}v{-_BAR * value:.1f}h{unit * 0.85:.1f}V{base}z"
            for at, value in values.items()
        )
        label = name if kind == "pressure" else visible(name)
        short = label if len(label) <= 15 else label[:14] + "…"
        drawn.append(
            f'<rect class="track" x="{_LABEL}" y="{base - _BAR}" width="{unit * count:.1f}" '
            f'height="{_BAR}"/><path class="{kind}" d="{path}"/>'
            f'<text class="{kind}" x="{_LABEL - 8}" y="{base - 8}" text-anchor="end">'
            f"{escape(short)}<title>{escape(label)}</title></text>"
            f'<text class="peak" x="{right:.1f}" y="{base - 8}">{note}</text>'
        )
    drawn += _lines(marks, unit, bottom)
    left_out = len(tokens) - ROWS
    more = (
        f" {left_out} more control tokens stay at or below {peaks[tokens[ROWS]]:.3f}."
        if left_out > 0
        else ""
    )
    spoken = ", ".join(f"{_code(name)} {note}" for name, _, note, _ in bars)
    return (
        '<h2>Control mass by step</h2>\n<div class="chart">'
        f'<svg role="img" width="{width:.0f}" height="{bottom + 24}" '
        f'aria-label="Control mass and pressure by step: {spoken}">{"".join(drawn)}</svg></div>\n'
        '<p class="note">The model\'s own probability of each control token before the mask, '
        f"from 0 to 1, and the pressure of the mask, from 0 to {scale:.2f} nats.{more}</p>"
    )


def _regions(steps: Sequence[Step], unit: float) -> Iterator[str]:
    """The regions along the top of the chart."""
    start = 0
    for end in range(1, len(steps) + 1):
        if end < len(steps) and steps[end].region == steps[start].region:
            continue
        region = steps[start].region
        x, length = steps[start].step * unit, (steps[end - 1].step + 1 - steps[start].step) * unit
        name = f'<text x="{_LABEL + x + 1:.1f}" y="11">{region}</text>'
        yield (
            f'<g class="region">{name if length > 7 * len(region) else ""}'
            f'<rect x="{_LABEL + x:.1f}" y="15" width="{max(length - 2, 1):.1f}" height="3">'
            f"<title>{region}</title></rect></g>"
        )
        start = end


def _axis(count: int, unit: float, bottom: int) -> Iterator[str]:
    """Numbers of steps, as many as there is room for."""
    yield f'<text class="axis" x="{_LABEL - 8}" y="{bottom + 10}" text-anchor="end">step</text>'
    every = next(n for n in (1, 5, 10, 25, 50, 100, 250, 500, 1000, 10**9) if n * unit >= 40)
    for at in range(0, count, every):
        x = _LABEL + unit * (at + 0.425)
        yield f'<text class="axis" x="{x:.1f}" y="{bottom + 10}" text-anchor="middle">{at:,}</text>'


def _lines(marks: _Marks, unit: float, bottom: int) -> Iterator[str]:
    """A line down the chart at each step with interventions; a number where there is room."""
    free = 0.0
    for at in sorted(marks):
        x = _LABEL + unit * (at + 0.425)
        number = marks[at][0][0]
        yield f'<path class="line" d="M{x:.1f} 38V{bottom - 6}"/>'
        if x >= free:
            yield (
                f'<circle cx="{x:.1f}" cy="30" r="8"/>'
                f'<text class="number" x="{x:.1f}" y="33.5" text-anchor="middle">{number}</text>'
            )
            free = x + 18


def _interventions(items: Sequence[Intervention]) -> str:
    if not items:
        return '<h2>Interventions</h2>\n<p class="note">None.</p>'
    rows = "".join(
        f"<tr><td>{_number(number)}</td><td>{item.step:,}</td><td>{item.region}</td>"
        f"<td><code>{_code(item.token)}</code></td>"
        f"<td>{'' if item.mass is None else f'{item.mass:.3f}'}</td>"
        f"<td>{DONE[item.action]}</td><td>{escape(printable(item.reason))}</td></tr>"
        for number, item in enumerate(items, 1)
    )
    heads = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("", "step", "region", "wanted", "mass", "action", "reason")
    )
    return (
        f'<h2>Interventions</h2>\n<div class="table"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _code(token: str) -> str:
    """The text of a token as HTML."""
    return escape(visible(token))


def _number(number: int) -> str:
    """The number of an intervention, as it marks tokens."""
    return f"<sup>{number}</sup>"
