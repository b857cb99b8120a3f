"""Token ids of a fixture: its own, where its tokenizer is at hand, or those of a stand-in."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass
from functools import cache

from tokenizers import Tokenizer
from transformers import AddedToken, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from toolguard import WireFormat

from ..real_data import DATA
from ..replay_scripts import real_tokenizer
from .cases import Case

TOKENIZERS = ("qwen3", "deepseek-v3", "gpt-oss", "mistral-7b-v0.3")
DSML = "\uff5cDSML\uff5c"
RENAMED = {
    "deepseek-v3.2": {128_793: DSML},
    "deepseek-v4": {128_821: "<think>", 128_822: "</think>", 128_825: DSML},
}
"""DeepSeek's newer models have the vocabulary of `deepseek-v3`, but for these ids."""
SPELLED = "ORDINARY"
"""What the notes of a fixture hold whose own ids spell the control tokens in its content."""


@dataclass(frozen=True)
class Ids:
    """A turn in token ids.

    Attributes:
        name: of the tokenizer.
        own: they are the fixture's own ids.
    """

    name: str
    tokenizer: PreTrainedTokenizerBase
    ids: list[int]
    own: bool


def at_hand() -> bool:
    """Whether there are tokenizers."""
    return (DATA / "tokenizers").is_dir()


def ids_of(case: Case) -> Ids:
    """The fixture's own ids where a tokenizer at hand says its text with them; else its text in the
    ids of Qwen3's vocabulary, which is given the format's control tokens."""
    ids = list(case.fixture.output_token_ids or ())
    for name in (*TOKENIZERS, *RENAMED):
        tokenizer = named(name)
        known = max(ids, default=0) < len(tokenizer)
        if known and tokenizer.decode(ids, skip_special_tokens=False) == case.fixture.raw_output:
            return Ids(name, tokenizer, ids, own=True)
    stand_in = with_controls("qwen3", case.wire_format)
    content = _content(case) if SPELLED in (case.fixture.notes or "") else []
    encoded: list[int] = []
    for part in _split(case.fixture.raw_output, content):
        spells = named("qwen3") if part in content else stand_in
        encoded += spells.encode(part, add_special_tokens=False)
    return Ids("qwen3+controls", stand_in, encoded, own=False)


def _content(case: Case) -> list[str]:
    """What the fixture expects of reasoning and arguments, as the turn writes it."""
    expected = case.fixture.expected
    assert expected is not None
    values = [value for call in expected.tool_calls for value in call.arguments.values()]
    words = [expected.reasoning_content, *(value for value in values if isinstance(value, str))]
    written = [form for word in words if word for form in (word, json.dumps(word)[1:-1])]
    return [word for word in dict.fromkeys(written) if word in case.fixture.raw_output]


def _split(text: str, parts: list[str]) -> list[str]:
    """A text in pieces, the parts apart."""
    if not parts:
        return [text]
    return [piece for piece in re.split(f"({'|'.join(map(re.escape, parts))})", text) if piece]


@cache
def named(name: str) -> PreTrainedTokenizerBase:
    """A tokenizer at hand, or one of `RENAMED`."""
    if name not in RENAMED:
        return real_tokenizer(name)
    base, texts = named("deepseek-v3"), RENAMED[name]
    made = json.loads(base.backend_tokenizer.to_str())
    first, vocabulary = len(base), made["model"]["vocab"]
    for token in range(first, max(first, *texts) + 1):
        made["added_tokens"].append({**made["added_tokens"][-1], "id": token, "content": ""})
    for token in made["added_tokens"]:
        place, text = token["id"], token["content"]
        if place in texts or place >= first or text in texts.values():
            token["content"] = texts.get(place, f"<|empty {place}|>")
            vocabulary.pop(text, None)
            vocabulary[token["content"]] = place
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(made)), eos_token=base.eos_token
    )


@cache
def with_controls(name: str, wire_format: WireFormat) -> PreTrainedTokenizerBase:
    """A tokenizer at hand that is given a format's control tokens, each one id."""
    made = copy.deepcopy(named(name))
    made.add_tokens([AddedToken(text, normalized=False) for text in wire_format.controls])
    return made
