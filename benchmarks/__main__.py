"""What the project claims, measured by one command.

    python -m benchmarks --quick [--part NAME]    # under 10 minutes
    python -m benchmarks --full                   # some hours

runs each benchmark in a process of its own and writes what it prints into `benchmarks/results/`,
the tables of all that is there into `benchmarks/RESULTS.md`. Needs the extra `bench`;
`TOOLGUARD_DATA` says where BFCL's cases, tokenizers and transcripts are, and what lacks them is
left out, which the page says. What is claimed and what is not: `benchmarks/README.md`.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from toolguard.cli.chart import heat_map

from .real_data import DATA

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE / "RESULTS.md"
PACKAGES = (
    "toolguard", "torch", "transformers", "llguidance", "xgrammar", "outlines",
    "lm-format-enforcer", "json-repair", "partial-json-parser",
)  # fmt: skip
QUICK_CHECKPOINTS = ("healthy", "open_then_stop", "json_rot", "opener_everywhere")


@dataclass(frozen=True)
class Part:
    """One benchmark.

    Attributes:
        name: of its module and its result.
        title: the heading of its section.
        quick, full: its arguments.
        prints: it prints JSON; otherwise it writes its results itself.
        data: it needs real data.
    """

    name: str
    title: str
    quick: tuple[str, ...]
    full: tuple[str, ...]
    prints: bool = True
    data: bool = False

    def command(self, quick: bool) -> list[str]:
        """What to run, behind the interpreter."""
        return ["-m", f"benchmarks.{self.name}", *(self.quick if quick else self.full)]


PARTS = (
    Part(
        "recovered_validity",
        "Recovered validity: the lab's checkpoints, every way",
        (
            "--json", "--prompts", "20",
            *(word for name in QUICK_CHECKPOINTS for word in ("--checkpoint", name)),
        ),
        ("--json", "--prompts", "100"),
    ),
    Part(
        "scripted_damage",
        "Scripted damage on real tokenizers",
        ("--quick", "--format", "hermes"),
        (),
        prints=False,
        data=True,
    ),
    Part("repair", "Real transcripts", ("--json", "--every", "10"), ("--json",), data=True),
    Part(
        "cost",
        "Cost",
        ("--json", "--repeats", "5", "--part", "compile", "--part", "step"),
        ("--json", "--repeats", "15"),
    ),
    Part("forced_tokens", "Forced tokens", ("--json", "--prompts", "48"), ("--json",)),
)  # fmt: skip


def main(
    quick: Annotated[bool, typer.Option("--quick/--full", help="Under 10 minutes, or all.")] = True,
    parts: Annotated[list[str] | None, typer.Option("--part", help="Only these.")] = None,
) -> None:
    console = Console(stderr=True)
    RESULTS.mkdir(exist_ok=True)
    for part in PARTS:
        if parts and part.name not in parts:
            continue
        if part.data and not DATA.is_dir():
            console.print(f"{part.name} is left out: no data in {DATA}, set TOOLGUARD_DATA")
            continue
        console.print(f"python {' '.join(part.command(quick))}", highlight=False)
        _run(part, quick, console)
    PAGE.write_text(page(), "utf-8")
    console.print(f"{PAGE} is written")


def _run(part: Part, quick: bool, console: Console) -> None:
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *part.command(quick)],
        stdout=subprocess.PIPE if part.prints else None,
        text=True,
        cwd=HERE.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode and not done.stdout:
        console.print(f"{part.name} failed: exit code {done.returncode}")
        return
    about = {
        "command": f"python {' '.join(part.command(quick))}",
        "date": date.today().isoformat(),
        "seconds": round(time.perf_counter() - started),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }
    if part.prints:
        lines = [
            json.loads(line) for line in done.stdout.splitlines() if line.startswith(("{", "["))
        ]
        about["found"] = lines if part.name == "recovered_validity" else lines[-1]
    path = RESULTS / f"{part.name}.run.json"
    path.write_text(json.dumps(about, indent=1) + "\n", "utf-8")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def page() -> str:
    """The results that are there, as Markdown."""
    sections = [
        "# Results\n\nWritten by `python -m benchmarks`; what is claimed and what is not: "
        "[README.md](README.md).\n"
    ]
    for part in PARTS:
        path = RESULTS / f"{part.name}.run.json"
        if not path.is_file():
            said = f"Not run as a whole: `python -m benchmarks --part {part.name}`."
            there = "" if part.prints else SECTIONS[part.name](None)
            sections.append(f"## {part.title}\n\n{said}\n\n{there}\n")
            continue
        run = json.loads(path.read_text("utf-8"))
        versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
        sections.append(
            f"## {part.title}\n\n`{run['command']}`, {run['date']}, {run['seconds']} s, "
            f"{run['machine']}; {versions}.\n\n{SECTIONS[part.name](run.get('found'))}\n"
        )
    return "\n".join(sections)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of the same keys as Markdown."""
    if not rows:
        return "Nothing."
    heads = [*rows[0]]
    lines = ["| " + " | ".join(name.replace("_", " ") for name in heads) + " |"]
    lines.append("|" + "---|" * len(heads))
    lines += ["| " + " | ".join(_cell(row.get(head)) for head in heads) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def _recovered(rows: Any) -> str:
    names = list(dict.fromkeys(row["checkpoint"] for row in rows))
    ways = list(dict.fromkeys(row["way"] for row in rows))
    exact = {(row["way"], row["checkpoint"]): row["exact_match"] for row in rows}
    cells = [[exact.get((way, name)) for name in names] for way in ways]
    heat_map(ways, names, cells, RESULTS / "recovered_validity.png")
    shown = []
    for row in rows:
        rates = ("schema_valid", "exact_match", "no_call_kept", "wrong", "collapsed", "polluted")
        shown.append(
            {
                "checkpoint": row["checkpoint"],
                "way": row["way"],
                **{name: f"{row[name]:.1%}" for name in rates},
                "tokens": row["tokens"],
                "ms_a_turn": row["ms_a_turn"],
                "errors": row["errors"],
            }
        )
    picture = "![Exact calls by way and checkpoint](results/recovered_validity.png)"
    return f"{picture}\n\n{table(shown)}"


def _repaired(found: Any) -> str:
    readers = [{"reader": name, **row} for name, row in found["readers"].items()]
    kinds = dict.fromkeys(kind for row in found["checkpoints"].values() for kind in row)
    checkpoints = [
        {"checkpoint": name, **{kind: row.get(kind, 0) for kind in kinds}}
        for name, row in found["checkpoints"].items()
    ]
    absent = "".join(
        f"\n\n{name} did not take part: {why}." for name, why in found["absent"].items()
    )
    return f"{table(readers)}{absent}\n\n{table(checkpoints)}"


def _costs(found: Any) -> str:
    return "\n\n".join(f"### {part}\n\n{table(rows)}" for part, rows in found.items())


def _forced(found: Any) -> str:
    rows = [
        {"": name, **{key: value for key, value in row.items() if key != "time_ratio"},
         "time, guarded / unguarded": f"{row['time_ratio']['median']:.2f}"}
        for name, row in found.items()
    ]  # fmt: skip
    return table(rows)


def _scripted(_: Any) -> str:
    path = RESULTS / "scripted_damage.md"
    if not path.is_file():
        return "Nothing was written."
    written = path.read_text("utf-8").split("\n", 1)[1]  # without its heading
    return written.replace("](scripted_damage", "](results/scripted_damage").strip()


SECTIONS = {
    "recovered_validity": _recovered,
    "scripted_damage": _scripted,
    "repair": _repaired,
    "cost": _costs,
    "forced_tokens": _forced,
}


if __name__ == "__main__":
    typer.run(main)
