"""Turns that are taken back in the API server: with a scripted engine, and with a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2ForCausalLM
from vllm.inputs.engine import tokens_input
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams

import toolguard
from toolguard import Case
from toolguard.formats.wire_format import WireFormat
from toolguard.integrations.vllm.request import NAME, GuardRequest, Resumption
from toolguard.integrations.vllm.resample import Resampler
from toolguard.policy.recover import RETRIES

from .bare import train
from .serving import GUARDED, serving
from .test_server import ask, check, made, streamed

PROMPT = [1, 2, 3]
BODY = '\n{"name": "get_time", "arguments": {"zone": "UTC"}}\n'
CALL = f"<tool_call>{BODY}</tool_call>"
OTHER = CALL.replace("UTC", "CET")


class Engine:
    """Writes one text after the other: the first, and whenever it is asked again, the next one.

    Attributes:
        asked: what it was asked for, each time.
        aborted: how many requests were not written to their ends.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *texts: str, chunk: int = 1) -> None:
        self.renderer = SimpleNamespace(
            tokenizer=tokenizer, get_eos_token_id=lambda: tokenizer.eos_token_id
        )
        self.input_processor = SimpleNamespace(generation_config_fields={})
        self.texts, self.chunk = texts, chunk
        self.asked: list[tuple[list[int], SamplingParams, str]] = []
        self.aborted = 0

    def ids(self, text: str) -> list[int]:
        tokenizer = self.renderer.tokenizer
        return [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]

    async def generate(
        self, prompt: Any, params: SamplingParams, request_id: str, **options: Any
    ) -> AsyncIterator[RequestOutput]:
        text = self.texts[len(self.asked)]
        self.asked.append((prompt["prompt_token_ids"], params, request_id))
        kept = prompt["prompt_token_ids"][len(PROMPT) :]
        written = self.ids(text)
        if written[: len(kept)] == kept:
            written = written[len(kept) :]
        assert written[0] not in Resumption.of(params.extra_args).banned
        finished = False
        try:
            for start in range(0, len(written), self.chunk):
                ids = written[start : start + self.chunk]
                await asyncio.sleep(0)
                finished = start + self.chunk >= len(written)
                logprobs = [{token: Logprob(-float(len(self.asked)))} for token in ids]
                reason = "stop" if finished else None
                piece = CompletionOutput(0, "?", ids, 0.0, logprobs, finish_reason=reason)
                all_ids = prompt["prompt_token_ids"]
                yield RequestOutput(request_id, None, all_ids, None, [piece], finished)
        finally:
            self.aborted += not finished


def ask_engine(
    engine: Engine,
    tools: list[dict[str, Any]],
    kind: RequestOutputKind = RequestOutputKind.DELTA,
    **options: Any,
) -> list[CompletionOutput]:
    """What a client of the engine is told."""
    extra = GuardRequest.checked(WireFormat.load("hermes"), tools).to_extra()
    params = SamplingParams(
        max_tokens=200, output_kind=kind, extra_args={**extra, NAME: "it"},
        skip_special_tokens=False, **options,
    )  # fmt: skip

    async def run() -> list[RequestOutput]:
        outputs = Resampler(engine).generate(tokens_input(PROMPT), params, "it")  # type: ignore[arg-type]
        return [output async for output in outputs]

    outputs = asyncio.run(run())
    assert all(output.prompt_token_ids == PROMPT for output in outputs)
    assert {output.request_id for output in outputs} == {"it"}
    assert [output.finished for output in outputs[:-1]] == [False] * (len(outputs) - 1)
    assert outputs[-1].finished
    return [output.outputs[0] for output in outputs]


def joined(pieces: list[CompletionOutput]) -> tuple[str, list[int]]:
    return "".join(p.text for p in pieces), [i for p in pieces for i in p.token_ids]


def untold(pieces: list[CompletionOutput], *words: str) -> bool:
    return not any(word in piece.text for piece in pieces for word in words)


UNIQUE = [
    {
        "name": "f",
        "parameters": {
            "properties": {
                "x": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
            },
            "required": ["x"],
        },
    }
]


def numbers(text: str) -> str:
    return f'<tool_call>\n{{"name": "f", "arguments": {{"x": {text}}}}}\n</tool_call>'


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("kind", [RequestOutputKind.DELTA, RequestOutputKind.FINAL_ONLY])
def test_a_call_without_its_opener_gets_it(
    tokenizer: PreTrainedTokenizerBase,
    tools: list[dict[str, Any]],
    chunk: int,
    kind: RequestOutputKind,
) -> None:
    engine = Engine(tokenizer, BODY.strip(), CALL, chunk=chunk)
    pieces = ask_engine(engine, tools, kind, logprobs=0)
    text, ids = joined(pieces)
    assert text == CALL
    assert ids == engine.ids(CALL)
    first, again = engine.asked
    assert again[0] == [*PROMPT, ids[0]]
    assert again[1].max_tokens == first[1].max_tokens - 1
    assert Resumption.of(again[1].extra_args) == Resumption((ids[0],), ())
    assert first[2] != again[2]
    logprobs = [position for piece in pieces for position in piece.logprobs]
    assert logprobs[0] is None  # nobody chose it
    assert [p[i].logprob for p, i in zip(logprobs[1:], ids[1:], strict=True)] == [-2.0] * (
        len(ids) - 1
    )
    assert pieces[-1].cumulative_logprob == -2.0 * (len(ids) - 1)
    if chunk < 100:
        assert engine.aborted == 1


@pytest.mark.parametrize("chunk", [1, 4])
def test_a_loop_of_calls_is_left(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]], chunk: int
) -> None:
    """Of those that were told already, none is taken back."""
    told = f"One: {CALL}\n{CALL}\n{CALL}\n"
    engine = Engine(tokenizer, f"{told}{CALL}", told, chunk=chunk)
    pieces = ask_engine(engine, tools)
    text, ids = joined(pieces)
    assert text == told
    assert ids == engine.ids(told)
    banned = Resumption.of(engine.asked[1][1].extra_args).banned
    assert banned == (tokenizer.convert_tokens_to_ids("<tool_call>"),)


def test_a_call_that_was_asked_for_twice_stays(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]
) -> None:
    pieces = ask_engine(Engine(tokenizer, f"{CALL}\n{CALL}"), tools)
    assert joined(pieces)[0] == f"{CALL}\n{CALL}"


def test_a_second_call_that_differs_stays(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]
) -> None:
    engine = Engine(tokenizer, f"{CALL}\n{OTHER}")
    pieces = ask_engine(engine, tools)
    assert joined(pieces)[0] == f"{CALL}\n{OTHER}"
    assert len(pieces) < 5  # each is told when it is known to be sound


def test_a_call_that_its_schema_refuses_is_tried_again_from_its_last_value(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    engine = Engine(tokenizer, numbers("[17, 17]"), numbers("[17, 23]"))
    pieces = ask_engine(engine, UNIQUE)
    assert joined(pieces) == (numbers("[17, 23]"), engine.ids(numbers("[17, 23]")))
    kept = engine.asked[1][0][len(PROMPT) :]
    assert tokenizer.decode(kept).rstrip().endswith("[17,")
    assert untold(pieces, "17, 17")


def test_it_gives_up_after_some_retries(tokenizer: PreTrainedTokenizerBase) -> None:
    more = [f"{n}, 17]}}}}\n</tool_call>" for n in range(3, 3 + RETRIES)]
    engine = Engine(tokenizer, numbers("[17, 17]"), *more)
    text, _ = joined(ask_engine(engine, UNIQUE))
    assert len(engine.asked) == RETRIES + 1
    assert text.endswith("</tool_call>")


def test_a_loop_is_left_and_a_stop_string_is_found_across_the_seam(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]
) -> None:
    loop = "You. " * 40
    engine = Engine(tokenizer, loop, "END. It is late.")
    text, ids = joined(ask_engine(engine, tools))
    kept = engine.asked[1][0][len(PROMPT) :]
    said = tokenizer.decode(kept)
    assert loop.startswith(said)
    assert len(said) < 60
    assert (text, ids) == (f"{said}END. It is late.", [*kept, *engine.ids("END. It is late.")])

    stop = f"{said[-2:]}EN"
    for kind in RequestOutputKind:
        engine = Engine(tokenizer, loop, "END. It is late.")
        pieces = ask_engine(engine, tools, kind, stop=[stop])
        text = joined(pieces)[0] if kind == RequestOutputKind.DELTA else pieces[-1].text
        assert text == said[:-2]
        assert (pieces[-1].finish_reason, pieces[-1].stop_reason) == ("stop", stop)
        assert engine.aborted == 2


def test_what_the_client_gives_up_is_aborted(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]
) -> None:
    engine = Engine(tokenizer, "It is late. I will go now.")
    extra = GuardRequest.checked(WireFormat.load("hermes"), tools).to_extra()
    params = SamplingParams(max_tokens=99, output_kind=RequestOutputKind.DELTA, extra_args=extra)

    async def run() -> None:
        outputs = Resampler(engine).generate(tokens_input(PROMPT), params, "it")  # type: ignore[arg-type]
        async with aclosing(outputs):
            async for _ in outputs:
                break
        assert engine.aborted == 1

    asyncio.run(run())


def test_other_requests_are_left_as_they_are(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]
) -> None:
    engine = Engine(tokenizer)
    seen = []
    engine.generate = lambda *args, **options: seen.append((args, options))  # type: ignore[assignment, method-assign]
    resampler = Resampler(engine)  # type: ignore[arg-type]
    hermes = WireFormat.load("hermes")
    enforced = GuardRequest.checked(hermes, tools).to_extra()
    observed = GuardRequest.checked(hermes, tools, policy="observe").to_extra()
    for prompt, options in [
        (tokens_input(PROMPT), {}),
        (tokens_input(PROMPT), {"extra_args": observed}),
        (tokens_input(PROMPT), {"extra_args": enforced, "n": 2}),
        (tokens_input(PROMPT), {"extra_args": {"toolguard": "{"}}),
        ({"type": "embeds", "prompt_embeds": None}, {"extra_args": enforced}),
    ]:
        params = SamplingParams(max_tokens=9, **options)
        assert resampler.generate(prompt, params, "it", priority=3) is None
        assert seen.pop() == ((prompt, params, "it"), {"priority": 3})


def read(calls: list[tuple[str, str]]) -> list[tuple[str, Any]]:
    return [(name, json.loads(arguments)) for name, arguments in calls]


def exact(calls: list[tuple[str, str]], case: Case) -> bool:
    return read(calls) == [(call["name"], call["arguments"]) for call in case.calls]


@pytest.fixture(scope="module")
def single(asked: list[Case]) -> list[Case]:
    """Cases with one call to make."""
    return [case for case in asked if len(case.calls) == 1]


@pytest.fixture(scope="module")
def bare(single: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that leaves out the opener; the first 40 cases are new to it."""
    return train(single[40:104], tmp_path_factory.mktemp("checkpoints") / "bare")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resampling") / "log"


@pytest.fixture(scope="module")
def resampling(bare: Path, log: Path) -> Any:
    """A client of a server that re-samples."""
    plugins = "toolguard,toolguard_resample"
    with serving(bare, *GUARDED, log=log, VLLM_PLUGINS=plugins) as address:
        yield openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


def test_a_real_model_gets_its_calls_back(
    resampling: openai.OpenAI, single: list[Case], log: Path
) -> None:
    right = 0
    for case in single[:16]:
        response = ask(resampling, case, logprobs=True)
        (choice,) = response.choices
        assert choice.finish_reason == "tool_calls"
        check(made(response), case)
        right += exact(made(response), case)
        assert len(choice.logprobs.content) == response.usage.completion_tokens
        content, calls, finish = streamed(ask(resampling, case, stream=True))
        # Arguments are streamed as they were written, white space included.
        assert read(calls) == read(made(response))
        assert finish == "tool_calls"
        assert content == (choice.message.content or "")
    assert right >= 12
    assert "toolguard took back: " in log.read_text()
    assert '"left_grammar": true' not in log.read_text()


@pytest.mark.slow  # that the tests around can fail
def test_without_it_they_are_lost_or_told_as_text(
    bare: Path, single: list[Case], tmp_path: Path
) -> None:
    with serving(bare, *GUARDED, log=tmp_path / "log", VLLM_PLUGINS="toolguard") as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        right = sum(exact(made(ask(client, case)), case) for case in single[:16])
        told = [streamed(ask(client, case, stream=True))[0] for case in single[:4]]
    assert right < 12  # what the tool parser can mend
    assert all('"name"' in content for content in told)


def test_it_says_what_generate_says(
    resampling: openai.OpenAI, bare: Path, single: list[Case]
) -> None:
    model = Qwen2ForCausalLM.from_pretrained(bare, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(bare)
    same = 0
    for case in single[:8]:
        tools = case.toolset.definitions
        turn = toolguard.generate(
            model, tokenizer, list(case.messages), tools, max_new_tokens=200, policy="enforce"
        )
        calls = [(call.name, call.arguments) for call in turn.calls]
        served = made(ask(resampling, case))
        same += calls == read(served)
    assert same >= 7  # which does not leave loops


def test_usage_budget_and_stop_strings_are_those_of_one_turn(
    resampling: openai.OpenAI, single: list[Case]
) -> None:
    case = single[0]
    off = {"vllm_xargs": {"toolguard_policy": "off"}}
    plain = ask(resampling, case, extra_body=off)
    assert ask(resampling, case).usage.prompt_tokens == plain.usage.prompt_tokens
    chunks = list(ask(resampling, case, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.prompt_tokens == plain.usage.prompt_tokens
    assert chunks[-1].usage == ask(resampling, case).usage
    for budget in (30, 50):
        response = ask(resampling, case, max_tokens=budget)
        assert response.usage.completion_tokens <= budget
        check(made(response), case)
    stopped = ask(resampling, case, stop=['"arguments"'])
    assert stopped.choices[0].stop_reason == '"arguments"'
    assert stopped.usage.completion_tokens < ask(resampling, case).usage.completion_tokens


def test_many_at_once_get_what_each_gets_alone(
    resampling: openai.OpenAI, single: list[Case]
) -> None:
    alone = [made(ask(resampling, case)) for case in single[:8]]
    with ThreadPoolExecutor(8) as pool:
        together = [*pool.map(lambda case: made(ask(resampling, case)), single[:8])]
    assert together == alone


def test_what_it_did_is_counted(resampling: openai.OpenAI) -> None:
    metrics = resampling._client.get(f"{str(resampling.base_url).removesuffix('/v1/')}/metrics")
    assert 'toolguard_retries_total{action="lead"}' in metrics.text
