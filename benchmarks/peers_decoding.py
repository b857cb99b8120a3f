"""Ours and the peers as decoders of one turn, each used as its documentation recommends.

    decode = decoder("xgrammar")
    written = decode(Request(model, tokenizer, wire_format, toolset, prompt, max_new_tokens))

gives the ids of the turn, or its text where the peer writes something else than the wire format:
what holds a turn to a JSON schema knows no wire format, so its object is put into one afterwards,
as a server would. Decoding is greedy. What a peer raises is raised: show it.

`DECODERS` are all names. `unguarded` and ours decode with toolguard's loop or transformers', the
others with `model.generate` and the peer's own logits processor. A peer is imported when it is
first used.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any

import torch
from transformers import LogitsProcessor, PreTrainedModel, PreTrainedTokenizerBase

import toolguard
from toolguard import Guard, Toolset, WireFormat
from toolguard.integrations.transformers.decode import Decoder, Row
from toolguard.integrations.transformers.generate import end_tokens
from toolguard.integrations.transformers.sample import Sampler
from toolguard.policy.recover import Recovery

from .plain_grammars import GRAMMARS, plain_grammar, schema_of

Written = list[int] | str


@dataclass(frozen=True)
class Request:
    """One turn to write.

    Attributes:
        model, tokenizer: what writes it.
        wire_format: how it writes calls.
        toolset: the tools offered.
        prompt: the ids before the turn.
        max_new_tokens: its budget.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    wire_format: WireFormat
    toolset: Toolset
    prompt: Sequence[int]
    max_new_tokens: int

    @property
    def ends(self) -> list[int]:
        """The ids that end it."""
        return end_tokens(self.model, self.tokenizer, self.wire_format)


Decode = Callable[[Request], Written]

XGRAMMAR = {
    "hermes": "qwen_3",
    "qwen3_xml": "qwen_3_coder",
    "deepseek_v3": "deepseek_r1",
    "deepseek_v31": "deepseek_v3_1",
    "dsml": "deepseek_v3_2",
    "kimi_k2": "kimi",
    "kimi_k3": "kimi_k3",
    "llama3_json": "llama",
    "minimax_m2": "minimax",
    "minimax_m3": "minimax_m3",
    "glm_xml": "glm_4_7",
    "cohere_action": "cohere",
}
"""What xgrammar calls its built-in structural tag of a wire format, where that is another name."""
XGRAMMAR_STOPS = {"harmony": "<|endoftext|>"}
"""The stop token that it is given, where the tokenizer's own is a part of the tag: it never allows
such a token (mlc-ai/xgrammar#701), so a harmony reply could not end with its `<|return|>`."""


def decoder(name: str, reference: PreTrainedModel | None = None) -> Decode:
    """The decoder of that name.

    Args:
        reference: for `recover`: see `toolguard.generate`.

    Raises:
        KeyError: there is none.
    """
    if reference is not None:
        return partial(_ours, name, reference)
    return DECODERS[name]


def absence(name: str, wire_format: WireFormat) -> str:
    """Why a peer has no part in a wire format; empty where it has one."""
    if name in ("llguidance", "outlines_cfg") and wire_format.name not in GRAMMARS:
        return "no plain grammar is written for this format"
    if name == "xgrammar":
        try:
            _xgrammar_tag(wire_format)
        except ValueError:
            return "no builtin for this format"
    return ""


def generated(request: Request, **options: Any) -> list[int]:
    """The turn that `model.generate` writes, greedily, with its end token."""
    ids = torch.tensor([list(request.prompt)], device=request.model.device)
    output = request.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=request.max_new_tokens,
        eos_token_id=request.ends,
        pad_token_id=request.ends[0],
        **options,
    )
    turn: list[int] = output[0, ids.shape[1] :].tolist()
    return turn


def _unguarded(request: Request) -> Written:
    return generated(request)


def _ours(policy: Any, reference: PreTrainedModel | None, request: Request) -> Written:
    """What `toolguard.generate` does once it has rendered the prompt."""
    guard = Guard.compile(
        request.wire_format, request.toolset, request.tokenizer, end_tokens=request.ends
    )
    row = Row(guard, list(request.prompt), guard.start(request.max_new_tokens))
    row.recovery = Recovery(guard) if policy == "recover" else None
    sampler = Sampler(0.0, 0, 1.0, None, request.model.device)
    Decoder(request.model, [row], policy, sampler, request.max_new_tokens, reference).decode()
    return [*row.ids]


def _llguidance(request: Request) -> Written:
    """Its own matcher on a triggered grammar as its documentation has it: text, then calls."""
    processor = _Llguidance(
        _llguidance_tokenizer(
            request.tokenizer, request.model.config.vocab_size, tuple(request.ends)
        ),
        plain_grammar(
            request.wire_format.name, request.toolset, request.tokenizer.get_added_vocab()
        ),
    )
    return generated(request, logits_processor=[processor])


class _Llguidance(LogitsProcessor):
    """Applies the mask by numpy: llguidance's own kernel is compiled, and does the same."""

    def __init__(self, tokenizer: Any, grammar: str) -> None:
        from llguidance import LLMatcher

        self.matcher = LLMatcher(tokenizer, grammar)
        self.width = 0
        if self.matcher.is_error():
            raise ValueError(self.matcher.get_error())

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        from llguidance.torch import allocate_token_bitmask, fill_next_token_bitmask

        if self.width:
            self.matcher.consume_token(int(input_ids[0, -1]))
        self.width = input_ids.shape[1]
        if self.matcher.is_error():
            raise ValueError(self.matcher.get_error())
        words = allocate_token_bitmask(1, scores.shape[1])
        fill_next_token_bitmask(self.matcher, words)
        shifts = torch.arange(32, dtype=torch.int32)
        legal = ((words[0, :, None] >> shifts) & 1).bool().flatten()[: scores.shape[1]]
        return scores.masked_fill(~legal.to(scores.device), float("-inf"))


@lru_cache(maxsize=8)
def _llguidance_tokenizer(
    tokenizer: PreTrainedTokenizerBase, size: int, ends: tuple[int, ...]
) -> Any:
    from llguidance.hf import from_tokenizer

    return from_tokenizer(tokenizer, n_vocab=size, eos_token=list(ends))  # type: ignore[arg-type]


def _xgrammar(request: Request) -> Written:
    """Its built-in structural tag of the format; reasoning where it comes."""
    import xgrammar.contrib.hf

    tag = _xgrammar_tag(request.wire_format, [*map(dict, request.toolset.definitions)])
    compiler = _xgrammar_compiler(
        request.tokenizer,
        request.model.config.vocab_size,
        XGRAMMAR_STOPS.get(request.wire_format.name),
    )
    processor = xgrammar.contrib.hf.LogitsProcessor(compiler.compile_structural_tag(tag))
    return generated(request, logits_processor=[processor])


def _xgrammar_tag(wire_format: WireFormat, tools: Sequence[dict[str, Any]] = ()) -> Any:
    """Raises ValueError where it has none for the format."""
    import xgrammar

    name = XGRAMMAR.get(wire_format.name, wire_format.name)
    return xgrammar.get_model_structural_tag(name, tools=[*tools], reasoning="auto")


@lru_cache(maxsize=8)
def _xgrammar_compiler(tokenizer: PreTrainedTokenizerBase, size: int, stop: str | None) -> Any:
    import xgrammar

    stops = [tokenizer.get_added_vocab()[stop]] if stop else None  # None: the tokenizer's own
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=size, stop_token_ids=stops)
    return xgrammar.GrammarCompiler(info)


def _outlines_cfg(request: Request) -> Written:
    """`outlines.types.CFG` of the same triggered grammar."""
    grammar = plain_grammar(
        request.wire_format.name, request.toolset, request.tokenizer.get_added_vocab()
    )
    processor = _outlines_backend(
        "LLGuidanceBackend", request.tokenizer, request.model
    ).get_cfg_logits_processor(grammar)
    with warnings.catch_warnings():  # a refused token is a warning there, and the mask is lost
        warnings.filterwarnings("error", "Error in LLMatcher")
        return generated(request, logits_processor=[processor])


def _outlines_json(request: Request) -> Written:
    """`outlines.types.JsonSchema` of one call."""
    backend = _outlines_backend("OutlinesCoreBackend", request.tokenizer, request.model)
    processor = _outlines_json_processor(backend, json.dumps(call_schema(request.toolset)))
    processor.reset()
    ids = generated(request, logits_processor=[processor])
    return framed(str(request.tokenizer.decode(ids, skip_special_tokens=True)), request.wire_format)


@lru_cache(maxsize=16)
def _outlines_json_processor(backend: Any, schema: str) -> Any:
    """Its index of a schema, which takes most of its time, is made once: see its `Generator`."""
    return backend.get_json_schema_logits_processor(schema)


_outlines_backends: dict[tuple[str, int], Any] = {}


def _outlines_backend(name: str, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> Any:
    """One of outlines' default backends: it takes only the tokenizer from a model, and seconds."""
    import outlines

    key = (name, id(tokenizer))
    if key not in _outlines_backends:
        wrapped = outlines.from_transformers(model, tokenizer)  # type: ignore[arg-type]
        _outlines_backends[key] = getattr(outlines.backends, name)(wrapped)
    return _outlines_backends[key]


def _lm_format_enforcer(request: Request) -> Written:
    """Its JSON schema parser of one call; what it keeps of every prefix is a turn's own."""
    _lm_format_enforcer_imports()
    from lmformatenforcer import JsonSchemaParser
    from lmformatenforcer.integrations.transformers import (
        build_transformers_prefix_allowed_tokens_fn,
    )

    allowed = build_transformers_prefix_allowed_tokens_fn(
        _lm_format_enforcer_data(request.tokenizer), JsonSchemaParser(call_schema(request.toolset))
    )
    ids = generated(request, prefix_allowed_tokens_fn=allowed)
    return framed(str(request.tokenizer.decode(ids, skip_special_tokens=True)), request.wire_format)


def _lm_format_enforcer_imports() -> None:
    """0.11.3 asks transformers 4 for `transformers.tokenization_utils`, and refuses without it."""
    import sys

    import transformers.tokenization_utils_base

    sys.modules.setdefault("transformers.tokenization_utils", transformers.tokenization_utils_base)


@cache
def _lm_format_enforcer_data(tokenizer: PreTrainedTokenizerBase) -> Any:
    from lmformatenforcer.integrations.transformers import build_token_enforcer_tokenizer_data

    return build_token_enforcer_tokenizer_data(tokenizer)


def call_schema(toolset: Toolset) -> dict[str, Any]:
    """One call as a JSON object."""
    options = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.name}, "arguments": schema_of(tool)},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in toolset
    ]
    return options[0] if len(options) == 1 else {"anyOf": options}


def framed(text: str, wire_format: WireFormat) -> str:
    """A call that is a JSON object, as a turn of the wire format.

    Raises:
        ValueError: the object is not finished: there is no call, and no reply either.
    """
    try:
        call = json.loads(text)
    except ValueError as error:
        raise ValueError("its JSON object is not finished within the budget") from error
    return toolguard.render(wire_format, [call])


DECODERS: dict[str, Decode] = {
    "unguarded": _unguarded,
    "enforce": partial(_ours, "enforce", None),
    "recover": partial(_ours, "recover", None),
    "llguidance": _llguidance,
    "xgrammar": _xgrammar,
    "outlines_cfg": _outlines_cfg,
    "outlines_json": _outlines_json,
    "lm_format_enforcer": _lm_format_enforcer,
}
"""Ours, then the peers."""
