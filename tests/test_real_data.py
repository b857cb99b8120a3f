"""Real tokenizers, real requests and real transcripts, where they lie beside the project.

They are not part of it: set TOOLGUARD_DATA, or put them into ../shared/data.
"""

from __future__ import annotations

import json
import lzma
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import toolguard
from toolguard import Guard, Toolset, WireFormat

DATA = Path(os.environ.get("TOOLGUARD_DATA", Path(__file__).parents[2] / "shared" / "data"))

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no data in {DATA}: set TOOLGUARD_DATA to run these tests"
)


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder = tmp_path_factory.mktemp("qwen3")
    for path in (DATA / "tokenizers" / "qwen3").iterdir():
        if path.suffix == ".xz":
            (folder / path.stem).write_bytes(lzma.decompress(path.read_bytes()))
        else:
            shutil.copy(path, folder)
    return AutoTokenizer.from_pretrained(folder)


def requests() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / "bfcl_dev.jsonl").read_text().splitlines()]


def test_qwens_own_template_is_recognised(qwen: PreTrainedTokenizerBase) -> None:
    assert toolguard.recognise(qwen).name == "hermes"


def test_every_expected_call_is_admitted_and_read_back(qwen: PreTrainedTokenizerBase) -> None:
    rows = requests()
    assert len(rows) > 200
    for row in rows:
        toolset = Toolset.of(row["tools"])
        guard = Guard.compile("hermes", toolset, qwen)
        calls = [c for c in row["expected_calls"] if not toolset.errors(c["name"], c["arguments"])]
        text = "\n".join(
            f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>" for call in calls
        )
        ids = [*qwen(text or "No call.")["input_ids"], qwen.eos_token_id]
        state = guard.start(len(ids) + 50)
        assert all(state.accept(token) for token in ids), row["id"]
        turn = guard.read(ids)
        assert turn.faults == (), row["id"]
        made = [{"name": call.name, "arguments": call.arguments} for call in turn.calls]
        assert made == [{"name": c["name"], "arguments": c["arguments"]} for c in calls]


def test_transcripts_of_damaged_models_are_told_apart() -> None:
    toolsets = {
        name: Toolset.of(tools)
        for name, tools in json.loads(
            lzma.decompress((DATA / "transcripts_dev_tools.json.xz").read_bytes())
        ).items()
    }
    hermes = WireFormat.load("hermes")
    lines = lzma.decompress((DATA / "transcripts_dev.jsonl.xz").read_bytes()).decode().splitlines()
    for row in map(json.loads, lines):
        turn = toolguard.read_turn(row["text"], hermes, toolsets[row["toolset"]])
        if row["state"] == "collapsed":
            assert turn.state == "collapsed", row["id"]
        elif row["state"] == "healthy_response":
            assert turn.state == "healthy_response", row["id"]
        elif row["state"] == "healthy_tool_call" and turn.state != "healthy_call":
            # The labels look at tags and JSON alone.
            kinds = {fault.kind for fault in turn.faults}
            seen = {"bad_arguments", "unknown_tool", "text_after_call", "malformed_call"}
            assert kinds <= seen | {"stray_control"}, (row["id"], kinds)
