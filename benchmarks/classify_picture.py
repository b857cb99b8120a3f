"""The picture of `toolguard classify --chart` in README.md: the bundled checkpoints, unguarded.

python -m benchmarks.classify_picture [--out docs/classify.png]
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import typer
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

import toolguard
from toolguard.cli.main import app


def main(out: Path = Path("docs/classify.png"), prompts: int = 64) -> None:
    cases = toolguard.held_out()[:prompts]
    with TemporaryDirectory() as folder:
        rollouts = Path(folder) / "rollouts.jsonl"
        with rollouts.open("w") as file:
            for name in toolguard.checkpoint_names():
                path = toolguard.checkpoint(name)
                model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
                tokenizer = AutoTokenizer.from_pretrained(path)
                turns = toolguard.answer(model, tokenizer, cases, policy="observe")
                for case, turn in zip(cases, turns, strict=True):
                    row = {
                        "text": turn.raw,
                        "tools": case.toolset.definitions,
                        "checkpoint": name,
                    }
                    file.write(json.dumps(row) + "\n")
        given = [str(rollouts), "--column", "text", "--format", "hermes", "--by", "checkpoint"]
        done = CliRunner().invoke(app, ["classify", *given, "--chart", str(out)])
        print(done.output)


if __name__ == "__main__":
    typer.run(main)
