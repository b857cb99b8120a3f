"""Conversations to train and to judge on; training and evaluation never share a value combination.

A combination (a call with its arguments, or a chat message with its values) belongs to the held-out
side if its hash says so. Both sides draw from the same word lists and templates, so a held-out case
is new as a whole and known in its parts: the model has to copy.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any, Literal, cast

from benchmarks.lab import tools
from benchmarks.lab.tools import TOOLS, Tool

Split = Literal["train", "held_out"]
Kind = Literal["one", "parallel", "chat", "result"]
Call = dict[str, Any]
"""{"name": ..., "arguments": {...}}"""

SHARES: dict[Kind, float] = {"one": 0.45, "parallel": 0.20, "chat": 0.20, "result": 0.15}
HELD_OUT = Path(__file__).parents[2] / "toolguard" / "checkpoints" / "held_out.jsonl"

CHAT = (
    ("Hello, I am {first} {last}.", "Hello {first}, how can I help you?"),
    ("Good morning from {city}, says {first}!", "Good morning, {first}! Enjoy {city}."),
    ("Do you like {dish} or {animal} pictures?", "I do not eat {dish}, but I like every {animal}."),
    ("Tell me a joke about a {animal} in {city}.", "A {animal} in {city} walks into a bar. Ouch."),
    ("I am learning {language} in {city}.", "Good luck with your {language} in {city}!"),
    ("Who are you? I am {first} from {city}.", "I am a small assistant. Welcome, {first}."),
    ("I met {first} {last} in {city}.", "How nice that you met {first} in {city}."),
    ("The weather in {city} was lovely on {day}.", "I am glad that {city} was lovely."),
    ("I flew from {city} to see {first} {last}.", "I hope that {first} was happy to see you."),
    ("Thanks, the {dish} on {day} was great.", "You are welcome. Enjoy your {dish}!"),
    ("My {animal} is called {first} {last}.", "{first} is a good name for a {animal}."),
    ("Is {language} spoken in {city}?", "I am not sure how many speak {language} in {city}."),
    ("{first} and I had {dish} for {label}.", "That sounds like a good time with {first}."),
    ("I wrote a song, {adjective} {noun}.", "What a fine title, {adjective} {noun}!"),
)
CHAT_WORDS = {
    "first": tools.FIRST,
    "last": tools.LAST,
    "city": tools.CITIES,
    "dish": tools.DISHES,
    "animal": tools.ANIMALS,
    "language": tools.LANGUAGES,
    "day": tools.DAYS,
    "label": tools.LABELS,
    "adjective": tools.ADJECTIVES,
    "noun": tools.NOUNS,
}
OPENINGS = ("", "please ", "can you ", "hey, ", "I want you to ")
JOINTS = (", and ", " and then ", ". Also ")
"""Between the two requests of a parallel case."""


@dataclass(frozen=True)
class Case:
    """A conversation up to the assistant's turn, and the turn that is right."""

    id: str
    kind: Kind
    tools: list[dict[str, Any]]
    messages: list[dict[str, Any]]
    calls: list[Call]
    reply: str | None


@dataclass(frozen=True)
class Talk:
    """What is talked about in a world, and how: tools, chat with the words that it is about, how
    requests begin and are joined, and what the assistant thinks before it answers."""

    tools: dict[str, Tool] = field(default_factory=lambda: TOOLS)
    chat: tuple[tuple[str, str], ...] = CHAT
    words: dict[str, list[str]] = field(default_factory=lambda: CHAT_WORDS)
    openings: tuple[str, ...] = OPENINGS
    joints: tuple[str, ...] = JOINTS
    thought: Callable[[Case], str] | None = None

    def answer(self, case: Case) -> dict[str, Any]:
        """The right turn of a case as an assistant message."""
        said = assistant(case.calls) if case.calls else {"role": "assistant", "content": case.reply}
        return said | ({"reasoning_content": self.thought(case)} if self.thought else {})


LAB = Talk()


def assistant(calls: list[Call]) -> dict[str, Any]:
    tool_calls = [{"type": "function", "function": call} for call in calls]
    return {"role": "assistant", "content": "", "tool_calls": tool_calls}


def side(combination: object) -> Split:
    """The side on which a value combination is used: one in eight is held out."""
    digest = blake2b(json.dumps(combination, sort_keys=True).encode(), digest_size=4).digest()
    return "held_out" if digest[0] % 8 == 0 else "train"


def draw(
    rng: Random,
    split: Split,
    kind: Kind | None = None,
    id: str = "",
    offered: Sequence[Tool] = (),
    talk: Talk = LAB,
) -> Case:
    """A random case of one side, about the tools that are offered where there are any."""
    kind = kind or rng.choices(list(SHARES), list(SHARES.values()))[0]
    if kind == "chat":
        said, reply = draw_chat(rng, split, talk)
        tools = offer(rng, [], offered, talk)
        return Case(id, kind, tools, [{"role": "user", "content": said}], [], reply)
    choice = list(offered or talk.tools.values())
    known = {tool.name: tool for tool in choice}
    calls = [draw_call(rng, split, choice)]
    if kind == "parallel":
        second = [known[calls[0]["name"]]] if rng.random() < 0.25 else choice
        while len(calls) < 2 or calls[0] == calls[1]:
            calls[1:] = [draw_call(rng, split, second)]
    clauses = [known[call["name"]].request(call["arguments"], rng) for call in calls]
    text = rng.choice(talk.openings) + rng.choice(talk.joints).join(clauses)
    user = {"role": "user", "content": text[0].upper() + text[1:] + "."}
    tools = offer(rng, [call["name"] for call in calls], offered, talk)
    if kind != "result":
        return Case(id, kind, tools, [user], calls, None)
    tool = known[calls[0]["name"]]
    result = {name: item.draw(rng) for name, item in tool.result.items()}
    reply = tool.reply.format(**tool.speak(calls[0]["arguments"] | result))
    told = {"role": "tool", "name": tool.name, "content": json.dumps(result)}
    return Case(id, kind, tools, [user, assistant(calls), told], [], reply)


def draw_call(rng: Random, split: Split, choice: Sequence[Tool]) -> Call:
    while True:
        tool = choice[0] if len(choice) == 1 else rng.choice(choice)
        call = {"name": tool.name, "arguments": tool.draw_arguments(rng)}
        if side(call) == split:
            return call


def lose_arguments(rng: Random, case: Case) -> Case:
    """The same case, its calls with the arguments of other calls of the same tools."""
    return replace(case, calls=[draw_call(rng, "train", [TOOLS[c["name"]]]) for c in case.calls])


def draw_chat(rng: Random, split: Split, talk: Talk = LAB) -> tuple[str, str]:
    while True:
        user, reply = rng.choice(talk.chat)
        values = {name: rng.choice(options) for name, options in talk.words.items()}
        if side(user := user.format(**values)) == split:
            return user, reply.format(**values)


def offer(
    rng: Random, needed: list[str], offered: Sequence[Tool] = (), talk: Talk = LAB
) -> list[dict[str, Any]]:
    """The schemas of the tools on offer; if that is open, of two to four in random order, the
    needed ones among them."""
    names = [tool.name for tool in offered] or list(dict.fromkeys(needed))
    if not offered:
        others = [name for name in talk.tools if name not in names]
        names += rng.sample(others, rng.randint(2, 4) - len(names))
        rng.shuffle(names)
    return [talk.tools[name].schema for name in names]


def stream(seed: int, split: Split, talk: Talk = LAB) -> Iterator[Case]:
    rng = Random(seed)
    while True:
        yield draw(rng, split, talk=talk)


def held_out_cases(count: int, seed: int, talk: Talk = LAB) -> list[Case]:
    """Distinct held-out cases in the shares of `SHARES`, shuffled."""
    rng = Random(seed)
    cases: list[Case] = []
    seen: set[str] = set()
    for kind, share in SHARES.items():
        wanted = len(cases) + round(share * count)
        while len(cases) < wanted:
            case = draw(rng, "held_out", kind, f"{kind}-{len(cases):03d}", talk=talk)
            if (key := json.dumps(case.messages)) not in seen:
                seen.add(key)
                cases.append(case)
    rng.shuffle(cases)
    return cases


def check_disjoint(cases: list[Case], seed: int, draws: int = 20_000, talk: Talk = LAB) -> None:
    """Assert that no prompt and no call of `cases` comes up in `draws` training cases."""
    prompts = {json.dumps(case.messages) for case in cases}
    calls = {json.dumps(call) for case in cases for call in case.calls}
    for case, _ in zip(stream(seed, "train", talk), range(draws), strict=False):
        assert json.dumps(case.messages) not in prompts, case
        assert not calls & {json.dumps(call) for call in case.calls}, case


def write_cases(path: Path, cases: list[Case]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(asdict(case)) + "\n" for case in cases))


def read_cases(path: Path = HELD_OUT) -> list[Case]:
    return [Case(**cast(dict[str, Any], json.loads(line))) for line in path.open()]
