"""Files of rows: repaired in order and in constant memory, bad rows passed through."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import toolguard
from toolguard import Layout, RowError, repair_files
from toolguard.cli.main import app
from toolguard.rows.engines import AHEAD, in_order
from toolguard.rows.repair import Done

RUNNER = CliRunner()
DATA = Path(os.environ.get("TOOLGUARD_DATA", Path(__file__).parents[2] / "shared" / "data"))
HERMES = Layout(format="hermes")
NUMBERED = {"type": "object", "properties": {"n": {"type": "integer"}}}
PING = {"type": "function", "function": {"name": "ping", "parameters": NUMBERED}}
CALL = '<tool_call>\n{"name": "ping", "arguments": {"n": 1}}\n</tool_call>'
BROKEN = "<tool_call>\n"


def rows(count: int = 300) -> list[dict[str, Any]]:
    """Text rows: calls, replies and calls that were opened and never made."""
    texts = (CALL, "All is well: é😀.", BROKEN)
    return [{"id": i, "text": texts[i % 3], "tools": [PING]} for i in range(count)]


def write(path: Path, content: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content), "utf-8")
    return path


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_text_rows_keep_their_order_and_fields_and_say_what_was_done(tmp_path: Path) -> None:
    given = rows(7)
    tally = repair_files([write(tmp_path / "in.jsonl", given)], tmp_path / "out.jsonl", HERMES)
    made = read(tmp_path / "out.jsonl")
    for row, new in zip(given, made, strict=True):
        done = toolguard.repair(row["text"], row["tools"], "hermes")
        record = new.pop("toolguard")
        assert new == {**row, "text": done.text}
        assert record == {
            "state_before": done.before.state,
            "state_after": done.after.state,
            "confidence": done.confidence,
            "faults": done.to_json()["before"]["faults"],
            "edits": done.to_json()["edits"],
            "calls": [{"name": c.name, "arguments": c.arguments} for c in done.after.calls],
            "candidates": done.to_json()["candidates"],
            "reason": done.reason,
        }
    assert tally.rows == 7
    assert tally.errors == 0
    assert tally.before["healthy_call"] == 3
    assert tally.faults["open_then_stop", "refused"] == 2


def test_a_chat_rows_last_message_becomes_openais_calls(tmp_path: Path) -> None:
    messages = [
        {"role": "assistant", "content": BROKEN},
        {"role": "user", "content": "ping, please"},
        {"role": "assistant", "content": "At once.\n" + CALL, "name": "bot"},
        {"role": "user", "content": "thanks"},
    ]
    source = write(tmp_path / "in.jsonl", [{"messages": messages, "tools": json.dumps([PING])}])
    repair_files([source], tmp_path / "out.jsonl", HERMES)
    (row,) = read(tmp_path / "out.jsonl")
    assert row["messages"][:2] == messages[:2]
    assert row["messages"][3] == messages[3]
    message = row["messages"][2]
    (call,) = message.pop("tool_calls")
    assert message == {"role": "assistant", "content": "At once.", "name": "bot"}
    assert call["type"] == "function"
    assert call["function"]["name"] == "ping"
    assert json.loads(call["function"]["arguments"]) == {"n": 1}
    assert row["toolguard"]["calls"] == [{"name": "ping", "arguments": {"n": 1}}]


def test_every_message_of_the_assistant_is_repaired_on_request(tmp_path: Path) -> None:
    made = {"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]}
    messages = [
        {"role": "assistant", "content": CALL},
        made,
        {"role": "assistant", "content": "Hello."},
    ]
    given = [{"messages": json.dumps(messages), "tools": [PING]}]
    layout = Layout(every=True, format="hermes")
    tally = repair_files([write(tmp_path / "in.jsonl", given)], tmp_path / "out.jsonl", layout)
    (row,) = read(tmp_path / "out.jsonl")
    new = json.loads(row["messages"])
    assert new[0]["tool_calls"][0]["function"]["name"] == "ping"
    assert new[0]["content"] is None
    assert new[1:] == messages[1:]
    states = [record["state_after"] for record in row["toolguard"]]
    assert states == ["healthy_call", "healthy_response"]
    assert tally.rows == 1
    assert tally.before.total() == 2


def test_tools_are_given_for_all_rows_or_by_toolset(tmp_path: Path) -> None:
    (tmp_path / "tools.json.xz").write_bytes(lzma.compress(json.dumps({"a": [PING]}).encode()))
    (tmp_path / "list.json").write_text(json.dumps([PING]))
    given = [{"turn": CALL, "set": "a"}, {"turn": CALL, "set": "b"}]
    (tmp_path / "in.jsonl.gz").write_bytes(
        gzip.compress("\n".join(map(json.dumps, given)).encode())
    )
    source = str(tmp_path / "in.jsonl.gz")
    options = ["--column", "turn", "--toolset-column", "set", "--workers", "1", "--json"]
    counts = []
    for tools in ("tools.json.xz", "list.json"):
        out = RUNNER.invoke(
            app,
            [
                "repair",
                source,
                "-o",
                str(tmp_path / f"{tools}.jsonl"),
                "--tools",
                str(tmp_path / tools),
                *options,
            ],
        )
        assert out.exit_code == 0, out.output
        printed = json.loads(out.stdout)
        assert ("in.jsonl.gz:2: 'set' is 'b'" in out.stderr) == bool(printed["errors"])
        counts.append((printed["rows"], printed["errors"], printed["confidence"]["exact"]))
    assert counts == [(2, 1, 1), (2, 0, 2)]


BAD = {
    b'{"text": "half a': "no JSON",
    b"\xff\xfe": "no JSON",
    b"[1]": "not a JSON object",
    b'{"tools": []}': "no column 'text', only 'tools'",
    b'{"text": 3, "tools": []}': "'text' is of type int",
    b'{"text": "hi"}': "no 'tools'",
    b'{"text": "hi", "tools": "{"}': "'tools' is text, but no JSON",
    b'{"text": "hi", "tools": {}}': "not a list of tools",
    b'{"text": "hi", "tools": [{"name": ""}]}': "tool 0 has no usable name",
    b'{"messages": [{"role": "user"}], "tools": []}': "no message of the assistant",
    b'{"messages": [{"role": "assistant", "content": [1]}], "tools": []}': "is not text",
    b'{"messages": [{"role": "assistant", "tool_calls": [1]}], "tools": []}': "already",
    b'{"messages": null, "tools": []}': "'messages' is missing",
}


def test_bad_rows_are_reported_and_passed_through(tmp_path: Path) -> None:
    good = json.dumps(rows(1)[0]).encode()
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"\n".join([good, b"", *BAD, good]))  # the last line has no end
    out = RUNNER.invoke(app, ["repair", str(source), "-o", str(tmp_path / "out.jsonl"), "--json"])
    assert out.exit_code == 0, out.output
    printed = json.loads(out.stdout)
    assert printed["rows"] == len(BAD) + 2
    assert printed["errors"] == len(BAD)
    lines = (tmp_path / "out.jsonl").read_bytes().split(b"\n")
    said = out.stderr.splitlines()
    assert len(said) == len(BAD)
    assert lines[1] == lines[-1] == b""
    assert lines[0] == lines[-2]
    for number, (line, message) in enumerate(BAD.items(), start=3):
        assert said[number - 3].startswith(f"{source}:{number}: ")
        assert message in said[number - 3]
        if message.startswith("no JSON") or message.startswith("not a JSON"):
            assert lines[number - 1] == line
        else:
            new = json.loads(lines[number - 1])
            assert message in new.pop("toolguard")["error"]
            assert new == json.loads(line)


def test_lone_surrogates_are_kept(tmp_path: Path) -> None:
    given = [{"text": "\ud83d hi", "tools": []}]
    (tmp_path / "in.jsonl").write_text(json.dumps(given[0]))
    repair_files([tmp_path / "in.jsonl"], tmp_path / "out.jsonl", HERMES)
    assert read(tmp_path / "out.jsonl")[0]["text"] == given[0]["text"]


def test_two_workers_write_what_one_does(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", rows())
    tallies = [
        repair_files([source, source], tmp_path / f"{n}.jsonl", HERMES, workers=n) for n in (1, 2)
    ]
    assert tallies[0] == tallies[1]
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
    assert [row["id"] for row in read(tmp_path / "2.jsonl")] == [*range(300), *range(300)]


@pytest.mark.parametrize("share", [0.0, 0.31, 0.5, 0.77, 1.0])
def test_an_interrupted_run_goes_on_after_the_last_complete_row(
    share: float, tmp_path: Path
) -> None:
    sources = [write(tmp_path / f"{n}.jsonl", [*rows(70), "no row"]) for n in range(3)]
    out = tmp_path / "out.jsonl"
    tally = repair_files(sources, out, HERMES)
    whole = out.read_bytes()
    out.write_bytes(whole[: int(len(whole) * share)])
    written = whole[: int(len(whole) * share)].count(b"\n")
    seen = []
    again = repair_files(sources, out, HERMES, watch=seen.append)
    assert out.read_bytes() == whole
    assert again == tally
    assert next(done.tally.rows for done in seen) == written
    assert sum(done.tally.rows for done in seen) == tally.rows


def test_a_killed_run_goes_on_and_leaves_no_workers(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", rows(2_000))
    out, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    command = "import sys; from toolguard.cli.main import app; app()"
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            command,
            "repair",
            str(source),
            "-o",
            str(out),
            "--workers",
            "2",
            "--format",
            "hermes",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,  # the workers hold it too: it ends when the last of them does
    )
    while process.poll() is None and not (out.exists() and out.stat().st_size):
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=20)
    assert process.returncode == -9
    left = len(read_complete(out))
    assert 0 < left < 2_000
    repair_files([source], out, HERMES, workers=2)
    assert [row["id"] for row in read(out)] == list(range(2_000))
    repair_files([source], whole, HERMES)
    assert out.read_bytes() == whole.read_bytes()


def read_complete(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1]


def test_what_was_made_of_something_else_is_not_gone_on_with(tmp_path: Path) -> None:
    source, other = (write(tmp_path / f"{n}.jsonl", rows(n)) for n in (5, 6))
    out = tmp_path / "out.jsonl"
    repair_files([source], out, HERMES)
    whole = out.read_bytes()
    with pytest.raises(RowError, match="other inputs"):
        repair_files([other], out, HERMES)
    with pytest.raises(RowError, match="other options"):
        repair_files([source], out, Layout(format="hermes", tools=json.dumps([PING])))
    with pytest.raises(RowError, match="is of no repair"):
        repair_files([other], source, HERMES)
    with pytest.raises(RowError, match="one of the inputs"):
        repair_files([source, other], source, HERMES, overwrite=True)
    assert out.read_bytes() == whole
    assert len(read(source)) == 5
    repair_files([other], out, HERMES, overwrite=True)
    assert len(read(out)) == 6


@pytest.mark.parametrize("workers", [1, 2])
def test_input_is_read_no_further_than_is_worked_on(workers: int) -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    batches = in_order(abs, endless(), workers)
    for given in range(1, 101):
        assert next(batches) == given
        assert taken <= given + AHEAD * workers
    batches.close()


def test_a_worker_that_dies_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RowError, match="worker process died"):
        list(in_order(os._exit, [1, 2], 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nowhere.jsonl", "-o", "out.jsonl"], "cannot read the input"),
        (["in.jsonl", "-o", "/nowhere/out.jsonl"], "cannot write /nowhere/out.jsonl"),
        (["in.jsonl", "-o", "out.parquet"], "do not mix"),
        (["in.jsonl", "-o", "out.jsonl.gz"], "leave .gz away"),
        (["in.jsonl", "-o", "out.jsonl", "--format", "morse"], "unknown wire format 'morse'"),
        (["in.jsonl", "-o", "out.jsonl", "--tools", "in.jsonl"], "is no JSON"),
        (["in.jsonl", "-o", "out.jsonl", "--tools", "/nowhere.json"], "cannot read /nowhere.json"),
        (["broken.gz", "-o", "out.jsonl"], "cannot read broken.gz"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("in.jsonl"), rows(2))
    Path("broken.gz").write_bytes(gzip.compress(b"{}\n" * 1000)[:-9])
    out = RUNNER.invoke(app, ["repair", *arguments, "--workers", "1"])
    assert out.exit_code == 2, out.output
    assert message in out.stderr


def test_the_summary_is_a_table_by_fault_and_confidence(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [*rows(6), {}])
    given = ["repair", str(source), "-o", str(tmp_path / "out.jsonl"), "--workers", "1"]
    out = RUNNER.invoke(app, given, env={"COLUMNS": "100"})
    assert out.exit_code == 0, out.output
    (fault,) = [line for line in out.stdout.splitlines() if "open_then_stop" in line]
    assert [cell.strip() for cell in fault.split("│")[2:-1]] == ["0", "0", "0", "2", "2"]
    for part in ("all turns", "before: 2 healthy_call", "7 rows, 1 passed through with an error"):
        assert part in out.stdout


def test_real_transcripts_are_repaired_into_rows(tmp_path: Path) -> None:
    if not DATA.is_dir():
        pytest.skip(f"no data in {DATA}: set TOOLGUARD_DATA to run this test")
    lines = lzma.decompress((DATA / "transcripts_dev.jsonl.xz").read_bytes()).splitlines()[::20]
    (tmp_path / "in.jsonl.xz").write_bytes(lzma.compress(b"\n".join(lines)))
    tools = str(DATA / "transcripts_dev_tools.json.xz")
    given = ["repair", str(tmp_path / "in.jsonl.xz"), "-o", str(tmp_path / "out.jsonl")]
    out = RUNNER.invoke(app, [*given, "--tools", tools, "--workers", "1", "--json"])
    assert out.exit_code == 0, out.output
    printed = json.loads(out.stdout)
    assert printed["rows"] == printed["turns"] == len(lines)
    assert printed["errors"] == 0
    assert printed["confidence"]["exact"] > len(lines) / 2
    old = [json.loads(line)["id"] for line in lines]
    assert [row["id"] for row in read(tmp_path / "out.jsonl")] == old


def parquet(path: Path, content: list[dict[str, Any]]) -> Path:
    pa = pytest.importorskip("pyarrow", reason="no pyarrow: pip install '.[parquet]'")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.Table.from_pylist(content), path, row_group_size=100)
    return path


def test_parquet_rows_are_repaired_as_lines_are(tmp_path: Path) -> None:
    given = rows()
    # two tools, so that Parquet's structs hold nulls that no schema has
    other = {"name": "go", "parameters": {"type": "object", "properties": {"to": {"enum": ["x"]}}}}
    given[1]["tools"] = [PING, {"type": "function", "function": other}]
    source = parquet(tmp_path / "in.parquet", given)
    import pyarrow.parquet as pq

    tallies = [repair_files([source], tmp_path / f"{n}.parquet", HERMES, workers=n) for n in (1, 2)]
    lines = repair_files([write(tmp_path / "in.jsonl", given)], tmp_path / "out.jsonl", HERMES)
    assert tallies[0] == tallies[1] == lines
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()
    before, after = pq.read_table(source), pq.read_table(tmp_path / "1.parquet")
    assert after.drop_columns(["text", "toolguard"]).equals(before.drop_columns(["text"]))
    for row, line in zip(after.to_pylist(), read(tmp_path / "out.jsonl"), strict=True):
        record = row["toolguard"]
        assert record.pop("error") is None
        for call in record["calls"]:
            call["arguments"] = json.loads(call["arguments"])
        assert (row["text"], record) == (line["text"], line["toolguard"])
    # it is complete: nothing is done again
    seen = []
    assert repair_files([source], tmp_path / "1.parquet", HERMES, watch=seen.append) == lines
    assert len(seen) == 1


def test_parquet_chats_get_openais_calls(tmp_path: Path) -> None:
    given = [
        {"messages": [{"role": "assistant", "content": CALL}], "tools": json.dumps([PING])},
        {"messages": [{"role": "user", "content": "hi"}], "tools": json.dumps([PING])},
    ]
    source = parquet(tmp_path / "in.parquet", given)
    import pyarrow.parquet as pq

    tally = repair_files([source], tmp_path / "out.parquet", HERMES)
    assert (tally.rows, tally.errors) == (2, 1)
    called, bad = pq.read_table(tmp_path / "out.parquet").to_pylist()
    (message,) = called["messages"]
    assert message["content"] is None
    assert message["tool_calls"][0]["function"] == {"name": "ping", "arguments": '{"n": 1}'}
    assert bad["messages"][0]["content"] == "hi"
    assert bad["messages"][0]["tool_calls"] is None
    assert "no message of the assistant" in bad["toolguard"]["error"]


@pytest.mark.parametrize("groups", [0, 1, 3])
def test_parquet_goes_on_after_the_last_complete_row_group(
    groups: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [parquet(tmp_path / f"{n}.parquet", rows(170)) for n in range(2)]
    monkeypatch.setattr("toolguard.rows.parquet.GROUP_ROWS", 64)
    whole, out = tmp_path / "whole.parquet", tmp_path / "out.parquet"
    tally = repair_files(sources, whole, HERMES)

    def stop(done: Done) -> None:
        if len(list((tmp_path / "out.parquet.groups").glob("*.parquet"))) == groups:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repair_files(sources, out, HERMES, watch=stop)
    assert not out.exists()
    seen: list[Done] = []
    assert repair_files(sources, out, HERMES, watch=seen.append) == tally
    assert out.read_bytes() == whole.read_bytes()
    assert sum(done.tally.rows for done in seen) == tally.rows
    assert seen[0].tally.rows >= 60 * groups
    assert not (tmp_path / "out.parquet.groups").exists()


def test_a_killed_run_of_parquet_goes_on(tmp_path: Path) -> None:
    source = parquet(tmp_path / "in.parquet", rows(2_000))
    out, whole = tmp_path / "out.parquet", tmp_path / "whole.parquet"
    groups = tmp_path / "out.parquet.groups"
    command = f"""
from pathlib import Path
from toolguard import Layout, repair_files
from toolguard.rows import parquet
parquet.GROUP_ROWS = 100
repair_files([Path({str(source)!r})], Path({str(out)!r}), Layout(format="hermes"))
"""
    process = subprocess.Popen([sys.executable, "-c", command])
    while process.poll() is None and not (groups / "3.parquet").exists():
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert process.returncode == -9
    assert not out.exists()
    (groups / "new").write_bytes(b"PAR1")  # it was writing
    seen: list[Done] = []
    tally = repair_files([source], out, HERMES, watch=seen.append)
    assert seen[0].tally.rows >= 400
    assert sum(done.tally.rows for done in seen) == tally.rows == 2_000
    assert repair_files([source], whole, HERMES) == tally
    import pyarrow.parquet as pq

    assert pq.read_table(out).equals(pq.read_table(whole))


def test_parquet_that_was_begun_with_something_else_is_not_gone_on_with(tmp_path: Path) -> None:
    source, other = (parquet(tmp_path / f"{n}.parquet", rows(n)) for n in (10, 11))
    out = tmp_path / "out.parquet"

    def stop(done: Done) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repair_files([source], out, HERMES, watch=stop)
    with pytest.raises(RowError, match="other inputs"):
        repair_files([other], out, HERMES)
    assert repair_files([other], out, HERMES, overwrite=True).rows == 11


def test_parquet_without_the_column_is_refused(tmp_path: Path) -> None:
    source = parquet(tmp_path / "in.parquet", rows(3))
    other = parquet(tmp_path / "other.parquet", [{"text": "a"}])
    with pytest.raises(RowError, match="no column 'turn', only id, text, tools"):
        repair_files([source], tmp_path / "a.parquet", Layout(column="turn"))
    with pytest.raises(RowError, match="other columns than"):
        repair_files([source, other], tmp_path / "b.parquet", HERMES)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(RowError, match=r"cannot read .*broken\.parquet"):
        repair_files([tmp_path / "broken.parquet"], tmp_path / "c.parquet", HERMES)


def test_ray_writes_what_this_machine_does(tmp_path: Path) -> None:
    pytest.importorskip("ray.data", reason="no Ray: pip install '.[ray]'")
    sources = {
        "jsonl": write(tmp_path / "in.jsonl", [*rows(), "no row"]),
        "parquet": parquet(tmp_path / "in.parquet", rows()),
    }
    for kind, source in sources.items():
        repair_files([source], tmp_path / f"local.{kind}", HERMES)
    # in a process of its own: Ray warns, starts threads and writes into the home folder
    command = f"""
import ray
from pathlib import Path
from toolguard import Layout, repair_files
ray.init(num_cpus=2, log_to_driver=False)
for kind in ("jsonl", "parquet"):
    source, out = (Path({str(tmp_path)!r}) / f"{{name}}.{{kind}}" for name in ("in", "ray"))
    repair_files([source], out, Layout(format="hermes"), workers=2, engine="ray")
"""
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", command], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for kind in sources:
        local, ray = ((tmp_path / f"{name}.{kind}").read_bytes() for name in ("local", "ray"))
        assert local == ray
