"""What guarding costs a vLLM engine: tokens a second beside the same engine with nothing.

`python -m benchmarks.vllm_overhead [--model DIR] [--repeats 5] [--json]`, in the environment of
`scripts/vllm-env`. A backend of structured outputs is an engine's for life, so there are two
engines, one after the other, each in a process of its own; in each, all ways take turns, and ratios
are those of one turn to `nothing` in the same one (median and quartiles over the repeats):

- `structural tag`: vLLM's own strict tags for the format (xgrammar), as `--tool-strict-level
  parameter` sets them;
- `processor`, `engine`: toolguard's two modes.

And what the plugin costs requests that are not guarded: two more engines, one of which does not
load it, each in its process, take turns with the same requests. The ratio is that of the one that
does, `unguarded`, to the other, `no plugin`.

`ours` is the share of the time that the processor takes. The bundled `healthy` checkpoint answers
the same questions in each way, and since nothing changes for a healthy model, with the same tokens.
Its vocabulary has 1,024 ids and a step of it takes 2 ms: `--tokenizer DIR` takes a random model
with a real vocabulary instead, which says nothing that makes sense, so that turns differ in
length.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

WITH, WITHOUT = "unguarded", "no plugin"
BATCHES = (1, 8, 32)
TURNS = 32
"""How many turns are timed for each batch size and way."""
ENGINES = {
    "xgrammar": ("nothing", "structural tag", "processor"),
    "guidance": ("nothing", "engine"),
}
ALONE = {
    "OMP_NUM_THREADS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


def main(
    model: Annotated[Path | None, typer.Option(help="Any that writes Hermes' calls.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="A random model's.")] = None,
    repeats: Annotated[int, typer.Option(min=3)] = 5,
    engine: Annotated[str | None, typer.Option(hidden=True)] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    if engine in (WITH, WITHOUT):
        answer(engine, model)
        return
    if engine:
        measure(engine, model, repeats)
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        if tokenizer is not None:
            model = random_model(tokenizer, Path(folder))
        for name in ENGINES:
            command = [*itself(name, model), "--repeats", str(repeats)]
            done = subprocess.run(
                command, env={**os.environ, **ALONE}, stdout=subprocess.PIPE, text=True, check=True
            )
            rows += json.loads(done.stdout.splitlines()[-1])
        rows += unguarded(model, repeats)
    if as_json:
        print(json.dumps(rows))
        return
    table = Table(title=f"{model or 'healthy'}: medians of {repeats} repeats, {TURNS} turns each")
    for heading in rows[0]:
        table.add_column(heading)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)


def itself(engine: str, model: Path | None) -> list[str]:
    """The command that times an engine."""
    command = [sys.executable, "-m", "benchmarks.vllm_overhead", "--engine", engine]
    return [*command, *(["--model", str(model)] if model else [])]


def unguarded(model: Path | None, repeats: int) -> list[dict[str, Any]]:
    """Times requests without a guard, with and without the plugin; the one waits for the other."""
    engines = {
        way: subprocess.Popen(
            itself(way, model),
            env={**os.environ, **ALONE, "VLLM_PLUGINS": "toolguard" if way == WITH else ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for way in (WITHOUT, WITH)
    }

    def speed(way: str, batch: int) -> float:
        asked, told = engines[way].stdin, engines[way].stdout
        assert asked is not None
        assert told is not None
        print(batch, file=asked, flush=True)
        return next(float(line.removeprefix(SPEED)) for line in told if line.startswith(SPEED))

    rows = []
    for batch in BATCHES:
        speeds: dict[str, list[float]] = {way: [] for way in engines}
        for repeat in range(repeats + 1):
            for way in engines if repeat % 2 else reversed(engines):
                found = speed(way, batch)
                if repeat:
                    speeds[way].append(found)
        rows += compared(speeds, WITHOUT, batch)
    for engine in engines.values():
        engine.communicate()
    return [{"backend": "none", **row, "ours": ""} for row in rows]


SPEED = "tokens a second: "


def answer(engine: str, model: Path | None) -> None:
    """Answers the questions in batches of each size that is asked for, and says how fast."""
    if engine == WITHOUT:
        # vLLM loads all logits processors that are installed, whatever VLLM_PLUGINS says.
        from vllm.v1.sample import logits_processor

        logits_processor._load_logitsprocs_plugins = list
    llm, cases = engine_of(model)
    from toolguard.integrations.vllm.processor import GuardProcessor

    assert (GuardProcessor.live is None) == (engine == WITHOUT)
    prompts, params = requests(llm, cases, "nothing", fixed=model is not None)
    for line in sys.stdin:
        print(f"{SPEED}{timed(llm, prompts, params, int(line))[0]}", flush=True)


def engine_of(model: Path | None, **options: Any) -> tuple[Any, list[Any]]:
    """An engine, and what it is asked."""
    from vllm import LLM

    import toolguard

    llm = LLM(
        str(model or toolguard.checkpoint("healthy")),
        dtype="float32",
        enforce_eager=True,
        max_model_len=1024,
        max_num_seqs=max(BATCHES),
        enable_prefix_caching=False,
        **options,
    )
    cases = [case for case in toolguard.held_out() if case.calls and len(case.messages) <= 2]
    return llm, cases[:TURNS]


def timed(llm: Any, prompts: list[Any], params: list[Any], batch: int) -> tuple[float, float]:
    """Tokens a second, and the seconds that all took."""
    started, tokens = time.perf_counter(), 0
    for first in range(0, TURNS, batch):
        part = slice(first, first + batch)
        outputs = llm.generate(prompts[part], params[part], use_tqdm=False)
        tokens += sum(len(output.outputs[0].token_ids) for output in outputs)
    spent = time.perf_counter() - started
    return tokens / spent, spent


def compared(speeds: dict[str, list[float]], to: str, batch: int) -> list[dict[str, Any]]:
    """A row for each way: its speed, and the ratios to one of them in the same repeats."""
    rows = []
    for way, found in speeds.items():
        ratios = [one / base for one, base in zip(found, speeds[to], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        rows.append(
            {
                "way": way,
                "batch": batch,
                "tokens/s": round(statistics.median(found)),
                "ratio": round(middle, 3),
                "quartiles": f"{low:.3f} to {high:.3f}",
            }
        )
    return rows


def measure(engine: str, model: Path | None, repeats: int) -> None:
    """Times all ways of one engine; prints the rows as the last line."""
    from toolguard.integrations.vllm.processor import GuardProcessor

    llm, cases = engine_of(model, structured_outputs_config={"backend": engine})
    work = {way: requests(llm, cases, way, fixed=model is not None) for way in ENGINES[engine]}
    rows = []
    for batch in BATCHES:
        speeds: dict[str, list[float]] = {way: [] for way in work}
        ours: dict[str, list[float]] = {way: [] for way in work}
        for repeat in range(repeats + 1):
            for way, (prompts, params) in work.items():
                assert GuardProcessor.live is not None
                stats = GuardProcessor.live.seats.stats
                before = stats.step_seconds
                speed, spent = timed(llm, prompts, params, batch)
                if repeat:  # the first one compiles the grammars
                    speeds[way].append(speed)
                    ours[way].append((stats.step_seconds - before) / spent)
        for row in compared(speeds, "nothing", batch):
            share = f"{statistics.median(ours[row['way']]):.1%}"
            rows.append({"backend": engine, **row, "ours": share})
    print(json.dumps(rows))


def requests(llm: Any, cases: list[Any], way: str, fixed: bool) -> tuple[list[Any], list[Any]]:
    """The prompts, and how each is to be answered."""
    from vllm import SamplingParams, TokensPrompt
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionToolsParam
    from vllm.sampling_params import StructuredOutputsParams
    from vllm.tool_parsers.structural_tag_registry import get_model_structural_tag
    from vllm.tool_parsers.tool_strict_level import ToolStrictLevel

    from toolguard import WireFormat
    from toolguard.integrations.vllm.request import GuardRequest

    tokenizer = llm.get_tokenizer()
    prompts, params = [], []
    for case in cases:
        tools = case.toolset.definitions
        options: dict[str, Any] = {}
        if way == "structural tag":
            tag = get_model_structural_tag(
                model="hermes",
                tools=[ChatCompletionToolsParam(**tool) for tool in tools],
                tool_choice="auto",
                reasoning=False,
                strict_level=ToolStrictLevel.PARAMETER,
            )
            options["structured_outputs"] = StructuredOutputsParams(
                structural_tag=json.dumps(tag.model_dump())
            )
        elif way != "nothing":
            request = GuardRequest.checked(WireFormat.load("hermes"), tools)
            if way == "processor":
                options["extra_args"] = request.to_extra()
            else:
                guard = request.guard(tokenizer, [tokenizer.eos_token_id])
                options["structured_outputs"] = StructuredOutputsParams(
                    grammar=guard.engine_grammar
                )
        text = tokenizer.apply_chat_template(
            [dict(message) for message in case.messages],
            tools=tools,
            add_generation_prompt=True,
            tokenize=False,
        )
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        prompts.append(TokensPrompt(prompt_token_ids=ids))
        budget = {"max_tokens": 64 if fixed else 200}
        params.append(SamplingParams(temperature=0, **budget, **options))
    return prompts, params


def random_model(tokenizer: Path, folder: Path) -> Path:
    """A small model with random weights and the vocabulary of a tokenizer, saved in a folder."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    loaded = AutoTokenizer.from_pretrained(tokenizer)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(loaded) + (-len(loaded)) % 128,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        eos_token_id=loaded.eos_token_id,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    loaded.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    typer.run(main)
