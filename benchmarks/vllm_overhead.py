"""What guarding costs a vLLM engine: tokens a second beside the same engine with nothing.

`python -m benchmarks.vllm_overhead [--model DIR] [--repeats 5] [--json]`, in the environment of
`scripts/vllm-env`. A backend of structured outputs is an engine's for life, so there are two
engines, one after the other, each in a process of its own; in each, all ways take turns, and ratios
are those of one turn to `nothing` in the same one (median and quartiles over the repeats):

- `structural tag`: vLLM's own strict tags for the format (xgrammar), as `--tool-strict-level
  parameter` sets them;
- `processor`, `engine`: toolguard's two modes.

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
    if engine:
        measure(engine, model, repeats)
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        if tokenizer is not None:
            model = random_model(tokenizer, Path(folder))
        for name in ENGINES:
            command = [sys.executable, "-m", "benchmarks.vllm_overhead", "--engine", name]
            command += ["--repeats", str(repeats), *(["--model", str(model)] if model else [])]
            done = subprocess.run(
                command, env={**os.environ, **ALONE}, stdout=subprocess.PIPE, text=True, check=True
            )
            rows += json.loads(done.stdout.splitlines()[-1])
    if as_json:
        print(json.dumps(rows))
        return
    table = Table(title=f"{model or 'healthy'}: medians of {repeats} repeats, {TURNS} turns each")
    for heading in rows[0]:
        table.add_column(heading)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)


def measure(engine: str, model: Path | None, repeats: int) -> None:
    """Times all ways of one engine; prints the rows as the last line."""
    from vllm import LLM

    import toolguard
    from toolguard.integrations.vllm.processor import GuardProcessor

    llm = LLM(
        str(model or toolguard.checkpoint("healthy")),
        dtype="float32",
        enforce_eager=True,
        max_model_len=1024,
        max_num_seqs=max(BATCHES),
        enable_prefix_caching=False,
        structured_outputs_config={"backend": engine},
    )
    cases = [case for case in toolguard.held_out() if case.calls and len(case.messages) <= 2]
    cases = cases[:TURNS]
    work = {way: requests(llm, cases, way, fixed=model is not None) for way in ENGINES[engine]}
    rows = []
    for batch in BATCHES:
        speeds: dict[str, list[float]] = {way: [] for way in work}
        ours: dict[str, list[float]] = {way: [] for way in work}
        for repeat in range(repeats + 1):
            for way, (prompts, params) in work.items():
                assert GuardProcessor.live is not None
                stats = GuardProcessor.live.seats.stats
                before, started, tokens = stats.step_seconds, time.perf_counter(), 0
                for first in range(0, TURNS, batch):
                    part = slice(first, first + batch)
                    outputs = llm.generate(prompts[part], params[part], use_tqdm=False)
                    tokens += sum(len(output.outputs[0].token_ids) for output in outputs)
                spent = time.perf_counter() - started
                if repeat:  # the first one compiles the grammars
                    speeds[way].append(tokens / spent)
                    ours[way].append((stats.step_seconds - before) / spent)
        for way, found in speeds.items():
            ratios = [one / base for one, base in zip(found, speeds["nothing"], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            rows.append(
                {
                    "backend": engine,
                    "way": way,
                    "batch": batch,
                    "tokens/s": round(statistics.median(found)),
                    "to nothing": round(middle, 3),
                    "quartiles": f"{low:.3f} to {high:.3f}",
                    "ours": f"{statistics.median(ours[way]):.1%}",
                }
            )
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
