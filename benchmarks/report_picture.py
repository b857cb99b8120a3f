"""The picture of a report in the README: its page in a headless browser, a token hovered over.

    python -m benchmarks.report_picture                                  # a report that was kept
    python -m benchmarks.report_picture --checkpoint open_then_stop --case one-198    # a new one

Needs Debian's chromium and chromium-driver, and selenium from the `test` extra.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from selenium.webdriver import ActionChains, Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By

import toolguard
from toolguard import Intervention, Report, Step
from toolguard.report.report import Position

PICTURE = Path(__file__).with_name("report.png")
WIDTH = 940

# What the bundled `open_then_stop` wrote under `enforce`, case one-198: token, id, control mass
# from the gate on, illegal mass, pressure, rank.
_STEPS: list[tuple[str, int, dict[str, float], float, float, int]] = [
    ("<tool_call>", 1020, {"<tool_call>": 1.0}, 0, 0, 1),
    ("\n", 198, {}, 0.3803, 0.479, 1),
    ('{"', 259, {"<tool_call>": 0.0013, "<|im_end|>": 0.9864}, 0.9886, 4.477, 2),
    ("name", 283, {}, 0.0001, 0, 1),
    ('":', 257, {"<tool_call>": 0.0041, "<|im_end|>": 0.1088}, 0.117, 0.124, 1),
    (' "', 256, {"<tool_call>": 0.0012, "<|im_end|>": 0.1142}, 0.1162, 0.124, 1),
    ("book", 589, {}, 0.0001, 0, 1),
    ("_flight", 629, {}, 0.0011, 0.001, 1),
    ('",', 258, {}, 0, 0, 1),
    (' "', 256, {"<|im_end|>": 0.1835}, 0.1837, 0.203, 1),
    ("arguments", 338, {}, 0, 0, 1),
    ('":', 257, {}, 0, 0, 1),
    (' {"', 260, {}, 0, 0, 1),
    ("origin", 558, {}, 0.0045, 0.005, 1),
    ('":', 257, {}, 0, 0, 1),
    (' "', 256, {}, 0.0003, 0, 1),
    ("A", 32, {}, 0, 0, 1),
    ("then", 741, {}, 0, 0, 1),
    ("s", 82, {}, 0, 0, 1),
    ('",', 258, {}, 0.0004, 0, 1),
    (' "', 256, {}, 0, 0, 1),
    ("destination", 560, {}, 0.0003, 0, 1),
    ('":', 257, {}, 0, 0, 1),
    (' "', 256, {}, 0, 0, 1),
    ("Tur", 647, {}, 0, 0, 1),
    ("in", 268, {}, 0, 0, 1),
    ('",', 258, {}, 0, 0, 1),
    (' "', 256, {"<|im_end|>": 0.0025}, 0.0025, 0.003, 1),
    ("passengers", 559, {}, 0.0001, 0, 1),
    ('":', 257, {}, 0, 0, 1),
    (" ", 220, {}, 0, 0, 1),
    ("3", 18, {}, 0, 0, 1),
    ("}}\n", 288, {}, 0.0002, 0, 1),
    ("</tool_call>", 1021, {"</tool_call>": 0.9999}, 0.0001, 0, 1),
    ("<|im_end|>", 1019, {"<|im_end|>": 1.0}, 0, 0, 1),
]


def example() -> Report:
    """A report of a collapsed turn that was brought back."""
    positions: dict[int, Position] = {0: "start", 1: "opened", 34: "closed"}
    for at in (6, 7, 16, 17, 18, 24, 25, 31):
        positions[at] = "value"
    steps = [
        Step(
            at,
            "text" if at in (0, 34) else "call",
            positions.get(at, "structure"),
            *read,
        )
        for at, read in enumerate(_STEPS)
    ]
    return Report(
        policy="enforce",
        tokens=len(steps),
        forced=2,
        forward_passes=33,
        seconds=0.58,
        pressure=sum(step.pressure for step in steps),
        interventions=(
            Intervention(
                2, "call", "<|im_end|>", 1019, 0.986, "mask", "the turn cannot end inside call"
            ),
        ),
        steps=tuple(steps),
        state_before="collapsed",
        state_after="healthy_call",
    )


@contextmanager
def browser() -> Iterator[Chrome]:
    """Debian's chromium, without a screen and without a network.

    Raises:
        FileNotFoundError: it is not installed.
    """
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        raise FileNotFoundError("needs Debian's packages chromium and chromium-driver")
    options = ChromeOptions()
    options.binary_location = chromium
    with tempfile.TemporaryDirectory() as profile:
        for flag in (
            "headless",
            "no-sandbox",  # chromium refuses to run as root with it
            "disable-gpu",
            "disable-quic",
            "no-first-run",
            "disable-background-networking",
            "disable-component-update",
            "disable-sync",
            "force-device-scale-factor=1.25",
            f"user-data-dir={profile}",
        ):
            options.add_argument(f"--{flag}")
        chrome = Chrome(options, ChromeService(driver))
        try:
            yield chrome
        finally:
            chrome.quit()


def draw(report: Report, path: Path = PICTURE) -> None:
    """Saves a picture of the report's page, the first token with an intervention hovered over."""
    with browser() as chrome, tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "report.html")
        file.write_text(report.to_html(), encoding="utf-8")
        chrome.set_window_size(WIDTH, 1000)
        chrome.get(file.as_uri())
        for token in chrome.find_elements(By.CSS_SELECTOR, ".held .box")[:1]:
            ActionChains(chrome).move_to_element(token).perform()
        chrome.find_element(By.CSS_SELECTOR, ".toolguard").screenshot(str(path))


def main(
    checkpoint: Annotated[str, typer.Option(help="Decode with this bundled model.")] = "",
    case: Annotated[str, typer.Option(help="The held-out case to answer.")] = "one-198",
    out: Annotated[Path, typer.Option(help="The picture.")] = PICTURE,
) -> None:
    report = _decode(checkpoint, case) if checkpoint else example()
    draw(report, out)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


def _decode(checkpoint: str, name: str) -> Report:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = toolguard.checkpoint(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(path, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(path)
    cases = [case for case in toolguard.held_out() if case.id == name]
    report = next(toolguard.answer(model, tokenizer, cases, trace=True)).report
    assert report is not None
    return report


if __name__ == "__main__":
    typer.run(main)
