"""Models behind a server: what toolguard asks of it, and makes of what it answers."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner

import toolguard
from toolguard import Endpoint, RequestError, WireFormat
from toolguard.cli.main import app
from toolguard.evaluation.right_turn import right_turn

CASES = toolguard.held_out()[:12]
HERMES = WireFormat.load("hermes")


class Server(ThreadingHTTPServer):
    """Plays a damaged model: it opens a call and ends the turn, although it knows the call.

    What it shows of the right turn is what a server with vLLM's `prompt_logprobs` does.
    """

    def __init__(
        self,
        *,
        models: int = 1,
        logprobs: bool = True,
        forces: bool = True,
        owner: str = "",
        end: str = "<|im_end|>",
    ) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.owner, self.end = owner, end
        self.models, self.logprobs, self.forces = models, logprobs, forces
        self.bodies: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            return self._send(404, {})
        models = range(self.server.models)
        told = [{"id": f"m{n}", "owned_by": self.server.owner} for n in models]
        return self._send(200, {"data": told})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        if "prompt_logprobs" in body:
            if not self.server.forces:
                return self._send(400, {"error": "no such parameter"})
            return self._send(200, _taken(body))
        needs_call = any(case.calls and _asks(body, case) for case in CASES)
        text = ["<tool_call>", "\n"] if needs_call else ["No", " need", "."]
        if needs_call or self.server.owner == "vllm":
            text.append(self.server.end)
        told = [
            {
                "token": token,
                "bytes": list(token.encode()),
                "logprob": math.log(0.9),
                "top_logprobs": [
                    {"token": token, "logprob": math.log(0.9)},
                    {"token": "{", "logprob": math.log(0.05)},
                ],
            }
            for token in text
        ]
        logprobs = {"content": told} if self.server.logprobs else None
        message = {"role": "assistant", "content": "".join(text)}
        choice = {"message": message, "finish_reason": "stop", "logprobs": logprobs}
        return self._send(200, {"choices": [choice]})

    def _send(self, status: int, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _asks(body: dict[str, Any], case: toolguard.Case) -> bool:
    asked = [message["content"] for message in body["messages"]]
    return str(case.messages[-1]["content"]) in asked


def _taken(body: dict[str, Any]) -> dict[str, Any]:
    """Every token of the prompt is the likeliest content; a closing tag is likelier still."""
    case = next(case for case in CASES if case.calls and _asks(body, case))
    turn = right_turn(case, HERMES)
    assert turn is not None
    prompt = f"{case.messages[-1]['content']}<|im_end|>\n{turn.text}<|im_end|>"
    told: list[Any] = [None]
    for place, char in enumerate(prompt):
        rank = 2 if char.isalnum() else 1
        own = {"logprob": -0.7 * rank, "rank": rank, "decoded_token": char}
        other = {"logprob": -0.1, "rank": 1, "decoded_token": "</tool_call>"}
        told.append({str(place): own, **({"x": other} if rank == 2 else {})})
    return {"choices": [{}], "prompt_logprobs": told}


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    made = Server(**getattr(request, "param", {}))
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def test_a_served_model_is_diagnosed(server: Server) -> None:
    found = toolguard.diagnose(Endpoint(server.url, "hermes"), CASES)
    assert found.verdict.name == "format damaged, skill intact"
    unguarded = found.content["answers"][0]
    calling = sum(bool(case.calls) for case in CASES)
    assert unguarded["states"]["collapsed"]["hits"] == calling
    assert unguarded["faults"]["open_then_stop"] == calling
    assert found.content["skill"]["calls"]["share"] == 1
    worst = found.content["worst"][0]["turns"]["unguarded"]
    assert worst["raw"] == "<tool_call>\n"
    step = worst["report"]["steps"][0]
    assert (step["position"], step["token"], step["rank"]) == ("start", "<tool_call>", 1)
    assert step["masses"] == {"<tool_call>": pytest.approx(0.9)}
    assert worst["report"]["steps"][1]["position"] == "opened"


@pytest.mark.parametrize("server", [{"owner": "vllm", "end": "<|end_of_text|>"}], indirect=True)
def test_an_end_that_the_template_alone_knows_is_no_text(server: Server) -> None:
    endpoint = Endpoint(server.url, "hermes")
    texts = {turn.raw for turn in endpoint.answer(CASES, "unguarded")}
    assert texts == {"<tool_call>\n", "No need."}


def test_requests_are_openais(server: Server) -> None:
    endpoint = Endpoint(server.url, "hermes", max_new_tokens=77, temperature=0.5, seed=3)
    case = next(case for case in toolguard.builtin_cases() if case.kind == "multi_step")
    next(endpoint.answer([case], "unguarded"))
    (body,) = server.bodies
    assert (body["model"], body["max_tokens"]) == ("m0", 77)
    assert (body["temperature"], body["seed"]) == (0.5, 3)
    assert body["tools"] == case.toolset.definitions
    called = [call for message in body["messages"] for call in message.get("tool_calls") or ()]
    assert called
    assert all(isinstance(call["function"]["arguments"], str) for call in called)
    assert "vllm_xargs" not in body


@pytest.mark.parametrize("server", [{"forces": False}], indirect=True)
def test_a_server_that_cannot_force_leaves_the_skill_open(server: Server) -> None:
    found = toolguard.diagnose(Endpoint(server.url, "hermes", batch=1), CASES)
    assert (found.verdict.name, found.verdict.format_damaged) == ("undetermined", True)
    assert found.content["skill"] is None
    assert sum("prompt_logprobs" in body for body in server.bodies) == 1


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ({"logprobs": False}, "tells no logprobs"),
        ({"models": 2}, "m0, m1"),
        ({"models": 0}, "no m"),
    ],
    indirect=["server"],
)
def test_a_server_that_does_not_do_is_named_in_one_line(server: Server, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        toolguard.diagnose(Endpoint(server.url, "hermes"), CASES[:1])


@pytest.mark.parametrize("server", [{"models": 2}], indirect=True)
def test_one_of_several_models_is_named_behind_the_url(server: Server) -> None:
    list(Endpoint(f"{server.url}#m1", "hermes").answer(CASES[:1], "unguarded"))
    assert server.bodies[0]["model"] == "m1"


def test_the_sweep_asks_a_server_without_tools_where_messages_describe_them(
    server: Server, tmp_path: Any
) -> None:
    given = [server.url, "--format", "hermes", "--in", "pythonic", "--limit", "3"]
    done = CliRunner().invoke(app, ["sweep", *given, "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["sweep"]
    assert {row["mode"] for row in rows} == {"unguarded", "repaired"}
    assert [row["format"] for row in rows][-2:] == ["pythonic", "pythonic"]
    assert "tools" not in server.bodies[-1]
