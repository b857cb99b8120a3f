"""A server that shows what it does: `/metrics`, `/toolguard/stats`, its log and the drift alarm."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families
from transformers import AutoTokenizer, Qwen2ForCausalLM

import toolguard
from toolguard import Case, Endpoint, LocalModel, Profile, ProfileError, WireFormat
from toolguard.integrations.vllm.drift import drift_of
from toolguard.integrations.vllm.environment import PROFILE

from .serving import GUARDED, V2, serving
from .test_server import ask, streamed

DASHBOARD = Path(toolguard.__file__).parent / "integrations/vllm/dashboard.json"


def get(address: str, path: str) -> str:
    with urllib.request.urlopen(address + path, timeout=10) as answer:
        return answer.read().decode()


def stats(address: str) -> dict[str, Any]:
    """The figures, once no request is left."""
    for _ in range(100):
        found: dict[str, Any] = json.loads(get(address, "/toolguard/stats"))
        if found["engine"]["live"] == 0:
            return found
        time.sleep(0.05)
    raise AssertionError(f"requests are left: {found}")


def metrics(address: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by name, and by the labels' values."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(get(address, "/metrics")):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_figures_add_up(address: str, client: openai.OpenAI, asked: list[Case]) -> None:
    before = stats(address)
    assert before["mode"] == "processor"
    fresh = asked[40:49]  # no other test has had their guards compiled
    for case in fresh[:6]:
        ask(client, case)
    for case in fresh[6:]:
        streamed(ask(client, case, stream=True))
    off = {"vllm_xargs": {"toolguard_policy": "off"}}
    ask(client, asked[0], extra_body=off)
    ask(client, asked[0], response_format={"type": "json_object"}, max_tokens=8)
    after = stats(address)

    def more(*path: str) -> int:
        old, new = before, after
        for name in path:
            old, new = old[name], new[name]
        return new - old

    states = {state: more("server", "turns", state) for state in after["server"]["turns"]}
    assert sum(states.values()) == 11
    assert states["healthy_call"] == 9
    assert more("server", "unguarded", "policy_off") == 1
    assert more("server", "unguarded", "response_format") == 1
    assert more("engine", "turns") == more("engine", "intervened") == 9
    assert more("engine", "left") == more("engine", "unguarded") == 0
    assert more("engine", "compiled") == 9
    assert after["engine"]["interventions"]["mask"]["<|im_end|>"] >= 9


def test_metrics_say_the_same(address: str, client: openai.OpenAI, asked: list[Case]) -> None:
    ask(client, asked[0])
    found, shown = stats(address), metrics(address)
    engine = found["engine"]
    turns = {state: n for (state,), n in shown["toolguard_turns_total"].items()}
    assert turns == found["server"]["turns"]
    for name, value in {
        "live_requests": 0,
        "guarded_turns_total": engine["turns"],
        "intervened_turns_total": engine["intervened"],
        "left_turns_total": engine["left"],
        "failed_guards_total": engine["unguarded"],
        "drift_alarms_total": engine["alarms"],
        "drift_statistic": engine["drift"],
        "compile_seconds_count": engine["compiled"],
        "compile_seconds_sum": engine["compile_seconds"],
        "step_seconds_count": engine["steps"],
        "step_seconds_sum": engine["step_seconds"],
        "fill_seconds_count": engine["steps"],
        "fill_seconds_sum": engine["fill_seconds"],
        "mask_pressure_nats_count": sum(engine["pressure"]["counts"]),
        "mask_pressure_nats_sum": engine["pressure"]["sum"],
    }.items():
        assert shown[f"toolguard_{name}"][()] == value, name
    for token, masses in engine["masses"].items():
        assert shown["toolguard_control_mass_count"][(token,)] == sum(masses["counts"])
    for (action, token), count in shown["toolguard_interventions_total"].items():
        assert engine["interventions"][action][token] == count


def test_figures_are_read_without_being_asked_for(
    address: str, client: openai.OpenAI, asked: list[Case]
) -> None:
    turns = stats(address)["engine"]["turns"]
    ask(client, asked[0])
    deadline = time.monotonic() + 10
    while metrics(address)["toolguard_guarded_turns_total"][()] != turns + 1:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_live_requests_are_counted(address: str, client: openai.OpenAI, asked: list[Case]) -> None:
    live = 0
    for case in asked[:20]:  # a turn may be over before the figures are read
        chunks = ask(client, case, stream=True, tool_choice="required", max_tokens=900)
        next(iter(chunks))
        live = json.loads(get(address, "/toolguard/stats"))["engine"]["live"]
        chunks.close()  # and a client that goes away leaves nothing behind
        stats(address)
        if live:
            break
    assert live == 1


def test_drift_is_told(address: str, client: openai.OpenAI, asked: list[Case], log: Path) -> None:
    for case in asked[:24]:
        if stats(address)["engine"]["alarms"]:
            break
        ask(client, case)
    assert metrics(address)["toolguard_drift_alarms_total"][()] >= 1
    assert "the format is drifting" in log.read_text()


def test_the_log_has_the_text_where_it_is_asked_for(
    address: str, client: openai.OpenAI, asked: list[Case], log: Path
) -> None:
    ask(client, asked[0])
    stats(address)
    *_, line = (line for line in log.read_text().splitlines() if "intervened: " in line)
    assert json.loads(line.split("intervened: ")[1])["text"].startswith("<tool_call>")


def test_the_dashboard_asks_for_metrics_that_there_are(address: str) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    asked_for = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"toolguard_\w+", target["expr"])
    }
    shown = metrics(address)
    assert len(asked_for) >= 14
    assert asked_for <= shown.keys()
    labels = {name for text in re.findall(r"by \(([^)]*)\)", DASHBOARD.read_text())
              for name in text.split(", ")}  # fmt: skip
    assert labels <= {"state", "action", "token", "reason", "le"}


@pytest.mark.v2
def test_the_second_runner_tells_its_figures(asked: list[Case], tmp_path: Path) -> None:
    environment = {**V2, "VLLM_PLUGINS": "toolguard"}
    with serving("open_then_stop", *GUARDED, log=tmp_path / "log", **environment) as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        for case in asked[:2]:
            ask(client, case)
        assert stats(address)["engine"]["turns"] == 2


def test_a_profile_of_another_tokenizer_is_refused(
    profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
    monkeypatch.setenv(PROFILE, str(profile))
    assert drift_of(tokenizer) is not None
    other = Profile.of(WireFormat.load("kimi_k2"), tokenizer)
    other.save(tmp_path / "small.json")
    monkeypatch.setenv(PROFILE, str(tmp_path / "small.json"))
    assert drift_of(tokenizer) is not None  # nothing recorded: only illegal mass is a sign
    tokenizer.add_tokens("<stranger>")
    monkeypatch.setenv(PROFILE, str(profile))
    with pytest.raises(ProfileError, match=r"healthy\.json.*another vocabulary.*record it again"):
        drift_of(tokenizer)
    monkeypatch.delenv(PROFILE)
    assert drift_of(tokenizer) is None


@pytest.mark.refused
def test_a_server_with_a_wrong_profile_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{}")
    log = tmp_path / "log"
    environment = {PROFILE: str(tmp_path / "broken.json")}
    with (
        pytest.raises(RuntimeError, match="did not start"),
        serving("healthy", *GUARDED, log=log, **environment),
    ):
        pass
    assert "is no profile" in log.read_text()
    assert "record it again with `toolguard profile`" in log.read_text()


def test_a_served_model_is_diagnosed_as_its_weights_are(address: str, asked: list[Case]) -> None:
    replies = [case for case in toolguard.held_out() if not case.calls and len(case.messages) <= 2]
    cases = [*asked[:8], *replies[:4]]
    path = toolguard.checkpoint("open_then_stop")
    model = Qwen2ForCausalLM.from_pretrained(path, dtype=torch.float32)
    local = LocalModel(model, AutoTokenizer.from_pretrained(path))
    endpoint = Endpoint(f"{address}/v1", "hermes")
    assert endpoint.modes == ("unguarded", "repaired", "enforce")
    for mode in ("unguarded", "enforce"):
        for own, served in zip(
            local.answer(cases, mode), endpoint.answer(cases, mode), strict=True
        ):
            assert (served.raw, served.state, served.calls) == (own.raw, own.state, own.calls)
    at_hand = {forced.case: forced for forced in local.force(cases)}
    for forced in endpoint.force(cases):
        assert forced.right == at_hand[forced.case].right
    assert toolguard.diagnose(endpoint, cases).verdict.name == "format damaged, skill intact"
