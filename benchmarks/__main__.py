"""What the project claims, measured by one command.

    python -m benchmarks --quick [--part NAME]    # under 10 minutes
    python -m benchmarks --full                   # about two hours

runs each benchmark in a process of its own and keeps its rows in `benchmarks/results/`, as they
come, and what is there as tables in `benchmarks/RESULTS.md`. A run that is cut off or fails takes
the place of no whole one: the page says so, and shows its rows only where there are no others.
Needs the extra `bench`; `TOOLGUARD_DATA` says where BFCL's cases, tokenizers and transcripts are,
and what lacks them is left out, which the page says. What is claimed and what is not:
`benchmarks/README.md`.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from threading import Thread
from typing import IO, Annotated, Any

import typer
from rich.console import Console

import toolguard

from .page import HERE, PAGE, run_file, write_page
from .real_data import DATA
from .saving import save

PACKAGES = (
    "torch", "transformers", "llguidance", "xgrammar", "outlines",
    "lm-format-enforcer", "json-repair", "partial-json-parser", "canitoolcall",
)  # fmt: skip
QUICK_CHECKPOINTS = ("healthy", "open_then_stop", "json_rot", "opener_everywhere")
QUICK_DAMAGES = ("opener", "end_of_turn", "noise")


@dataclass(frozen=True)
class Part:
    """One benchmark.

    Attributes:
        name: of its module and its result.
        title: the heading of its section.
        quick, full: its arguments.
        data: it needs real data.
    """

    name: str
    title: str
    quick: tuple[str, ...]
    full: tuple[str, ...]
    data: bool = False

    def command(self, quick: bool) -> list[str]:
        """What to run, behind the interpreter."""
        return ["-m", f"benchmarks.{self.name}", *(self.quick if quick else self.full)]


PARTS = (
    Part(
        "recovered_validity",
        "Recovered validity: the lab's checkpoints, every way",
        (
            "--json", "--prompts", "5",
            *(word for name in QUICK_CHECKPOINTS for word in ("--checkpoint", name)),
        ),
        ("--json", "--prompts", "20"),
    ),
    Part(
        "scripted_damage",
        "Scripted damage on real tokenizers",
        (
            "--quick", "--format", "hermes",
            *(word for name in QUICK_DAMAGES for word in ("--damage", name)),
        ),
        (),
        data=True,
    ),
    Part("repair", "Real transcripts", ("--json", "--every", "10"), ("--json",), data=True),
    Part(
        "cost",
        "Cost",
        ("--json", "--repeats", "3", "--part", "compile", "--part", "step"),
        ("--json", "--repeats", "7"),
    ),
    Part(
        "growth", "Many tools and long arguments, in every format",
        ("--json", "--repeats", "1", "--format", "hermes", "--format", "qwen3_xml"),
        ("--json", "--repeats", "1"),
    ),
    Part(
        "forced_tokens", "Forced tokens", ("--json", "--prompts", "8", "--repeats", "3"),
        ("--json",),
    ),
    Part(
        "conformance",
        "A peer's conformance suite",
        ("--json", "--part", "read", "--part", "repair", "--part", "repair_errors"),
        ("--json",),
    ),
    Part("harm", "Healthy turns, in every format", ("--json", "--every", "10"), ("--json",)),
)  # fmt: skip


def main(
    quick: Annotated[bool, typer.Option("--quick/--full", help="Under 10 minutes, or all.")] = True,
    parts: Annotated[list[str] | None, typer.Option("--part", help="Only these.")] = None,
) -> None:
    names = [part.name for part in PARTS]
    if unknown := sorted({*(parts or ())} - {*names}):
        raise typer.BadParameter(f"{unknown[0]} is none of {', '.join(names)}")
    console = Console(stderr=True)
    for part in PARTS:
        if parts and part.name not in parts:
            continue
        if part.data and not DATA.is_dir():
            console.print(f"{part.name} is left out: no data in {DATA}, set TOOLGUARD_DATA")
            continue
        console.print(f"python {' '.join(part.command(quick))}", highlight=False)
        error = run(part.name, part.command(quick))
        if error:
            console.print(f"{part.name} failed: {error}", highlight=False)
        write_page({part.name: part.title for part in PARTS})
    console.print(f"{PAGE} is written")


def run(name: str, command: list[str]) -> str:
    """Runs a benchmark and keeps the rows that it prints; what went wrong, or an empty text."""
    started = time.perf_counter()
    about: dict[str, Any] = {
        "command": f"python {' '.join(command)}",
        "date": date.today().isoformat(),
        "seconds": 0,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "versions": {"toolguard": toolguard.__version__}
        | {name: found for name in PACKAGES if (found := _version(name))},
        "error": "",
        "rows": [],
    }

    def keep() -> None:
        about["seconds"] = round(time.perf_counter() - started)
        save(run_file(name, running=True), json.dumps(about, indent=1) + "\n")

    keep()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["TYPER_STANDARD_TRACEBACK"] = "1"  # its last line says what went wrong
    if sys.stderr.isatty():
        environment["TTY_COMPATIBLE"] = "1"  # rich draws its bars
    said = bytearray()
    with subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=HERE.parent,
        env=environment,
    ) as process:
        assert process.stdout
        assert process.stderr
        passing = Thread(target=_pass_on, args=(process.stderr, said))
        passing.start()
        for line in process.stdout:
            if line.startswith(b"{"):
                about["rows"].append(json.loads(line))
                keep()
        passing.join()
        code = process.wait()
    if code not in (0, 1) or b"Traceback" in said:  # 1 alone is a verdict: see `repair`
        last = said.decode("utf-8", "replace").strip().rpartition("\n")[2]
        about["error"] = last[:300] or f"exit code {code}"
    keep()
    if not about["error"]:
        run_file(name, running=True).replace(run_file(name))
    return str(about["error"])


def _pass_on(stream: IO[bytes], said: bytearray) -> None:
    """Shows what a process says while it says it, and keeps the end of it."""
    while data := os.read(stream.fileno(), 4096):
        sys.stderr.buffer.write(data)
        sys.stderr.flush()
        said += data
        del said[:-20_000]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    typer.run(main)
