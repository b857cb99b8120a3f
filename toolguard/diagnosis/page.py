"""A diagnosis as one HTML page that needs nothing else.

A template (`page.html.jinja`), a style sheet and a script lie beside this file. Everything that a
model, a case or a file said is text there: it is escaped, and so is what cannot be seen or what
reorders the text around it. One script runs, known by its hash; without it all but the filters
works.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..parsing.turn import STATES
from ..policy.profile import ILLEGAL, POSITIONS
from ..report.page import style
from ..report.words import printable, visible
from .verdict import SPIKED

ROWS = 14
"""Tokens that the heat map shows: those with the highest masses. The table has them all."""
FEW = 4
"""So many rows of a sweep need no heat map."""
PLACES = {
    "start": "the start of the turn",
    "opened": "right after the opener of a call",
    "value": "inside a value",
    "structure": "elsewhere in a call",
    "closed": "after a call",
    "text": "in text",
    "reasoning": "in reasoning",
}


def require() -> None:
    """Says what is missing for a page, before the hours of work that it is to show.

    Raises:
        RequestError: jinja2 or matplotlib is not installed.
    """
    for name in ("jinja2", "matplotlib"):
        if find_spec(name) is None:
            raise RequestError(
                f"the page of a report needs {name}: pip install '.[report]' in toolguard's clone"
            )


def page(content: Mapping[str, Any]) -> str:
    """The page.

    Args:
        content: of a diagnosis (`Diagnosis.content`, report.json).

    Raises:
        RequestError: jinja2 or matplotlib is not installed.
    """
    require()
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from .charts import states_by_mode
    from .shown import cut, shown

    def clean(value: Any) -> Any:
        return value if isinstance(value, Markup) or not isinstance(value, str) else _lines(value)

    here = Path(__file__).parent
    templates = Environment(
        loader=FileSystemLoader(here),
        autoescape=True,
        finalize=clean,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters.update(visible=visible, cut=cut, spaced=_spaced, coded=_coded)
    script = (here / "page.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    masses = content["control_mass"]
    return templates.get_template("page.html.jinja").render(
        content=content,
        about={name: content.get(name) for name in ("toolguard", "model", "reference", "profile")},
        settings=content.get("settings") or {},
        styles=Markup(style() + (here / "page.css").read_text("utf-8")),
        script=Markup(script),
        script_hash=digest,
        states=STATES,
        places=PLACES,
        pictures=[Markup(states_by_mode(content["answers"], width)) for width in (1120, 340)],
        faults=_faults(content["answers"]),
        masses=sorted(masses, key=_place),
        mass_map=Markup(_mass_map(masses)) if masses else "",
        sweep_map=Markup(_sweep_map(content["sweep"])) if len(content["sweep"]) > FEW else "",
        worst=[shown(case) for case in content["worst"]],
    )


def _lines(text: str) -> str:
    """The text, its line ends and tabs as they are, everything else printable."""
    return "".join(c if c in "\n\t" else printable(c) for c in text)


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _coded(sentence: str) -> list[tuple[str, bool]]:
    """The pieces of a sentence, and whether each stands between backticks."""
    return [(piece, at % 2 == 1) for at, piece in enumerate(sentence.split("`"))]


def _faults(answers: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[int]]]:
    """How often there is each kind of fault, by mode; the most frequent first."""
    kinds = {kind for row in answers for kind in row["faults"]}
    counts = [(kind, [row["faults"].get(kind, 0) for row in answers]) for kind in kinds]
    return sorted(counts, key=lambda item: (-max(item[1]), item[0]))


def _place(row: Mapping[str, Any]) -> tuple[str, int, bool]:
    return row["asked"], POSITIONS.index(row["position"]), row["token"] == ILLEGAL


def _mass_map(masses: Sequence[Mapping[str, Any]]) -> str:
    """Control mass by token and place: the model's, the reference's, and what is right."""
    from .charts import Cell, heat_map

    panels = {"mass": "this model", "reference": "the reference", "right": "what is right"}
    if masses[0]["reference"] is None:
        del panels["reference"]
    places = list(dict.fromkeys((r["asked"], r["position"]) for r in sorted(masses, key=_place)))
    at = {(row["token"], row["asked"], row["position"]): row for row in masses}
    peaks: dict[str, float] = {}
    for row in masses:
        peak = max(row[figure] for figure in panels)
        peaks[row["token"]] = max(peaks.get(row["token"], 0.0), peak)
    tokens = sorted(peaks, key=lambda token: (token == ILLEGAL, -peaks[token], token))
    tokens = [*tokens[:-1][: ROWS - 1], tokens[-1]]
    names = [token if token == ILLEGAL else visible(token) for token in tokens]

    def cell(figure: str, name: str, row: Mapping[str, Any] | None) -> Cell:
        if row is None:
            return Cell(0.0, f"{name}: below the gate")
        ought = row["right"] if row["reference"] is None else row["reference"]
        figures = ", ".join(f"{panels[key]} {row[key]:.4f}" for key in panels)
        title = f"{name} {PLACES[row['position']]}, where a {row['asked']} is needed: {figures}"
        return Cell(row[figure], title, figure == "mass" and row["mass"] - ought >= SPIKED)

    return heat_map(
        "Control mass by token and place; the table below has the same figures",
        names,
        [(f"{asked} needed", position) for asked, position in places],
        {
            heading: [
                [cell(figure, name, at.get((token, *place))) for place in places]
                for token, name in zip(tokens, names, strict=True)
            ]
            for figure, heading in panels.items()
        },
    )


def _sweep_map(sweep: Sequence[Mapping[str, Any]]) -> str:
    """The rates of a sweep by format and variation, and by mode."""
    from .charts import Cell, heat_map

    asked = list(dict.fromkeys((row["format"], row["variation"]) for row in sweep))
    modes = list(dict.fromkeys(row["mode"] for row in sweep))
    at = {(row["format"], row["variation"], row["mode"]): row for row in sweep}

    def cells(figure: str, place: tuple[str, str]) -> Iterator[Cell]:
        for mode in modes:
            row = at.get((*place, mode))
            share = _share(row, figure) if row else 0.0
            yield Cell(share, f"{', '.join(place)}, {mode}: {figure} {share:.1%}")

    figures = ("exact match", "schema-valid", "healthy turns")
    return heat_map(
        "Rates of the sweep; the table below has the same figures",
        [", ".join(place) for place in asked],
        [("", mode) for mode in modes],
        {figure: [list(cells(figure, place)) for place in asked] for figure in figures},
        wide=64,
    )


def _share(row: Mapping[str, Any], figure: str) -> float:
    if figure == "healthy turns":
        states = row["states"]
        return float(states["healthy_call"]["share"] + states["healthy_response"]["share"])
    return float(row[figure.replace(" ", "_").replace("-", "_")]["share"])
