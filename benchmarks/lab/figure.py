"""Draw the curves: what a training did to the calls, and to the control mass meanwhile."""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.lab.recipes import RECIPES
from benchmarks.lab.train import CURVES

FIGURE = CURVES / "curves.png"
RATES = {
    "validity": ("schema-valid calls", "tab:blue"),
    "skill": ("values right, structure given", "tab:green"),
    "no_call_kept": ("plain replies kept", "tab:orange"),
}
SPIKES = 3
"""Curves of control mass in a panel: those that grew most."""
SEEN = 0.002
"""The mass that a curve has to reach to be drawn."""
FLOOR = 1e-6

Row = dict[str, Any]


def draw_figure(path: Path = FIGURE) -> None:
    """One column per damaged checkpoint: rates above, the control mass that grew most below."""
    curves = {
        name: [json.loads(line) for line in (CURVES / f"{name}.jsonl").open()]
        for name, recipe in RECIPES.items()
        if recipe.base and (CURVES / f"{name}.jsonl").exists()
    }
    figure, axes = plt.subplots(
        2, len(curves), figsize=(3.1 * len(curves), 5.2), sharey="row", squeeze=False
    )
    for (above, below), (name, rows) in zip(axes.T, curves.items(), strict=True):
        steps = [row["step"] for row in rows]
        for rate, (label, colour) in RATES.items():
            above.plot(steps, [row[rate] for row in rows], label=label, color=colour)
        for region, token in spikes(rows):
            mass = [max(row["reference_mass"][region][token], FLOOR) for row in rows]
            below.plot(steps, mass, label=f"{token} {region.replace('_', ' ')}")
        above.set_title(name, fontsize=10)
        below.set_xlabel("step")
        below.legend(fontsize=6.5, loc="best")
        above.set_ylim(-0.03, 1.03)
        below.set_yscale("log")
        below.set_ylim(FLOOR, 1.5)
        for axis in (above, below):
            axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("rate, unguarded")
    axes[1, 0].set_ylabel("control mass on right turns")
    axes[0, 0].legend(fontsize=6.5, loc="best")
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def spikes(rows: list[Row]) -> list[tuple[str, str]]:
    """The regions and tokens whose mass grew most, by its ratio to that before the training."""
    grown = {}
    for region, masses in rows[0]["reference_mass"].items():
        for token, before in masses.items():
            most = max(row["reference_mass"][region][token] for row in rows)
            if most >= SEEN:
                grown[region, token] = most / max(before, FLOOR)
    return sorted(grown, key=lambda pair: -grown[pair])[:SPIKES]
