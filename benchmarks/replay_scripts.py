"""Scripts for a `ReplayModel`: the right turns of cases in a wire format, each place named."""

from __future__ import annotations

import lzma
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoTokenizer, PreTrainedTokenizerBase

import toolguard
from toolguard import Case, Guard, WireFormat
from toolguard.decoding.guard import turn_ends

from .damage_types import Rendered
from .formats import encode
from .real_data import DATA
from .replay_model import Damage, ReplayConfig, ReplayModel, Script

SIZES = {"qwen3": 151_936, "deepseek-v3": 129_280, "gpt-oss": 201_088, "mistral-7b-v0.3": 32_768}
"""The vocabularies of the models that have these tokenizers: some are padded."""
PAIRS = (
    ("hermes", "qwen3"),
    ("qwen3_xml", "qwen3"),
    ("deepseek_v3", "deepseek-v3"),
    ("deepseek_v31", "deepseek-v3"),
    ("harmony", "gpt-oss"),
    ("mistral_json", "mistral-7b-v0.3"),
    ("pythonic", "qwen3"),
)
"""Wire formats, each with the tokenizer of a model that writes it (or is a base of one that does:
ToolACE-2.5 writes `pythonic`)."""
REPLY = "None of these tools can help with that."
"""What is said where no call is needed."""
_REPLIES = {"harmony": ("<|channel|>final<|message|>", "<|return|>")}
"""What a plain reply is put behind, and what ends it, where that is not the end of a call."""


class Subject(NamedTuple):
    """A wire format as one tokenizer spells it."""

    wire_format: WireFormat
    tokenizer: PreTrainedTokenizerBase
    size: int

    @property
    def ends(self) -> list[int]:
        """What ends a turn: for the format, then for the tokenizer."""
        added = self.tokenizer.get_added_vocab()
        ends = [added[text] for text in self.wire_format.ends if text in added]
        return list(dict.fromkeys([*ends, *turn_ends(self.wire_format, self.tokenizer)]))

    @property
    def any_guard(self) -> Guard:
        """A guard of no tools in particular."""
        tools = [{"name": "f"}]
        return Guard.compile(self.wire_format, tools, self.tokenizer, end_tokens=self.ends)

    @property
    def control_ids(self) -> dict[str, int]:
        """The ids of the format's control tokens that the tokenizer has as one."""
        return self.any_guard.control_ids

    def spell(self, token: int) -> str:
        """What a token says."""
        return self.any_guard.vocabulary.text_of([token])

    def spell_all(self, ids: Sequence[int]) -> str:
        """What tokens say."""
        return self.any_guard.vocabulary.text_of(ids)

    def guard(self, case: Case) -> Guard:
        return Guard.compile(self.wire_format, case.toolset, self.tokenizer, end_tokens=self.ends)

    def model(
        self, scripts: Sequence[Script], damage: Damage | None = None, **options: Any
    ) -> ReplayModel:
        """A model of these scripts; `options` are `ReplayModel`'s."""
        guard = self.any_guard
        config = ReplayConfig(
            self.size, eos_token_id=self.ends, pad_token_id=self.ends[0], bos_token_id=None
        )
        controls = [*guard.control_ids.values()]
        return ReplayModel(
            config, guard.vocabulary, scripts, controls=controls, damage=damage, **options
        )

    def script(self, case: Case, reply: str = REPLY, spelled: bool = False) -> Script:
        """The right turn of a case, after a prompt that is its id.

        Args:
            reply: what is said where no call is needed.
            spelled: control tokens in the reply are spelled with ordinary tokens.

        Raises:
            FormatError: the format cannot say it.
        """
        prompt = self.tokenizer(f"{case.id}\n", add_special_tokens=False)["input_ids"]
        if not case.calls:
            before, end = _REPLIES.get(self.wire_format.name, ("", ""))
            ids = encode(self.tokenizer, before + reply)
            if spelled:
                header = encode(self.tokenizer, before) if before else []
                ids = [*header, *self.any_guard.vocabulary.ids_of(reply.encode())]
            kinds = ["start", *["text"] * (len(ids) - 1), "end"]
            ids.append(self.tokenizer.get_added_vocab().get(end, self.ends[0]))
            return Script(tuple(prompt), tuple(ids), tuple(kinds))
        calls = [in_order(case, call) for call in case.calls]
        text = toolguard.render(self.wire_format, calls)
        if self.wire_format.name == "harmony":  # as gpt-oss' chat template has it
            text = text.replace("commentary<|message|>", "commentary json<|message|>")
        turn = Rendered(self.wire_format, calls, text)
        ids = encode(self.tokenizer, turn.text)
        values = _values(turn)
        strings = tuple((start, end) for start, end, kind in values if kind == "value")
        spell = self.guard(case).vocabulary.bytes_of
        kinds, at = [], 0
        for place, token in enumerate(ids):
            before = spell(ids[:place]).decode("utf-8", "ignore")
            kinds.append(self._kind(before, spell([token]).decode("utf-8", "replace"), at, values))
            at += len(spell([token]))
        return Script(tuple(prompt), (*ids, self.ends[0]), (*kinds, "end"), strings)

    def _kind(self, before: str, said: str, at: int, values: list[tuple[int, int, str]]) -> str:
        controls = self.wire_format.controls
        if said == self.wire_format.opener:
            return "opener"
        if not before:
            return "start"
        if self.wire_format.opener and before.endswith(self.wire_format.opener):
            return "opened"
        for start, end, kind in values:
            if start <= at < end:
                return kind
        if said in controls:
            return "closer" if said == self.wire_format.closer else "control"
        if self.wire_format.closer and before.endswith(self.wire_format.closer):
            return "closed"
        return "structure" if not re.search(r"\w", said) else "key"


def _values(turn: Rendered) -> list[tuple[int, int, str]]:
    """Where the scalars of arguments stand, in bytes: strings without their quotes, and numbers."""
    found = []
    for place in turn.values():
        start, end = place.start + len(place.quote), place.end - len(place.quote)
        kind = "value" if place.quote or turn.text[start:end].strip("-.0123456789") else "number"
        before, until = (len(turn.text[:cut].encode()) for cut in (start, end))
        found.append((before, until, kind))
    return found


def in_order(case: Case, call: Mapping[str, Any]) -> dict[str, Any]:
    """A call with its arguments in the order of the schema, which some peers insist on."""
    schema = case.toolset[call["name"]].parameters
    return {"name": call["name"], "arguments": _ordered(call["arguments"], schema)}


def _ordered(value: Any, schema: Any) -> Any:
    if isinstance(value, list) and isinstance(schema, Mapping):
        return [_ordered(item, schema.get("items")) for item in value]
    if not isinstance(value, dict) or not isinstance(schema, Mapping):
        return value
    inner = schema.get("properties", {})
    keys = [*(key for key in inner if key in value), *(key for key in value if key not in inner)]
    return {key: _ordered(value[key], inner.get(key)) for key in keys}


@cache
def subject(wire_format: str, tokenizer: str) -> Subject:
    """A format with one of the real tokenizers of `../shared/data`, or the bundled one."""
    if tokenizer == "bundled":
        loaded = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
        return Subject(WireFormat.load(wire_format), loaded, len(loaded))
    return Subject(WireFormat.load(wire_format), real_tokenizer(tokenizer), SIZES[tokenizer])


@cache
def real_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """One of the real tokenizers of `../shared/data`."""
    with tempfile.TemporaryDirectory() as folder:
        for path in (DATA / "tokenizers" / name).iterdir():
            if path.suffix == ".xz":
                unpacked = lzma.decompress(path.read_bytes())
                (Path(folder) / path.stem).write_bytes(unpacked)
            else:
                shutil.copy(path, folder)
        return AutoTokenizer.from_pretrained(folder)


def sayable(
    subject: Subject, cases: Sequence[Case], longest: int = 160
) -> Iterator[tuple[Case, Script]]:
    """The cases whose right turn the format can say, in so many tokens, and reads back healthy."""
    for case in cases:
        try:
            script = subject.script(case)
        except toolguard.FormatError:
            continue
        turn = subject.guard(case).read(script.ids)
        if len(script.ids) <= longest and turn.state.startswith("healthy"):
            yield case, script
