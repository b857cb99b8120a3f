"""Text that is a call and nothing else, well-formed or not, in no format's frame.

Prose that shows a call has a fence around it, words in front of it that point to it, or words
behind it: it stays prose.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ..tools.toolset import Toolset
from .faults import open_bracket

_FRAME = r"(?:</?[\w|:/ -]{1,40}>|[_\[]{0,2}\w{0,20}(?:call|tool)\w{0,20}[_\]:]{0,2})"
"""What stands in the place of a control token: a tag, or a word about calls."""
_OPEN = re.compile(rf"\s*{_FRAME}\s*(?=[\[{{])")
_SIGNS = re.compile(r"""\s*(?:"\w{1,20}"|[,;:=)\[\]{}('"]{1,4})\s*(?=[\[{])""")
"""What may stand there that is neither: signs, or a field of JSON."""
_CLOSE = re.compile(rf"(?<=[\]}}])\s*{_FRAME}\s*\Z")
_BETWEEN = re.compile(rf"(?:[\s,;\]}}]|{_FRAME})*")
_LINE = re.compile(r"\n[ \t]*(?=\[?\{)")
"""Where a line begins as JSON does."""
_NAMES = ("name", "function", "tool", "tool_name")
_ARGUMENTS = frozenset({"arguments", "parameters", "args"})
_LONGEST = 20_000
_DECODER = json.JSONDecoder(strict=False)


def is_bare(text: str, toolset: Toolset) -> bool:
    """Whether a text without a control token is a call to an offered tool, or several, or what a
    broken one leaves."""
    if len(text) > _LONGEST:
        return False
    framed = _OPEN.match(text) or _SIGNS.match(text)
    start = framed.end() if framed else 0
    closing = _CLOSE.search(text, start, len(text)) if framed else None
    body = text[start : closing.start() if closing else len(text)].strip()
    return _are_objects(body, toolset) or _is_expression(body, toolset)


def ends_bare(text: str, toolset: Toolset) -> bool:
    """Whether a text ends in such a call on lines of its own, to which its words do not point as to
    an example: no colon is in front of it, and no fence around it."""
    if len(text) > _LONGEST:
        return False
    for line in _LINE.finditer(text):
        before, body = text[: line.start()].rstrip(), text[line.end() :].strip()
        shown = before.endswith((":", "\uff1a")) or before.count("```") % 2
        if before and not shown and _are_objects(body, toolset):
            return True
    return False


def _is_expression(body: str, toolset: Toolset) -> bool:
    """Whether a text is a call as Python writes it, with some of its tool's arguments by name."""
    name, bracket, rest = body.partition("(")
    if name not in toolset.names or not bracket:
        return False
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
        return False
    given = {keyword.arg for keyword in call.keywords}
    return bool(given) and given <= toolset[name].keys


def _are_objects(body: str, toolset: Toolset) -> bool:
    at, head = 0, _head(toolset.names)
    while at < len(body):
        try:
            value, end = _DECODER.raw_decode(body, at)
        except (ValueError, RecursionError):
            # nothing is behind what cannot be read: it breaks off, or ends as an object does
            broken = body[-1] in "}]" or bool(open_bracket(body[at:]))
            return head.match(body, at) is not None and broken
        items = value if isinstance(value, list) and value else [value]
        if not all(_is_call(item, toolset) for item in items):
            return False
        between = _BETWEEN.match(body, end)
        at = between.end() if between else end
    return bool(body)


@lru_cache(maxsize=256)
def _head(names: tuple[str, ...]) -> re.Pattern[str]:
    """How a call begins, as an object that names its tool first."""
    named = "|".join(map(re.escape, names))
    return re.compile(rf'\[?\s*\{{\s*"(?:{"|".join(_NAMES)})"\s*:\s*"(?:{named})"\s*(?:[,}}]|\Z)')


def _is_call(value: Any, toolset: Toolset) -> bool:
    """Whether an object is a call, perhaps without its arguments, or with them beside the name; no
    definition of a tool, and nothing that only has a name."""
    if not isinstance(value, dict):
        return False
    key = next((key for key in _NAMES if isinstance(value.get(key), str)), None)
    if key is None or value[key] not in toolset.names:
        return False
    tool = toolset[value[key]]
    if not value.keys() <= {key, "type", "id", *_ARGUMENTS, *tool.keys}:
        return False
    given = [value[each] for each in _ARGUMENTS & value.keys()]
    return not any(
        isinstance(each, Mapping) and "properties" in each.keys() - tool.keys for each in given
    )
