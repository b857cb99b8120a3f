"""What is told of the guarded requests of an engine: figures, the log, drift. No vLLM is needed."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

import toolguard
from toolguard import Case, Drift, Profile, WireFormat
from toolguard.integrations.vllm.request import GuardRequest
from toolguard.integrations.vllm.seats import Seats
from toolguard.integrations.vllm.stats import OTHER, Stats, added, engine_of

LOGGER = logging.getLogger("toolguard.tests")


@pytest.fixture(scope="module")
def case() -> Case:
    return next(case for case in toolguard.held_out() if case.calls)


def run(
    tokenizer: PreTrainedTokenizerBase,
    case: Case,
    drift: Drift | None = None,
    **options: Any,
) -> Seats:
    """One turn as an engine would have it guarded: a model that wants to stop at once, and else to
    make the right calls."""
    seats = Seats(tokenizer, LOGGER, drift, **options)
    hermes = WireFormat.load("hermes")
    end = tokenizer.eos_token_id
    script = [*tokenizer(toolguard.render(hermes, case.calls))["input_ids"], end]
    ids: list[int] = []
    request = GuardRequest.checked(hermes, case.toolset.definitions)
    seats.enter(0, "r1", request, ids, stops=[end], prompt=[])
    assert seats.figures()["live"] == 1
    for token in script:
        logits = torch.zeros(1, len(tokenizer))
        logits[0, token], logits[0, end] = 10.0, 12.0
        seats.hold([(0, 0, [])], logits)
        ids.append(int(logits.argmax()))
    assert ids == script
    state = seats[0].state
    assert state is not None
    assert (state.steps is None) == (drift is None or drift.profile.wire_format != "hermes")
    seats.leave(0)
    return seats


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("INFO", LOGGER.name)
    return caplog


def test_the_log_has_no_text_unless_it_is_asked_for(
    tokenizer: PreTrainedTokenizerBase,
    case: Case,
    said: pytest.LogCaptureFixture,
) -> None:
    run(tokenizer, case)
    run(tokenizer, case, log_text=True)
    silent, told = (json.loads(text.split("intervened: ")[1]) for text in said.messages)
    assert told.pop("text").startswith("<tool_call>")
    assert silent == told
    assert silent["interventions"]
    name = case.calls[0]["name"]
    assert name not in said.messages[0]


def test_a_turn_is_counted(tokenizer: PreTrainedTokenizerBase, case: Case) -> None:
    found = run(tokenizer, case).figures()
    assert (found["live"], found["turns"], found["intervened"], found["left"]) == (0, 1, 1, 0)
    assert found["compiled"] == 1
    assert found["steps"] > 10
    assert 0 < found["fill_seconds"] < found["step_seconds"]
    assert sum(found["interventions"]["mask"].values()) >= 1
    assert set(found["interventions"]["mask"]) <= {"<|im_end|>", OTHER}
    assert json.loads(json.dumps(found)) == found


def test_a_turn_whose_row_another_one_takes_is_counted(
    tokenizer: PreTrainedTokenizerBase, case: Case
) -> None:
    seats = Seats(tokenizer, LOGGER)
    request = GuardRequest.checked(WireFormat.load("hermes"), case.toolset.definitions)
    for row in range(3):
        seats.enter(row, f"r{row}", request, [], stops=[2], prompt=[])
    seats.hold([(row, row, []) for row in seats], torch.zeros(3, len(tokenizer)))
    seats.move(2, 0, swap=False)
    seats.move(0, 1, swap=True)
    assert [*seats] == [0, 1]
    assert (seats[1].name, seats.figures()["turns"]) == ("r2", 1)


def test_drift_sees_every_turn_of_the_profile(
    tokenizer: PreTrainedTokenizerBase,
    case: Case,
    said: pytest.LogCaptureFixture,
) -> None:
    drift = Drift(Profile.of(WireFormat.load("hermes"), tokenizer), run_length=1)
    found = run(tokenizer, case, drift).figures()
    assert (drift.turns, found["alarms"]) == (1, 0)
    assert found["drift"] == drift.statistic > 0
    assert sum(run(tokenizer, case, drift).figures()["alarms"] for _ in range(4)) >= 1
    assert "the format is drifting" in said.text
    # It knows nothing of how other formats are written.
    other = Drift(Profile.of(WireFormat.load("kimi_k2"), tokenizer), run_length=1)
    assert run(tokenizer, case, other).figures()["alarms"] == other.turns == 0


def test_a_profile_that_lacks_a_token_does_not_stop_the_engine(
    tokenizer: PreTrainedTokenizerBase,
    case: Case,
    said: pytest.LogCaptureFixture,
) -> None:
    profile = Profile.of(WireFormat.load("hermes"), tokenizer)
    profile.controls = ("<tool_call>",)
    assert run(tokenizer, case, Drift(profile)).figures()["turns"] == 1
    assert "no longer looking for drift" in said.text


def test_figures_of_engines_are_added_up() -> None:
    one, other = Stats(), Stats()
    one.read(0.3, {"<a>": 0.5})
    other.read(3.0, {"<a>": 0.995, "<b>": 0.02})
    one.turns, other.turns, one.drift, other.drift = 2, 3, 0.5, 7.0
    total = added([one.to_json(1), other.to_json(2)])
    assert (total["live"], total["turns"], total["drift"]) == (3, 5, 7.0)
    assert total["pressure"]["sum"] == pytest.approx(3.3)
    assert sum(total["pressure"]["counts"]) == 2
    assert {token: sum(found["counts"]) for token, found in total["masses"].items()} == {
        "<a>": 2, "<b>": 1,
    }  # fmt: skip
    other.steps = 4
    # one that has no processor, one that does not sample, one that does
    assert engine_of([None, one.to_json(0), other.to_json(0)]) == other.to_json(0)
    assert engine_of([None]) is None


def test_a_turn_ends_only_where_the_engine_stops(
    tokenizer: PreTrainedTokenizerBase, case: Case
) -> None:
    request = GuardRequest.checked(WireFormat.load("hermes"), case.toolset.definitions)
    added = tokenizer.get_added_vocab()
    end, text = added["<|im_end|>"], added["<|endoftext|>"]
    for stops, ends in (([end, text], {end, text}), ([end, 7], {end}), ([text, 7], {text})):
        assert {*request.guard(tokenizer, stops).vocabulary.end_ids} == ends


def test_no_call_is_made_up_at_the_end_of_a_budget(
    tokenizer: PreTrainedTokenizerBase, case: Case
) -> None:
    """The engine stops, and says so; up to there a turn is the model's."""
    hermes, end = WireFormat.load("hermes"), tokenizer.eos_token_id
    request = GuardRequest.checked(hermes, case.toolset.definitions, "required")
    script = [*tokenizer(toolguard.render(hermes, case.calls[:1]))["input_ids"], end]
    seats, ids = Seats(tokenizer, LOGGER), list[int]()
    seats.enter(0, "r1", request, ids, stops=[end], prompt=[])
    for token in script:
        logits = torch.zeros(1, len(tokenizer))
        logits[0, token] = 10.0
        seats.hold([(0, 0, [])], logits)
        ids.append(int(logits.argmax()))
    assert ids == script
    state = seats[0].state
    assert state is not None
    assert state.cut is None
    whole = state.guard.read(ids).calls
    for budget in range(len(script)):
        assert state.guard.read(ids[:budget]).calls in ((), whole)
