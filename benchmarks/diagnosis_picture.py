"""The picture of a diagnosis in docs/: its page in a headless browser, as a laptop shows it.

    python -m benchmarks.diagnosis_picture                       # open_then_stop beside healthy
    python -m benchmarks.diagnosis_picture --report report/report.json    # one that was made before

Needs what `benchmarks.report_picture` needs, and pillow, which matplotlib brings along.
"""

from __future__ import annotations

import base64
import io
import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image

import toolguard
from toolguard.diagnosis.page import page

from .report_picture import browser

PICTURE = Path(__file__).parents[1] / "docs" / "diagnosis.png"
WIDTH = 1280
CASES = 200
COLOURS = 256


def draw(content: dict[str, Any], path: Path = PICTURE, dark: bool = False) -> None:
    """Saves a picture of the page, from its head to the end of the first of the worst cases."""
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    with browser() as chrome, tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "report.html")
        file.write_text(page(content), encoding="utf-8")
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        size = {"width": WIDTH, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        chrome.get(file.as_uri())
        end = chrome.execute_script(
            "const last = document.querySelector('.case') ?? document.querySelector('main');"
            "return last.getBoundingClientRect().bottom"
        )
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": end, "scale": 1}
        taken = chrome.execute_cdp_cmd(
            "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
        )
    path.parent.mkdir(exist_ok=True)
    picture = Image.open(io.BytesIO(base64.b64decode(taken["data"])))
    few = picture.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE)
    few.save(path, optimize=True)  # half of the size


def main(
    report: Annotated[Path | None, typer.Option(help="A report.json.")] = None,
    dark: Annotated[bool, typer.Option(help="As where the system is dark.")] = False,
    out: Annotated[Path, typer.Option(help="The picture.")] = PICTURE,
) -> None:
    draw(json.loads(report.read_text("utf-8")) if report else _diagnosed(), out, dark)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


def _diagnosed() -> dict[str, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from toolguard.diagnosis.diagnosis import diagnose
    from toolguard.evaluation.local import LocalModel

    tokenizer = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
    damaged, healthy = (
        AutoModelForCausalLM.from_pretrained(toolguard.checkpoint(name), dtype="float32")
        for name in ("open_then_stop", "healthy")
    )
    return diagnose(
        LocalModel(damaged, tokenizer, reference=healthy),
        toolguard.held_out()[:CASES],
        reference=LocalModel(healthy, tokenizer),
        about={
            "toolguard": toolguard.__version__,
            "model": "open_then_stop",
            "reference": "healthy",
            "profile": None,
            "settings": {"cases": "bundled", "limit": CASES, "max_new_tokens": 160},
        },
    ).to_json()


if __name__ == "__main__":
    typer.run(main)
