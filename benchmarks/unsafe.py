"""When a call that was accepted from a message is unsafe: the same rule for whoever accepts it.

It knows nothing of how toolguard repairs: it looks at the message's text and at the tool's schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from toolguard import Toolset

Unsafe = Literal["unknown tool", "schema", "invented", "another speaker", "cut off"]

# A line that is a role word, a role's control token, a tool's answer: somebody else goes on. Not a
# word between an opener and a body: that is a slip in the model's own call.
_SPEAKER = re.compile(
    r"(?!(?<=<tool_call>)\s*\w+\s*[{\[])"
    r"(?:(?:^|\n)[ \t]*(?:user|assistant|system|tool)[ \t]*(?=\n|$)|(?:^|\n)execution result:"
    r"|<\|im_start\|>|<\|start_header_id\|>|</?tool_response>|</?tool_helper>)",
    re.IGNORECASE,
)
_TAGS = re.compile(r"</?tool_call>|<\|im_end\|>|\s")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_WORDS = {True: r"\b[Tt]rue\b", False: r"\b[Ff]alse\b", None: r"\b(?:null|None)\b"}


def unsafe(
    calls: Sequence[Mapping[str, Any]], source: str, toolset: Toolset
) -> list[tuple[Mapping[str, Any], Unsafe]]:
    """The calls of one message that should not have been accepted, and the first reason why.

    - `unknown tool`, `schema`: no such tool is offered, or the arguments fail its schema;
    - `invented`: its name, a key or a scalar does not stand in the message. Strings are looked for
      as they are and behind JSON's escapes (twice: arguments may be encoded twice), and not inside
      a longer word; numbers by value; true, false and null by JSON's and Python's words;
    - `another speaker`: all of that stands there, but not before the first role header or tool
      response that the model wrote; or the call was accepted more often than it stands before it.
      A header that the message begins with is none of these: nothing was said yet, and users write
      no calls, so it is a slip like a role word behind an opener;
    - `cut off`: a scalar of it is what the message ends with, tags and white space apart, so that
      nobody knows whether it was over.
    """
    found: list[tuple[Mapping[str, Any], Unsafe]] = []
    own = own_text(source)
    times: dict[str, int] = {}
    for call in calls:
        name, arguments = call["name"], call["arguments"]
        times[name] = times.get(name, 0) + 1
        if name not in toolset.names:
            found.append((call, "unknown tool"))
        elif toolset.errors(name, arguments):
            found.append((call, "schema"))
        elif not _stands(call, source):
            found.append((call, "invented"))
        elif not _stands(call, own) or _count(name, own) < times[name]:
            found.append((call, "another speaker"))
        elif any(_ends_with(scalar, own) for scalar in _scalars(arguments)):
            found.append((call, "cut off"))
    return found


def own_text(source: str) -> str:
    """A message up to where the model goes on as somebody else, or as itself a turn later."""
    for other in _SPEAKER.finditer(source):
        if re.search(r"\w", source[: other.start()]):
            return source[: other.start()]
    return source


def _stands(call: Mapping[str, Any], text: str) -> bool:
    readings = _readings(text)
    numbers = {float(number) for number in _NUMBER.findall(text)}
    return all(
        any(_count(scalar, reading) for reading in readings)
        if isinstance(scalar, str)
        else float(scalar) in numbers
        if isinstance(scalar, int | float) and not isinstance(scalar, bool)
        else re.search(_WORDS[scalar], text)
        for scalar in (call["name"], *_scalars(call["arguments"]))
    )


def _readings(text: str) -> list[str]:
    """A text as it is, and without one and two layers of JSON's escapes."""
    readings = [text]
    for _ in range(2):
        readings.append(re.sub(r'\\(?:u[0-9a-fA-F]{4}|["\\/bfnrt])', _unescaped, readings[-1]))
    return readings


def _unescaped(escape: re.Match[str]) -> str:
    return str(json.loads(f'"{escape[0]}"'))


def _count(word: str, text: str) -> int:
    """How often a string stands in a text, not inside a longer word."""
    before = r"(?<!\w)" if re.match(r"\w", word) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", word) else ""
    return len(re.findall(before + re.escape(word) + after, text))


def _scalars(value: Any) -> Iterator[Any]:
    """The keys and the scalars of a value; nothing stands for an empty string."""
    match value:
        case dict():
            for key, inner in value.items():
                yield key
                yield from _scalars(inner)
        case list():
            for inner in value:
                yield from _scalars(inner)
        case "":
            return
        case _:
            yield value


def _ends_with(scalar: Any, text: str) -> bool:
    """Whether a text ends with a scalar that nothing closes."""
    rest = _TAGS.sub("", text)
    spelled = scalar if isinstance(scalar, str) else json.dumps(scalar)
    escaped = json.dumps(spelled, ensure_ascii=False)[1:-1] if isinstance(scalar, str) else spelled
    forms = {_TAGS.sub("", form) for form in (spelled, escaped)} - {""}
    return any(rest.endswith(form) for form in forms)
