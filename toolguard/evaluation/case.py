"""An evaluation case: a request, and what a healthy model does with it.

A case file is JSONL, one object a line:

- `tools`: the tools offered, OpenAI style.
- `messages`: the conversation, OpenAI style; it may hold calls and their results.
- `calls`: the expected calls (`name`, `arguments`) in order; empty where none is needed.
- `id`: a name, unique in the file; the number of the line unless given.
- `kind`: what sort of request it is, for grouping.
- `reply`: the expected reply where no call is needed; null if any healthy one will do.
- `acceptable`: what else is right, one object for each expected call: `arguments` (name -> list of
  acceptable values, besides the expected one) and `omittable` (the arguments that may be left out).
  An argument that stands there and not in the expected call must be omittable.
- `order`: `given` (the default), or `any` for calls whose order does not matter.

`expected_calls` and `category` are read as `calls` and `kind`; fields of other names are ignored.
Values are compared as JSON values: 1 is 1.0 and is not true. A call that its own tool's schema
refuses is no expected call: the line is refused, or left out where it says `schema_valid: false`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import CaseError, ToolsetError
from ..tools.toolset import Toolset

ORDERS = ("given", "any")


@dataclass(frozen=True)
class Acceptable:
    """What else is right where one call is expected.

    Attributes:
        arguments: acceptable values of an argument, besides the expected one.
        omittable: the arguments that may be left out.
    """

    arguments: Mapping[str, tuple[Any, ...]]
    omittable: frozenset[str]


@dataclass(frozen=True)
class Case:
    """One line of a case file.

    Attributes:
        id: its name, unique in the file.
        kind: what sort of request it is, for grouping.
        toolset: the tools offered.
        messages: the conversation, OpenAI style.
        calls: the expected calls in order (`name`, `arguments`); empty where none is needed.
        reply: the expected reply where no call is needed; None if any healthy one will do.
        acceptable: what else is right, for each expected call; empty if nothing else is.
        order: `given`, or `any` if the order of the calls does not matter.
    """

    id: str
    kind: str
    toolset: Toolset
    messages: tuple[Mapping[str, Any], ...]
    calls: tuple[Mapping[str, Any], ...]
    reply: str | None
    acceptable: tuple[Acceptable, ...] = ()
    order: str = "given"


class Cases(list[Case]):
    """Cases that were read.

    Attributes:
        left_out: how many were left out, by reason.
    """

    def __init__(self, cases: Iterable[Case] = (), left_out: Mapping[str, int] | None = None):
        super().__init__(cases)
        self.left_out = Counter(left_out or {})


def case_of(row: Mapping[str, Any], place: str, number: int) -> Case:
    """The case of one line.

    Raises:
        CaseError: it is broken; the message begins with `place`.
    """
    calls = row.get("calls", row.get("expected_calls"))
    if not row.keys() >= {"tools", "messages"} or calls is None:
        raise CaseError(f"{place}: a case is an object with 'tools', 'messages' and 'calls'")
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        raise CaseError(f"{place}: 'messages' is no list of messages")
    if not all(isinstance(message, dict) and "role" in message for message in messages):
        raise CaseError(f"{place}: each of 'messages' is an object with 'role' and 'content'")
    try:
        toolset = Toolset.of(row["tools"])
    except (ToolsetError, TypeError) as error:
        raise CaseError(f"{place}: {error}") from error
    if not isinstance(calls, list) or not all(
        isinstance(call, dict) and call.keys() >= {"name", "arguments"} for call in calls
    ):
        raise CaseError(f"{place}: 'calls' is no list of objects with 'name' and 'arguments'")
    for call in calls:
        if not isinstance(call["arguments"], dict):
            given = type(call["arguments"]).__name__
            raise CaseError(f"{place}: 'arguments' of a call is {given}: give an object")
    order = row.get("order", "given")
    if order not in ORDERS:
        raise CaseError(f"{place}: 'order' is {order!r}: give 'given' or 'any'")
    reply = row.get("reply")
    if reply is not None and not isinstance(reply, str):
        raise CaseError(f"{place}: 'reply' is {type(reply).__name__}: give text or null")
    case = Case(
        str(row.get("id", number)),
        str(row.get("kind", row.get("category", ""))),
        toolset,
        tuple(messages),
        tuple(calls),
        reply,
        tuple(_acceptable(row.get("acceptable") or [], calls, place)),
        order,
    )
    if fault := fault_of(case):
        raise CaseError(f"{place}: {fault}; mend the call or the tool")
    return case


def fault_of(case: Case) -> str:
    """Why no model that keeps to the tools can make the expected calls; empty if one can."""
    for call in case.calls:
        if call["name"] not in case.toolset.names:
            return f"the expected call names {call['name']!r}, which is not among the tools"
        if errors := case.toolset.errors(call["name"], call["arguments"]):
            return f"the expected call of {call['name']!r} violates its schema: {errors[0]}"
    return ""


def _acceptable(entries: Any, calls: list[dict[str, Any]], place: str) -> Iterable[Acceptable]:
    if not isinstance(entries, list) or len(entries) not in (0, len(calls)):
        raise CaseError(f"{place}: 'acceptable' is no list with one object for each expected call")
    for entry, call in zip(entries, calls, strict=False):
        if not isinstance(entry, dict):
            raise CaseError(f"{place}: an entry of 'acceptable' is no object")
        arguments, omittable = entry.get("arguments", {}), entry.get("omittable", [])
        if not isinstance(arguments, dict) or not all(
            isinstance(values, list) for values in arguments.values()
        ):
            raise CaseError(f"{place}: 'arguments' of 'acceptable' are no lists of values by name")
        if not isinstance(omittable, list) or not all(isinstance(n, str) for n in omittable):
            raise CaseError(f"{place}: 'omittable' is no list of names of arguments")
        for name in arguments:
            if name not in call["arguments"] and name not in omittable:
                raise CaseError(
                    f"{place}: the expected call leaves out {name!r}, which has acceptable values: "
                    "give it a value there, or name it in 'omittable'"
                )
        yield Acceptable(
            {name: tuple(values) for name, values in arguments.items()}, frozenset(omittable)
        )


def fingerprint_of(cases: Iterable[Case]) -> str:
    """Changes when what the cases ask does, or what is right."""
    content = [
        [
            case.id,
            case.messages,
            case.toolset.definitions,
            case.calls,
            case.reply,
            [[dict(one.arguments), sorted(one.omittable)] for one in case.acceptable],
            case.order,
        ]
        for case in cases
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
