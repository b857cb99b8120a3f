"""A model behind an OpenAI-compatible server, as the subject of an evaluation."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx2

from ..errors import RequestError
from ..formats.wire_format import WireFormat
from ..parsing.read import read_turn
from ..parsing.turn import Turn
from ..repair.repair import repair
from ..report.report import GATE, Position, Report, Step
from .cases import Case
from .forced import Forced
from .right_turn import content_spans
from .subject import Mode

TOP = 20
"""How many of the likeliest tokens are asked for: the most that OpenAI and vLLM give."""
_PUNCTUATION = frozenset(" \t\r\n\"'{}[]():,=<>/|")


class Endpoint:
    """A model behind a server that tells logprobs. See `Subject`.

    Turns are read from the logprobs' tokens, which show what the model wrote before the server's
    own parser; so special tokens are seen if the server shows them there, as vLLM does. Masses are
    those of the control tokens among the 20 likeliest; nothing is known of illegal tokens, and
    values are not told from the rest of a call. How the right turns are taken is known of servers
    that have vLLM's `prompt_logprobs` only. Where the server is toolguard's, `enforce` is asked,
    too.

    Args:
        url: its base, with a `/v1`; where it serves several models, followed by `#` and the name.
        wire_format: the format that the model writes, or its name.
        api_key: for its `Authorization`.
        batch: how many requests are sent at a time.
        max_new_tokens, temperature, seed: of the requests.
        timeout: seconds that one request may take.

    Raises:
        RequestError: it is not reached, serves several models, or tells no logprobs.
    """

    modes_in: tuple[Mode, ...] = ("unguarded", "repaired")

    def __init__(
        self,
        url: str,
        wire_format: WireFormat | str,
        *,
        api_key: str = "none",
        batch: int = 32,
        max_new_tokens: int = 160,
        temperature: float = 0.0,
        seed: int = 0,
        timeout: float = 600.0,
    ) -> None:
        self.url, _, name = url.partition("#")
        self.url = self.url.rstrip("/")
        self.wire_format = (
            wire_format if isinstance(wire_format, WireFormat) else WireFormat.load(wire_format)
        )
        self.batch = batch
        self.options = {"max_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
        self._headers, self._timeout = {"Authorization": f"Bearer {api_key}"}, timeout
        self._forces = True
        self.modes: tuple[Mode, ...] = ("unguarded", "repaired")
        with self._client() as client:
            models = self._models(client)
            self.name = name or self._only(models)
            # a vLLM may guard without saying so: it is told not to
            self._off = any(model.get("owned_by") == "vllm" for model in models)
            if client.get(f"{self.url.removesuffix('/v1')}/toolguard/stats").is_success:
                self.modes += ("enforce",)

    def answer(self, cases: Sequence[Case], mode: Mode) -> Iterator[Turn]:
        """See `Subject.answer`."""
        return self._each(
            lambda client, case: self._answer(client, case, self.wire_format, mode), cases
        )

    def answer_in(
        self, cases: Sequence[Case], wire_format: WireFormat, mode: Mode
    ) -> Iterator[Turn]:
        """See `Subject.answer_in`."""
        return self._each(
            lambda client, case: self._answer(client, case, wire_format, mode, False), cases
        )

    def force(self, cases: Sequence[Case]) -> Iterator[Forced]:
        """See `Subject.force`."""
        calling = [case for case in cases if case.calls]
        return (forced for forced in self._each(self._force, calling) if forced is not None)

    def _each(self, ask: Any, cases: Sequence[Case]) -> Iterator[Any]:
        with self._client() as client, ThreadPoolExecutor(self.batch) as pool:
            yield from pool.map(lambda case: ask(client, case), cases)

    def _client(self) -> httpx2.Client:
        return httpx2.Client(
            headers=self._headers,
            timeout=self._timeout,
            transport=httpx2.HTTPTransport(retries=3),
        )

    def _answer(
        self,
        client: httpx2.Client,
        case: Case,
        wire_format: WireFormat,
        mode: Mode,
        shown: bool = True,
    ) -> Turn:
        body: dict[str, Any] = {
            "messages": [_sent(message) for message in case.messages],
            "logprobs": True,
            "top_logprobs": TOP,
            **self.options,
        }
        if shown:
            body["tools"] = case.toolset.definitions
        if self._off and mode != "enforce":
            body["vllm_xargs"] = {"toolguard_policy": "off"}
        choice = self._post(client, body)["choices"][0]
        told = (choice.get("logprobs") or {}).get("content")
        if not told:
            raise RequestError(
                f"{self.url} tells no logprobs, from which turns are read: serve the model with "
                "them, or diagnose its weights"
            )
        ends = [end for end in wire_format.ends if end]
        ended = choice["finish_reason"] != "length"
        # vLLM tells the token that ended the turn, too, which the chat template alone may know.
        shown_end = self._off and ended and not isinstance(choice.get("stop_reason"), str)
        written = told[:-1] if shown_end else told
        tokens = [token for token in written if token["token"] not in ends]
        raw = _text(tokens)
        for end in ends:  # spelled by servers that show no special tokens
            raw = raw.removesuffix(end)
        turn = read_turn(raw, wire_format, case.toolset, ended=ended)
        if mode == "repaired":
            turn = repair(turn.raw, case.toolset, wire_format).after
        steps = tuple(_steps(told, wire_format))
        report = Report("observe", len(told), 0, len(told), 0.0, 0.0, (), steps, cut=not ended)
        return replace(turn, report=report)

    def _force(self, client: httpx2.Client, case: Case) -> Forced | None:
        if not self._forces:
            return None
        right = {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": f"call{place:05}", "type": "function", "function": _function(call)}
                for place, call in enumerate(case.calls)
            ],
        }
        messages = [*(_sent(message) for message in case.messages), right]
        answer = self._post(
            client,
            {
                "messages": messages,
                "tools": case.toolset.definitions,
                "add_generation_prompt": False,
                "prompt_logprobs": TOP,
                "max_tokens": 1,
            },
            may_refuse=True,
        )
        told = answer.get("prompt_logprobs")
        if not told:
            self._forces = False
            return None
        return _forced(case, [list(each.values()) for each in told if each], self.wire_format)

    def _models(self, client: httpx2.Client) -> list[dict[str, Any]]:
        try:
            answer = client.get(f"{self.url}/models").raise_for_status()
            return list(answer.json()["data"])
        except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
            raise RequestError(
                f"no OpenAI-compatible server answers at {self.url}: {error!r}; give its base URL, "
                "such as http://127.0.0.1:8000/v1"
            ) from error

    def _only(self, models: Sequence[Mapping[str, Any]]) -> str:
        names = [str(model["id"]) for model in models]
        if len(names) != 1:
            raise RequestError(
                f"{self.url} serves {', '.join(names) or 'no model'}: name one, {self.url}#NAME"
            )
        return names[0]

    def _post(
        self, client: httpx2.Client, body: Mapping[str, Any], may_refuse: bool = False
    ) -> Any:
        try:
            answer = client.post(f"{self.url}/chat/completions", json={"model": self.name, **body})
            if answer.is_client_error and may_refuse:
                return {}
            return answer.raise_for_status().json()
        except httpx2.HTTPStatusError as error:
            said = error.response.text[:300]
            raise RequestError(
                f"{self.url} answers {error.response.status_code}: {said}"
            ) from error
        except (httpx2.HTTPError, ValueError) as error:
            raise RequestError(f"{self.url} does not answer: {error!r}") from error


def _sent(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as it is sent: with the arguments of its calls as text."""
    calls = message.get("tool_calls")
    if not calls:
        return dict(message)
    return {
        **message,
        "tool_calls": [
            {
                "id": f"call{place:05}",
                "type": "function",
                **call,
                "function": _function(call.get("function", call)),
            }
            for place, call in enumerate(calls)
        ],
    }


def _function(call: Mapping[str, Any]) -> dict[str, str]:
    arguments = call["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {"name": call["name"], "arguments": text}


def _text(tokens: Sequence[Mapping[str, Any]]) -> str:
    """Characters may be cut between tokens: their bytes are joined first."""
    data = b"".join(
        bytes(token["bytes"]) if token.get("bytes") is not None else token["token"].encode()
        for token in tokens
    )
    return data.decode("utf-8", "replace")


def _steps(told: Sequence[Mapping[str, Any]], wire_format: WireFormat) -> Iterator[Step]:
    controls = {*wire_format.controls, *wire_format.ends}
    before = ""
    for number, token in enumerate(told):
        likeliest = sorted(token["top_logprobs"], key=lambda each: -each["logprob"])
        position = _position(before, wire_format)
        masses = {each["token"]: math.exp(each["logprob"]) for each in likeliest}
        texts = [each["token"] for each in likeliest]
        yield Step(
            step=number,
            region="call" if position in ("opened", "structure") else "text",
            position=position,
            token=token["token"],
            token_id=-1,
            masses={t: m for t, m in masses.items() if t in controls and m > GATE},
            illegal=0.0,
            pressure=0.0,
            rank=texts.index(token["token"]) + 1 if token["token"] in texts else 0,
        )
        before += token["token"]


def _position(before: str, wire_format: WireFormat) -> Position:
    """Where a turn stands, as far as its text tells."""
    opener, closer = wire_format.opener, wire_format.closer
    opened = before.rfind(opener) if opener else -1
    closed = before.rfind(closer) if closer else -1
    if not before.strip():
        return "start"
    if opened > closed:
        return "structure" if before[opened + len(opener) :].strip() else "opened"
    return "closed" if closed >= 0 else "text"


def _forced(
    case: Case, told: Sequence[Sequence[Mapping[str, Any]]], wire_format: WireFormat
) -> Forced | None:
    """How the right turn at the end of a prompt was taken: of each token of the prompt itself, and
    then those that were likelier."""
    texts = [each[0]["decoded_token"] for each in told]
    prompt = "".join(texts)
    asked = case.messages[-1]["content"] or ""
    start = max(prompt.rfind(asked), 0) + len(asked)
    spans = content_spans(prompt, case.calls, start)
    if not spans:
        return None
    ends = [0]
    for text in texts:
        ends.append(ends[-1] + len(text))
    content = [
        [at for at in range(len(texts)) if ends[at] < right and left < ends[at + 1]]
        for left, right in spans
    ]
    controls = {*wire_format.controls, *wire_format.ends}
    inside = {at for places in content for at in places}
    others = [at for at in range(min(inside), max(inside)) if at not in inside]
    return Forced(
        case.id,
        tuple(all(_chosen(told[at], controls) for at in places) for places in content),
        sum(told[at][0]["rank"] == 1 for at in others) / max(1, len(others)),
        sum(told[at][0]["logprob"] for at in (*others, *inside)),
        len(others) + len(inside),
        (),
    )


def _chosen(told: Sequence[Mapping[str, Any]], controls: set[str]) -> bool:
    """Whether no other content is likelier than the token itself, the first one."""
    token, *others = told
    if token["rank"] == 1:
        return True
    plain = _PUNCTUATION.issuperset(token["decoded_token"])
    return (
        not any(
            other["rank"] < token["rank"]
            and other["decoded_token"] not in controls
            and (plain or not _PUNCTUATION.issuperset(other["decoded_token"]))
            for other in others
        )
        and token["rank"] <= TOP
    )
