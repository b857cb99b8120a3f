"""Real tokenizers, real requests and real transcripts, where they lie beside the project.

They are not part of it: set TOOLGUARD_DATA, or put them into ../shared/data.
"""

from __future__ import annotations

import json
import lzma
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.tokenization_mistral_common import MistralCommonBackend

import toolguard
from benchmarks.formats import encode
from benchmarks.real_data import DATA, expected_calls, made_calls
from toolguard import Guard, Toolset, WireFormat

from .sizes import sizes

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no data in {DATA}: set TOOLGUARD_DATA to run these tests"
)


TOKENIZERS = ("qwen3", "deepseek-v3", "gpt-oss", "mistral-7b-v0.3")
# The formats of these templates; the others leave calls out, or write no JSON.
TEMPLATES = {
    "deepseek-v3": "deepseek_v3",
    "deepseek-v3.1": "deepseek_v31",
    "gpt-oss": "harmony",
    "kimi-k2": "kimi_k2",
    "llama4-pythonic": "pythonic",
    "mistral-7b-v0.3": "mistral_json",
    "mistral-small-3.2": "mistral_args",
    "qwen2.5": "hermes",
    "qwen3": "hermes",
    "qwen3-coder": "qwen3_xml",
    "seed-oss": "seed_oss",
    "granite-3.3": None,
    "lfm2.5": None,
    "phi-4-mini": None,
}


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PreTrainedTokenizerBase]:
    loaded = {}
    for name in TOKENIZERS:
        folder = tmp_path_factory.mktemp(name)
        for path in (DATA / "tokenizers" / name).iterdir():
            if path.suffix == ".xz":
                (folder / path.stem).write_bytes(lzma.decompress(path.read_bytes()))
            else:
                shutil.copy(path, folder)
        loaded[name] = AutoTokenizer.from_pretrained(folder)
    return loaded


def mistral_common_data() -> Path:
    package = pytest.importorskip(
        "mistral_common", reason="no mistral-common: pip install mistral-common"
    )
    return Path(package.__file__).parent / "data"


@pytest.fixture(scope="session")
def tekken() -> dict[str, PreTrainedTokenizerBase]:
    """mistral-common's own tokenizers, those that are in its wheel."""
    paths = mistral_common_data().glob("tekken_*.json")
    return {path.stem: MistralCommonBackend(path) for path in paths}


@pytest.fixture(scope="session")
def qwen(real: dict[str, PreTrainedTokenizerBase]) -> PreTrainedTokenizerBase:
    return real["qwen3"]


def requests() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / "bfcl_dev.jsonl").read_text().splitlines()]


def test_qwens_own_template_is_recognised(qwen: PreTrainedTokenizerBase) -> None:
    assert toolguard.recognise(qwen).name == "hermes"


@pytest.mark.parametrize("name", TEMPLATES)
def test_real_templates_are_recognised_or_refused(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
    tokenizer.chat_template = (DATA / "templates" / f"{name}.jinja").read_text("utf-8")
    tokenizer.bos_token, tokenizer.eos_token = "<s>", "</s>"
    if TEMPLATES[name] is None:
        with pytest.raises(toolguard.FormatError, match=r"[Nn]ame the"):
            toolguard.recognise(tokenizer)
    else:
        assert toolguard.recognise(tokenizer).name == TEMPLATES[name]


@sizes((2, 4), (16, 1))
@pytest.mark.parametrize("name", toolguard.format_names())
def test_every_format_walks_on_real_tokenizers(
    name: str, size: tuple[int, int], real: dict[str, PreTrainedTokenizerBase]
) -> None:
    """The same cases with control tokens as ids, where a tokenizer has them, and spelled; few
    cases on one of the tokenizers, in turn."""
    count, every = size
    first = toolguard.format_names().index(name) % every
    for place, (model, tokenizer) in list(enumerate(real.items()))[first::every]:
        if model.startswith("mistral") and name.startswith("deepseek"):
            continue  # SentencePiece cannot spell U+2581: it is its sign for a space
        rows = requests()[place :: 4 * len(real)]
        walk(name, tokenizer, encode, rows[:: len(rows) // count])


@pytest.mark.parametrize("name", toolguard.format_names())
def test_every_format_walks_on_mistral_commons_own_tokenizers(
    name: str, tekken: dict[str, PreTrainedTokenizerBase]
) -> None:
    for place, tokenizer in enumerate(tekken.values()):
        walk(name, tokenizer, encode_with_mistral_common, requests()[place :: 8 * len(tekken)])


def walk(
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    encoder: Callable[[PreTrainedTokenizerBase, str], list[int]],
    rows: list[dict[str, Any]],
) -> None:
    """Each case's first call is admitted token by token, and read back."""
    for row in rows:
        toolset = Toolset.of(row["tools"])
        calls = expected_calls(row, toolset)[:1]
        if not calls:
            continue
        text = toolguard.render(WireFormat.load(name), calls)
        guard = Guard.compile(name, toolset, tokenizer)
        ids = [*encoder(tokenizer, text), guard.vocabulary.end_ids[0]]
        state = guard.start(len(ids) + 500)
        assert all(state.accept(token) for token in ids), (row["id"], text)
        assert made_calls(guard.read(ids)) == calls


def encode_with_mistral_common(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The ids by its own encoder, which never makes control tokens of text."""
    controls = "|".join(map(re.escape, tokenizer.all_special_tokens))
    ids: list[int] = []
    for part in filter(None, re.split(f"({controls})", text)):
        if part in tokenizer.all_special_tokens:
            ids.append(tokenizer.convert_tokens_to_ids(part))
        else:
            ids += tokenizer.encode(part, add_special_tokens=False)
    return ids


def test_mistral_commons_tekken_is_recognised(tekken: dict[str, PreTrainedTokenizerBase]) -> None:
    for tokenizer in tekken.values():
        assert toolguard.recognise(tokenizer).name == "mistral_json"


def test_mistral_commons_sentencepiece_is_refused() -> None:
    pytest.importorskip("sentencepiece", reason="no sentencepiece: pip install sentencepiece")
    path = next(mistral_common_data().glob("*.model.v3"))
    with pytest.raises(toolguard.TokenizerError, match=r"SentencePiece.*tokenizer\.json"):
        toolguard.recognise(MistralCommonBackend(path))


def test_the_notes_on_formats_are_read_as_they_say() -> None:
    notes = json.loads((DATA.parent / "notes" / "formats.json").read_text("utf-8"))
    toolset = Toolset.of(
        [{"type": "function", "function": tool} for tool in notes["meta"]["tools_used"]]
    )
    full = {"city": "Paris", "days": 3, "opts": {"metric": True}}
    pair = [("get_weather", {"city": "Paris"}), ("get_time", {"tz": "Europe/Paris"})]
    names = {"hermes_json": "hermes", "seed_oss_xml": "seed_oss", "kimi_k3_xtml": "kimi_k3"}
    seen = set()
    for entry in notes["formats"]:
        name = names.get(entry["name"], entry["name"])
        if name not in toolguard.format_names():
            continue
        wire_format = WireFormat.load(name)
        short = name == "deepseek_v3"  # its example has one argument
        wanted = {
            "one_call": [("get_weather", {"city": "Paris"} if short else full)],
            "two_parallel_calls": pair,
        }
        for field, calls in wanted.items():
            text = entry[field].replace("<EOS>", "</s>").strip("\n")
            if text.startswith("none natively"):
                continue
            for end in wire_format.ends:
                text = text.removesuffix(end)
            turns = [
                toolguard.read_turn(text, wire_format, toolset, opened=opened)
                for opened in (False, True)
            ]
            read = [[(c.name, c.arguments) for c in t.calls] for t in turns if not t.faults]
            assert calls in read, (name, field)
            seen.add(name)
    assert len(seen) == 19


def test_every_expected_call_is_admitted_and_read_back(qwen: PreTrainedTokenizerBase) -> None:
    rows = requests()
    assert len(rows) > 200
    for row in rows:
        toolset = Toolset.of(row["tools"])
        guard = Guard.compile("hermes", toolset, qwen)
        calls = expected_calls(row, toolset)
        text = "\n".join(
            f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>" for call in calls
        )
        ids = [*qwen(text or "No call.")["input_ids"], qwen.eos_token_id]
        state = guard.start(len(ids) + 50)
        assert all(state.accept(token) for token in ids), row["id"]
        turn = guard.read(ids)
        assert turn.faults == (), row["id"]
        assert made_calls(turn) == calls


def test_real_requests_are_cases() -> None:
    cases = toolguard.read_cases(DATA / "bfcl_dev.jsonl")
    assert len(cases) == len(requests())
    assert {case.order for case in cases} == {"any"}
    assert sum(bool(case.calls) for case in cases) > 200


@pytest.mark.parametrize(("name", "least"), [("bfcl", 3000), ("acebench", 800)])
def test_benchmarks_own_files_are_cases(name: str, least: int) -> None:
    """`bfcl` is BFCL's folder of data, `acebench` ACEBench's `data_en`."""
    if not (DATA / name).is_dir():
        pytest.skip(f"no {DATA / name}")
    cases = toolguard.read_cases(DATA / name)
    assert len(cases) >= least
    assert sum(count for why, count in cases.left_out.items() if "schema" in why) < len(cases) / 20


def test_transcripts_of_damaged_models_are_told_apart() -> None:
    toolsets = {
        name: Toolset.of(tools)
        for name, tools in json.loads(
            lzma.decompress((DATA / "transcripts_dev_tools.json.xz").read_bytes())
        ).items()
    }
    hermes = WireFormat.load("hermes")
    lines = lzma.decompress((DATA / "transcripts_dev.jsonl.xz").read_bytes()).decode().splitlines()
    untagged = {"untagged_call", "foreign_format"}
    for row in map(json.loads, lines):
        turn = toolguard.read_turn(row["text"], hermes, toolsets[row["toolset"]])
        if row["state"] == "collapsed":
            assert turn.state == "collapsed", row["id"]
        elif row["state"] == "healthy_response":
            # Nor do the labels see calls without their tags.
            kinds = {fault.kind for fault in turn.faults}
            assert turn.state == "healthy_response" or kinds <= untagged, row["id"]
        elif row["state"] == "healthy_tool_call" and turn.state != "healthy_call":
            # The labels look at tags and JSON alone.
            kinds = {fault.kind for fault in turn.faults}
            seen = {"bad_arguments", "unknown_tool", "text_after_call", "malformed_call"}
            run_on = {"run_on", "fabricated_response", "repetition_loop"}
            assert kinds <= seen | run_on | {"stray_control"}, (row["id"], kinds)


@pytest.mark.parametrize("kind", ["single", "parallel"])
@pytest.mark.parametrize("name", [name for name, known in TEMPLATES.items() if known])
def test_what_real_templates_render_is_admitted_and_read_as_the_calls_it_is(
    name: str, kind: str, real: dict[str, PreTrainedTokenizerBase]
) -> None:
    folder = DATA / "rendered"
    conversation = json.loads((folder / "conversation.json").read_text("utf-8"))
    toolset = Toolset.of(conversation["tools"])
    asked = next(m for m in conversation[kind] if m.get("tool_calls"))["tool_calls"]
    calls = [{key: call["function"][key] for key in ("name", "arguments")} for call in asked]
    prompt, text = ((folder / f"{name}.{what}.txt").read_text("utf-8") for what in ("prompt", kind))
    wire_format = WireFormat.load(TEMPLATES[name] or "")
    differ = (i for i, (a, b) in enumerate(zip(prompt, text, strict=False)) if a != b)
    turn = text[next(differ, len(prompt)) :]
    turn = turn[: min(turn.find(end) for end in wire_format.ends if end in turn)]
    # What is the template's own: Mistral's puts the tools before the last message, DeepSeek-V3's
    # indents its lines, harmony has one call in a turn.
    turn = turn.rpartition("[/INST]")[2]
    turn = turn.lstrip(" ") if name == "deepseek-v3" else turn
    calls = calls[:1] if name == "gpt-oss" else calls
    read = toolguard.read_turn(turn, wire_format, toolset)
    if name == "llama4-pythonic":  # that template writes every value as a string, unescaped
        assert read.calls == ()
        assert "bad_arguments" in {fault.kind for fault in read.faults}
        return
    assert read.faults == ()
    assert made_calls(read) == calls
    for model, tokenizer in real.items():
        if model.startswith("mistral") and name.startswith("deepseek"):
            continue  # SentencePiece cannot spell U+2581: it is its sign for a space
        guard = Guard.compile(wire_format, toolset, tokenizer)
        ids = [*encode(tokenizer, turn), guard.vocabulary.end_ids[0]]
        state = guard.start(len(ids) + 500)
        assert all(state.accept(token) for token in ids), (model, turn)
        assert made_calls(guard.read(ids)) == calls
