"""Throws whatever a coverage-guided fuzzer thinks of at `toolguard.repair`.

`python -m benchmarks.fuzz [--seconds 60] [--format hermes]` (atheris, extra `fuzz`; Linux). It
fails, with the input in the message, if a repair raises, gives back a name, a key or a string that
the input does not say, changes a second time what it has repaired, or takes more CPU time than a
bound that is linear in the input.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import atheris

with atheris.instrument_imports(include=["toolguard.repair", "toolguard.parsing"]):
    import toolguard

TOOLS: list[dict[str, Any]] = [
    {
        "name": "go",
        "parameters": {
            "type": "object",
            "properties": {
                "to": {"type": "string"},
                "n": {"type": "integer"},
                "o": {"type": "object"},
            },
        },
    },
    {"name": "ping"},
]
CALL = {"name": "go", "arguments": {"to": "a b", "n": 12, "o": {"k": [True]}}}
SECONDS, PER_KILOBYTE = 5.0, 1.0
"""What a repair may take: the bound is far from what it takes, and near to what is not linear."""


def main() -> None:
    seconds, name = 60, "hermes"
    for option, value in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        if option == "--seconds":
            seconds = int(value)
        elif option == "--format":
            name = value
        else:
            sys.exit(f"unknown option {option}: use --seconds or --format")
    wire_format = toolguard.WireFormat.load(name)
    toolset = toolguard.Toolset.of(TOOLS)
    whole = toolguard.render(wire_format, [CALL])
    pieces = [*wire_format.controls, *re.findall(r"\w+|\W", whole), "user\n", "\u201c"]

    def one(data: bytes) -> None:
        text = spelled(data, pieces, whole)
        started = time.process_time()
        repair = toolguard.repair(text, toolset, wire_format)
        spent = time.process_time() - started
        assert spent < SECONDS + PER_KILOBYTE * len(text) / 1000, (spent, text)
        for call in repair.after.calls:
            for said in (call.name, *strings(call.arguments)):
                assert occurs(said, text), (said, text)
        if repair.edits:
            assert toolguard.repair(repair.text, toolset, wire_format).text == repair.text, text

    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-max_len=256"], one)
    atheris.Fuzz()


def spelled(data: bytes, pieces: list[str], whole: str) -> str:
    """Bytes as text: pieces of a call, cuts of a whole one, characters."""
    source = atheris.FuzzedDataProvider(data)
    said: list[str] = []
    while source.remaining_bytes() and len(said) < 64:
        match source.ConsumeIntInRange(0, 3):
            case 0:
                said.append(source.ConsumeUnicodeNoSurrogates(4))
            case 1:
                start = source.ConsumeIntInRange(0, len(whole))
                said.append(whole[start : start + source.ConsumeIntInRange(0, len(whole))])
            case _:
                said.append(source.PickValueInList(pieces))
    return "".join(said)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


def occurs(said: str, text: str) -> bool:
    """Its words stand there in order: quotes and escapes may have been mended."""
    words = re.findall(r"[^\W_]+", said)
    return re.search(r"[\W_]*".join(map(re.escape, words)), text) is not None


if __name__ == "__main__":
    main()
