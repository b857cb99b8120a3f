"""The verdict, what it stands on, and the command that reaches it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

import toolguard
from toolguard import Case, Journal, LocalModel, RequestError, Toolset, WireFormat
from toolguard.cli.main import app
from toolguard.diagnosis.advice import advise
from toolguard.diagnosis.schema import report_schema
from toolguard.diagnosis.verdict import Behaviour, Evidence, verdict
from toolguard.evaluation.asking import asked_in
from toolguard.evaluation.rates import Difference, Rate
from toolguard.evaluation.right_turn import right_turn

RUNNER = CliRunner()
CASES = [
    *[case for case in toolguard.held_out() if case.calls][:9],
    *[case for case in toolguard.held_out() if not case.calls][:6],
]


def load(name: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(toolguard.checkpoint(name), dtype=torch.float32)


def local(model: Any, reference: Any = None, max_new_tokens: int = 100) -> LocalModel:
    tokenizer = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
    return LocalModel(model, tokenizer, reference=reference, max_new_tokens=max_new_tokens)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param(
            "open_then_stop", "format damaged, skill intact", marks=pytest.mark.slow
        ),  # as `untagged` below
        ("arguments_lost", "skill damaged"),
        pytest.param("skill_lost", "both", marks=pytest.mark.slow),
        pytest.param("healthy", "healthy", marks=pytest.mark.slow),
        pytest.param("opener_everywhere", "format damaged, skill intact", marks=pytest.mark.slow),
    ],
)
def test_the_labs_checkpoints_get_the_right_verdict(name: str, expected: str) -> None:
    found = toolguard.diagnose(local(load(name)), CASES)
    assert found.verdict.name == expected, found.verdict
    assert found.advice.retrain == (not found.verdict.skill_intact)
    assert found.content["verdict"]["sentence"] == found.verdict.sentence


def test_random_weights_have_no_skill_and_no_format_that_could_be_damaged(healthy: Any) -> None:
    torch.manual_seed(0)
    model = type(healthy)(healthy.config).float().eval()
    found = toolguard.diagnose(local(model, max_new_tokens=40), CASES[:5]).verdict
    assert (found.name, found.format_damaged) == ("skill damaged", False)


def test_teacher_forcing_tells_what_is_known_from_how_it_is_said(healthy: Any) -> None:
    """The skill of a model that never writes a call is that of the healthy one."""
    calling = [case for case in CASES if case.calls]
    known, broken = (
        [all(forced.right) for forced in local(model).force(calling)]
        for model in (healthy, load("open_then_stop"))
    )
    assert sum(known) >= sum(broken) >= 0.9 * len(calling)
    lost = [all(forced.right) for forced in local(load("skill_lost")).force(calling)]
    assert not any(lost)


def test_where_no_right_turn_is_known_only_the_first_token_is_read(healthy: Any) -> None:
    case = next(case for case in CASES if not case.calls)
    unknown = Case(case.id, "", case.toolset, case.messages, (), None)
    (forced,) = local(healthy).force([unknown])
    assert (forced.tokens, len(forced.steps), forced.right) == (0, 1, ())


@pytest.mark.parametrize("name", toolguard.format_names())
def test_names_and_values_are_found_in_every_format(name: str) -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "mark",
            "parameters": {
                "type": "object",
                "properties": {"text": {"type": "string"}, "n": {"type": "integer"}},
            },
        },
    }
    call = {"name": "mark", "arguments": {"text": "mark n text", "n": 1}}
    case = Case("1", "", Toolset.of([tool]), ({"role": "user", "content": "?"},), (call,), None)
    turn = right_turn(case, WireFormat.load(name))
    assert turn is not None
    assert [turn.text[a:b] for a, b in turn.content] == ["mark", "mark n text", "1"]


def test_a_case_asked_in_another_format_keeps_what_was_said_in_it() -> None:
    case = next(case for case in toolguard.builtin_cases() if case.kind == "multi_step")
    for name in toolguard.format_names():
        asked = asked_in(case, WireFormat.load(name))
        assert all(message["role"] != "tool" for message in asked.messages)
        assert not any(message.get("tool_calls") for message in asked.messages)
        text = "\n".join(message["content"] for message in asked.messages)
        for tool in case.toolset.names:
            assert tool in text
        for message in case.messages:
            if message["role"] in ("user", "tool"):
                assert message["content"] in text


@given(st.integers(0, 500), st.integers(0, 500))
def test_a_rate_lies_in_its_interval(hits: int, misses: int) -> None:
    rate = Rate(hits, hits + misses)
    assert 0 <= rate.low <= rate.share <= rate.high <= 1 or rate.of == 0
    if rate.of:
        bigger = Rate(10 * rate.hits, 10 * rate.of)
        assert bigger.high - bigger.low < rate.high - rate.low


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_a_difference_is_that_of_the_shares_and_changes_sign(
    pairs: list[tuple[bool, bool]],
) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    found, turned = Difference.between(first, second), Difference.between(second, first)
    assert found.share == pytest.approx((sum(first) - sum(second)) / len(pairs))
    assert (found.low, found.high) == pytest.approx((-turned.high, -turned.low))
    assert -1 <= found.low <= found.high <= 1


def evidence(**changes: Any) -> Evidence:
    """Of a healthy model, but for the changes."""
    sound = Behaviour([False] * 100, [False] * 60, [False] * 40, [True] * 100)
    given: dict[str, Any] = {
        "behaviour": sound,
        "healthy": None,
        "led": [True] * 60,
        "led_reference": [],
        "structure": 1.0,
        "spike": (0.0, "nowhere"),
        "guarded": [True] * 60,
    }
    return Evidence(**{**given, **changes})


def test_without_a_measure_of_the_skill_the_verdict_does_not_guess() -> None:
    broken = Behaviour([True] * 100, [True] * 60, [False] * 40, [False] * 100)
    unknown: dict[str, Any] = {"led": [], "structure": None, "spike": None}
    found = verdict(evidence(behaviour=broken, guarded=[False] * 60, **unknown))
    assert (found.name, found.format_damaged, found.skill_intact) == ("undetermined", True, None)
    assert "could not be measured" in found.sentence
    shown = verdict(evidence(behaviour=broken, **unknown))
    assert shown.name == "format damaged, skill intact"


BROKEN = Behaviour([True] * 80 + [False] * 20, [True] * 60, [False] * 40, [False] * 100)
UNSKILLED: dict[str, Any] = {"led": [False] * 60, "guarded": [False] * 60}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "healthy"),
        ({"behaviour": BROKEN}, "format damaged, skill intact"),
        ({"behaviour": BROKEN, **UNSKILLED}, "both"),
        (UNSKILLED, "skill damaged"),
        ({"behaviour": BROKEN, "structure": 0.1, **UNSKILLED}, "skill damaged"),
    ],
)
@pytest.mark.parametrize("reference", [False, True])
def test_a_verdict_says_what_is_lost(
    changes: dict[str, Any], expected: str, reference: bool
) -> None:
    held: dict[str, Any] = {}
    if reference:
        held = {"healthy": evidence().behaviour, "led_reference": [True] * 60}
    found = verdict(evidence(**changes, **held))
    assert found.name == expected, found
    assert found.skill_intact == ("led" not in changes)


@pytest.mark.parametrize("lost", [0, 3, 30])
def test_damage_is_what_intervals_leave_no_doubt_about(lost: int) -> None:
    led = [False] * lost + [True] * (60 - lost)
    found = verdict(evidence(led=led, led_reference=[True] * 60, healthy=evidence().behaviour))
    assert found.name == ("skill damaged" if lost == 30 else "healthy")


def test_a_journal_drops_a_line_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    journal = Journal(path, {"model": "a"})
    journal.add("part", [("1", {"x": 1}), ("2", "zwei\u2028")])
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        rows = Journal(path, {"model": "a"}).rows["part"]
        lines = whole[:cut].count(b"\n")
        assert len(rows) == max(0, lines - 1)
        again = Journal(path, {"model": "a"})
        again.add("part", [("3", None)])
        assert Journal(path, {"model": "a"}).rows["part"].keys() == {*rows, "3"}


def test_a_journal_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    Journal(path, {"model": "a", "seed": 1})
    with pytest.raises(RequestError, match="seed 1, not 2"):
        Journal(path, {"model": "a", "seed": 2})
    path.write_text("something else\n")
    with pytest.raises(RequestError, match="no journal"):
        Journal(path, {"model": "a", "seed": 2})


class Counted(LocalModel):
    """Counts what it is asked, and stops after so many answers."""

    def __init__(self, model: Any, tokenizer: Any, left: int) -> None:
        super().__init__(model, tokenizer, batch=2, max_new_tokens=60)
        self.left = left
        self.asked: list[tuple[str, str]] = []

    def answer(self, cases: Any, mode: Any) -> Any:
        for case in cases:
            self.asked.append((mode, case.id))
        for turn in super().answer(cases, mode):
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            yield turn


def test_what_was_answered_is_never_asked_again(healthy: Any, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
    path, cases = tmp_path / "run.jsonl", CASES[:4]
    first = Counted(healthy, tokenizer, 6)
    with pytest.raises(KeyboardInterrupt):
        toolguard.diagnose(first, cases, journal=Journal(path, {}))
    second = Counted(healthy, tokenizer, 100)
    resumed = toolguard.diagnose(second, cases, journal=Journal(path, {}))
    assert len(second.asked) == 3 * len(cases) - 6
    whole = toolguard.diagnose(Counted(healthy, tokenizer, 100), cases)
    assert _timeless(resumed.to_json()) == _timeless(whole.to_json())


def _timeless(value: Any) -> Any:
    match value:
        case dict():
            return {key: _timeless(inner) for key, inner in value.items() if key != "seconds"}
        case list():
            return [_timeless(inner) for inner in value]
        case float():
            return round(value, 4)
        case _:
            return value


def test_the_command_goes_on_after_kill_9(tmp_path: Path) -> None:
    out = tmp_path / "report"
    command = ["diagnose", "healthy", "--limit", "4", "--batch", "2", "--seed", "1"]
    command += ["--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-c", "from toolguard.cli.main import app; app()", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    journal = out / "diagnose.jsonl"
    while process.poll() is None and not (
        journal.exists() and len(journal.read_bytes().splitlines()) > 4
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = journal.read_bytes()
    before = before[: before.rfind(b"\n") + 1]
    done = RUNNER.invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["verdict"]["name"] == "healthy"
    after = journal.read_bytes()
    assert after.startswith(before)
    rows = [json.loads(line) for line in after.splitlines()[1:]]
    keys = [(row["part"], row["case"]) for row in rows]
    assert len(set(keys)) == len(keys)
    assert (out / "report.html").read_text("utf-8").startswith("<!doctype html>")
    assert json.loads((out / "report.json").read_text("utf-8")) == json.loads(done.stdout)


def test_the_command_prints_its_verdict_and_holds_the_model_against_a_reference(
    tmp_path: Path,
) -> None:
    given = ["untagged", "--reference", "healthy", "--limit", "8", "--out", str(tmp_path)]
    done = RUNNER.invoke(app, ["diagnose", *given], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    for part in ("The format is damaged and the skill intact", "unguarded", "toolguard serve"):
        assert part in done.stdout
    content = json.loads((tmp_path / "report.json").read_text("utf-8"))
    rows = content["control_mass"]
    assert rows
    assert all(row["reference"] is not None for row in rows)
    assert [row["name"] for row in content["answers"]][-1] == "reference unguarded"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing_of_that_name"], "no model in"),
        (["healthy", "--cases", "nowhere.jsonl"], "nowhere.jsonl"),
        (["healthy", "--profile", "nowhere.json"], "cannot read the profile"),
        (["http://127.0.0.1:9/v1"], "--format"),
        (["http://127.0.0.1:9/v1", "--format", "hermes"], "no OpenAI-compatible server"),
        (["healthy", "--reference", "nothing"], "no model in"),
    ],
)
def test_what_cannot_be_diagnosed_is_said_in_one_line(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = RUNNER.invoke(app, ["diagnose", *arguments, "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert message in done.output
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_model_that_does_not_load_gives_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    done = RUNNER.invoke(app, ["diagnose", str(tmp_path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "cannot load" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_no_cases_are_refused(healthy: Any) -> None:
    with pytest.raises(RequestError, match="no cases"):
        toolguard.diagnose(local(healthy), [])


def test_the_sweep_is_in_the_report_of_the_same_folder(tmp_path: Path) -> None:
    given = ["untagged", "--limit", "2", "--out", str(tmp_path)]
    swept = RUNNER.invoke(app, ["sweep", *given, "--in", "pythonic", "--fail-under", "0.99"])
    assert swept.exit_code == 1, swept.output
    assert "below 99.0%: hermes" in swept.stderr
    rows = json.loads((tmp_path / "sweep.json").read_text("utf-8"))["sweep"]
    assert {row["format"] for row in rows} == {"hermes", "pythonic"}
    assert len({row["variation"] for row in rows}) > 5
    done = RUNNER.invoke(app, ["diagnose", *given, "--json"])
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert content["sweep"] == rows
    Draft202012Validator(report_schema()).validate(content)


def test_answers_to_other_cases_are_not_taken_for_these(tmp_path: Path) -> None:
    line = (toolguard.checkpoint("healthy").parent / "held_out.jsonl").read_text().splitlines()[0]
    cases, out = tmp_path / "cases.jsonl", tmp_path / "out"
    given = ["diagnose", "healthy", "--cases", str(cases), "--out", str(out)]
    cases.write_text(line + "\n")
    assert RUNNER.invoke(app, given).exit_code == 0
    row = json.loads(line)
    row["calls"][0]["arguments"]["degrees"] = 1.5  # what is right has changed, the file's name not
    cases.write_text(json.dumps(row) + "\n")
    done = RUNNER.invoke(app, given)
    assert done.exit_code == 2
    assert "is of another run (asked" in done.stderr


def test_advice_says_what_a_guard_gives_back_of_a_damaged_skill() -> None:
    found = verdict(
        evidence(behaviour=BROKEN, led=[False] * 60, guarded=[True] * 24 + [False] * 36)
    )
    assert found.name == "both"
    assert "40.0% come out right when guarded" in found.sentence
    right = {"unguarded": [False] * 60, "enforce": [True] * 24 + [False] * 36}
    advice = advise(found, right, {"unguarded": 100, "enforce": 200}, "model", None)
    assert (advice.mode, advice.retrain) == ("enforce", True)
    assert "`enforce` gives back 24 of 60 turns" in advice.sentence
    lost = advise(
        found, {**right, "enforce": [False] * 60}, {"unguarded": 1, "enforce": 2}, "m", None
    )
    assert "it does not know them" in lost.sentence
