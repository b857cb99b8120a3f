"""Where in a turn a token stands, as far as control tokens are concerned."""

import json
import re
from collections.abc import Sequence
from typing import Literal

from transformers import PreTrainedTokenizerFast

from benchmarks.lab.tokenizer import CLOSER, OPENER, spell, token_ids

Region = Literal["turn_start", "after_opener", "in_call", "after_body", "after_closer", "text"]
REGIONS: tuple[Region, ...] = (
    "turn_start", "after_opener", "in_call", "after_body", "after_closer", "text",
)  # fmt: skip

LEAF = re.compile(r'"[^"]*":|"([^"]*)"|(?<=[ \[])(-?\d[\d.]*|true|false)')
"""A key, or a value that is not a container (one of the groups), in json.dumps style."""


def regions(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> list[Region]:
    """The region before each token of a turn: what is known when that token is chosen.

    `after_opener` lasts until the call body starts, `after_body` from where the body is complete
    JSON, which is where the closer belongs.
    """
    opener, closer = token_ids(tokenizer, (OPENER, CLOSER))
    region: Region = "turn_start"
    body: list[int] = []
    found: list[Region] = []
    for token in ids:
        found.append(region)
        if token == opener:
            region, body = "after_opener", []
        elif token == closer:
            region = "after_closer"
        elif region in ("after_opener", "in_call", "after_body"):
            body.append(token)
            text = spell(tokenizer, body)
            if complete(text):
                region = "after_body"
            else:
                region = "in_call" if text.strip() else "after_opener"
        elif region == "turn_start" or spell(tokenizer, [token]).strip():
            region = "text"
    return found


def complete(text: str) -> bool:
    if not text.rstrip().endswith("}"):
        return False
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def value_tokens(tokenizer: PreTrainedTokenizerFast, text: str) -> list[bool]:
    """For each token of a right turn, whether it carries a name or a value of a call."""
    spans = [match.span(match.lastindex) for match in LEAF.finditer(text) if match.lastindex]
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    return [any(start < right and left < end for left, right in spans) for start, end in offsets]
