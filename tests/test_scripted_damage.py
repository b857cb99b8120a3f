"""The benchmark of scripted damage: that it runs, and what it counts."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

import toolguard
from benchmarks.__main__ import QUICK_DAMAGES
from benchmarks.peers_decoding import framed
from benchmarks.prose import prose
from benchmarks.real_data import DATA
from benchmarks.replay_damage import NAMES
from benchmarks.replay_scripts import subject
from benchmarks.scripted_damage import Bench, differing, json_repaired, keep, main, outcome
from toolguard import Case, Toolset, WireFormat

CALL = {"name": "get_time", "arguments": {"zone": "UTC"}}


def test_what_comes_out_is_counted(tools: list[dict[str, object]]) -> None:
    offered = Toolset.of(tools)
    case = Case("1", "", offered, ({"role": "user"},), (CALL,), None)
    right = SimpleNamespace(state="healthy_call", calls=[SimpleNamespace(**CALL)])
    other = SimpleNamespace(name="get_time", arguments={"zone": "CET"})
    assert outcome(case, right) == "exact"
    assert outcome(case, SimpleNamespace(state="healthy_call", calls=[other])) == "wrong"
    assert outcome(case, SimpleNamespace(state="polluted", calls=right.calls)) == "none"
    assert outcome(case, SimpleNamespace(state="healthy_response", calls=[])) == "none"
    assert differing([1, 2, 3], [1, 3]) == 1
    assert differing([1, 2, 3], [1, 9, 9, 3]) == 2


def test_json_repair_is_given_what_stands_in_the_calls(tools: list[dict[str, object]]) -> None:
    offered = Toolset.of(tools)
    for name in ("hermes", "mistral_json", "deepseek_v3", "deepseek_v31", "harmony"):
        wire_format = WireFormat.load(name)
        text = toolguard.render(wire_format, [CALL]).replace('"zone": ', "'zone'=")
        [call] = json_repaired(text, wire_format, offered)
        assert (call.name, call.arguments) == ("get_time", {"zone": "UTC"})


def test_a_method_without_anything_to_work_with_says_so() -> None:
    pythonic, apertus = subject("pythonic", "bundled"), subject("apertus", "bundled")
    assert Bench(pythonic, "json_repair", (0.0,), ["noise"]).absent == "no JSON in this format"
    assert Bench(apertus, "llguidance", (0.0,), ["noise"]).absent.startswith("no plain grammar")
    for method in ("unguarded", "repair", "enforce", "recover_reference"):
        assert not Bench(apertus, method, (0.0,), ["noise"]).absent
    hermes, harmony = subject("hermes", "bundled"), subject("harmony", "bundled")
    assert not Bench(hermes, "outlines_json", (0.0,), ["noise"]).absent
    assert "JSON object" in Bench(harmony, "outlines_json", (0.0,), ["noise"]).absent


def test_an_unfinished_object_is_no_reply() -> None:
    hermes = WireFormat.load("hermes")
    assert framed(json.dumps(CALL), hermes).startswith("<tool_call>")
    with pytest.raises(ValueError, match="not finished within the budget"):
        framed('{"name": "get_time", "argu', hermes)


@pytest.mark.parametrize("name", toolguard.format_names())
def test_prose_talks_about_the_formats_own_tokens(name: str) -> None:
    texts = prose(WireFormat.load(name))
    assert len(set(texts)) == len(texts) >= 30
    assert not any(place in text for text in texts for place in ("{opener}", "{closer}"))


@pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no data in {DATA}: set TOOLGUARD_DATA to run this test"
)
def test_two_cases_of_one_format(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks.scripted_report import write_report

    cases = toolguard.read_cases(DATA / "bfcl_dev.jsonl")[:40]
    path = tmp_path / "scripted_damage_mistral_json.json"
    counted = {}
    for method in ("unguarded", "repair", "enforce"):
        spoken = subject("mistral_json", "mistral-7b-v0.3")
        bench = Bench(spoken, method, (0.0, 16.0), ["end_of_turn"])
        counted[method] = [*bench.curves(cases, 2, range(1))]
        found = {"absent": bench.absent, "rows": counted[method], "harm": bench.harm(every=15)}
        keep(path, "mistral-7b-v0.3", method, found)
    absent = Bench(spoken, "xgrammar", (0.0, 16.0), ["end_of_turn"])
    found = {"absent": "no builtin for this format", "rows": [], "harm": None}
    keep(path, "mistral-7b-v0.3", absent.method, found)
    write_report(tmp_path)
    assert [row["exact"] for row in counted["unguarded"]] == [2, 0]
    assert [row["exact"] for row in counted["enforce"]] == [2, 2]
    assert counted["enforce"][0]["changed"] == 0
    assert [*json.loads(path.read_text())["methods"]] == [*counted, "xgrammar"]
    written = (tmp_path / "scripted_damage.md").read_text()
    assert "| enforce | 2 x 1 | 100 / 0 / 0 | 100 / 0 / 0 |" in written
    assert "| xgrammar |  | no builtin for this format |" in written
    unharmed = f"0 of {len(prose(spoken.wire_format)[::15])}, 0, 0"
    assert f"| repair | 0 of 2 | {unharmed} | {unharmed} |" in written
    assert "not run" not in written
    assert (tmp_path / "scripted_damage_mistral_json.png").is_file()


def test_an_unknown_damage_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match="end of turn is none of opener"):
        main(kinds=["end of turn"])
    assert {*QUICK_DAMAGES} <= {*NAMES}
