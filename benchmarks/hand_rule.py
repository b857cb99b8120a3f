"""Which corrupt messages hold a call that a careful reader would recover: the base of recall.

Written for these transcripts alone, and apart from toolguard's repair. Whoever recovers more than
this finds is not punished for it, but gains no recall either.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from toolguard import Toolset

from .unsafe import own_text, unsafe

_JUNK = re.compile(r"\s*(?:user|assistant|system|tool|[>!:=])?\s*")
_REWRITES: tuple[Callable[[str], str], ...] = (
    str,
    lambda body: re.sub(r"[\u201c\u201d\u2018\u2019]", '"', body),
    lambda body: re.sub(r'"=\s*"', '": "', body),
    lambda body: re.sub(r'"(\w+)=([^"]*)"', r'"\1": "\2"', body),
    lambda body: re.sub(r"\)+\s*$", "}", body),
)
"""Applied one after the other; after each, the body may be JSON."""


def recoverable(source: str, toolset: Toolset) -> list[dict[str, Any]]:
    """The calls of a message, or none.

    Up to where somebody else speaks (`own_text`), each tagged body, or the whole text without tags,
    is one JSON object, or is one after at most: dropping one role word or sign before it; straight
    quotes for curly ones; `:` for `=`; `}` for `)`; up to two `}` at the end; arguments that are
    flattened, or encoded twice, put back. All of them must be offered, satisfy their schemas, and
    be safe (`unsafe`): one bad call, and the message counts as not recoverable.
    """
    text = own_text(source)
    calls = []
    for body in _bodies(text):
        call = next(filter(None, map(_call, _readings(body))), None)
        if call is None:
            return []
        calls.append(call)
    return [] if unsafe(calls, source, toolset) else calls


def _bodies(text: str) -> Iterator[str]:
    """What stands for a call each: not the openers with nothing but junk behind them."""
    parts = text.split("<tool_call>")
    tagged = [part.partition("</tool_call>")[0] for part in parts[1:]]
    for body in tagged or text.split("</tool_call>"):
        if not _JUNK.fullmatch(body):
            junk = _JUNK.match(body)
            yield body[junk.end() if junk else 0 :].strip()


def _readings(body: str) -> Iterator[Any]:
    for rewrite in _REWRITES:
        body = rewrite(body)
        for closing in ("", "}", "}}"):
            try:
                yield json.loads(body + closing)
            except ValueError:
                continue


def _call(value: Any) -> dict[str, Any] | None:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    flattened = {key: inner for key, inner in value.items() if key != "name"}
    if not flattened:
        return None
    arguments = value.get("arguments", flattened)
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return None
    return {"name": value["name"], "arguments": arguments}
