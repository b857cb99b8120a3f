"""Repair on real messages of models that reinforcement learning damaged."""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Iterator
from typing import Any

import pytest

import toolguard
from benchmarks.real_data import DATA
from toolguard import Repair, Toolset

MESSAGES = DATA / "transcripts_dev.jsonl.xz"
pytestmark = pytest.mark.skipif(not MESSAGES.is_file(), reason=f"no {MESSAGES}: set TOOLGUARD_DATA")

Row = dict[str, Any]


@pytest.fixture(scope="module")
def repaired() -> list[tuple[Row, Repair]]:
    with lzma.open(DATA / "transcripts_dev_tools.json.xz", "rt") as file:
        toolsets = {name: Toolset.of(tools) for name, tools in json.load(file).items()}
    with lzma.open(MESSAGES, "rt") as file:
        rows = [json.loads(line) for line in file]
    known: dict[tuple[str, str], Repair] = {}
    for row in rows:
        key = row["toolset"], row["text"]
        if key not in known:
            known[key] = toolguard.repair(row["text"], toolsets[row["toolset"]], "hermes")
    return [(row, known[row["toolset"], row["text"]]) for row in rows]


def test_healthy_messages_come_back_byte_for_byte(repaired: list[tuple[Row, Repair]]) -> None:
    changed = set()
    for row, repair in repaired:
        if row["state"].startswith("healthy") and not repair.before.faults:
            assert repair.confidence == "exact"
            if repair.text != row["text"]:
                changed.add(row["text"])
    # Labelled as text by rule, and all of it a call as Python writes it: rerouted.
    assert all(re.fullmatch(r"\[\w+\(.*\)\]", text) for text in changed)
    assert len(changed) <= 7


def test_nothing_is_invented(repaired: list[tuple[Row, Repair]]) -> None:
    emitted = 0
    for row, repair in repaired:
        readings = [row["text"], re.sub(r"\\(.)", r"\1", row["text"])]
        for call in repair.after.calls:
            for said in (call.name, *scalars(call.arguments)):
                emitted += 1
                word = said if isinstance(said, str) else json.dumps(said)
                words = [word, word.title(), {"null": "None"}.get(word, word)]
                assert any(w in reading for w in words for reading in readings), (said, row["id"])
    assert emitted > 5000


def scalars(value: Any) -> Iterator[Any]:
    match value:
        case dict():
            for key, inner in value.items():
                yield key
                yield from scalars(inner)
        case list():
            for inner in value:
                yield from scalars(inner)
        case _:
            yield value


def test_untagged_calls_and_calls_with_role_tokens_are_recovered(
    repaired: list[tuple[Row, Repair]],
) -> None:
    untagged = [repair for row, repair in repaired if row["flags"] == ["untagged_json_call"]]
    assert len(untagged) >= 20
    assert sum(bool(repair.after.calls) for repair in untagged) >= len(untagged) - 1
    role = [
        repair
        for row, repair in repaired
        if re.match(r'<tool_call>\n(user|assistant)\{"name": .*\}\}\n</tool_call>$', row["text"])
        and "bad_arguments" not in {fault.kind for fault in repair.before.faults}
    ]
    assert len(role) >= 5
    assert all(repair.after.calls for repair in role)


def test_what_stays_corrupt_says_why(repaired: list[tuple[Row, Repair]]) -> None:
    refused = [repair for _, repair in repaired if repair.confidence == "refused"]
    assert len(refused) > 500
    for repair in refused:
        assert repair.before.faults
        assert repair.reason
        assert "\n" not in repair.reason
    assert not any(repair.confidence == "ambiguous" for _, repair in repaired)
