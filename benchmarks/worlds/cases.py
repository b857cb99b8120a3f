"""What the real model is taught and asked: the lab's tools, four of them kept back, and for those
that it knows, words that it was never asked in."""

from dataclasses import replace
from random import Random

from benchmarks.lab.cases import CHAT_WORDS, Case, Kind, draw, offer
from benchmarks.lab.tools import TOOLS, Tool

UNSEEN = ("search_hotels", "send_email", "set_alarm", "add_contact")
SEEN = {name: tool for name, tool in TOOLS.items() if name not in UNSEEN}
KINDS: dict[Kind, float] = {"one": 0.6, "parallel": 0.15, "chat": 0.25}

ASKED = {
    "get_weather": "what should I expect of the weather in {city}",
    "book_flight": "get {passengers} of us on a plane that goes from {origin} to {destination}",
    "convert_currency": "how much is {amount} {source} in {target}",
    "create_playlist": "I need some music: {title}, by {artists}",
    "transfer_money": "{recipient} should get {amount} from my account",
    "set_light": "the lamp in the {room} should be {on}",
    "create_event": "I have {title} on {when_day}, it starts at {when_hour}",
    "order_food": "we are hungry at {address_number} {address_street}, get us {dishes}",
    "average": "what do {values} come to on average",
    "translate": "how would they put {text} in {language}",
    "track_parcel": "has {code} left the post office yet",
    "set_thermostat": "I would like {degrees} degrees in the {room}",
}
"""A phrasing of each seen tool that it was not taught."""
TALK = (
    "What a lovely {adjective} day in {city}!",
    "{first} says that {dish} tastes better in {city}.",
    "Never mind, {first} has done it already.",
    "Could you explain what a {animal} eats?",
    "I have been reading {adjective} {noun} since {day}.",
    "Which of the two is older, {city} or {language}?",
)


def taught(rng: Random, count: int) -> list[Case]:
    """Cases of the training side about the same one to three tools. Those with arguments that may
    be left out come twice as often: that is what a small model gets wrong."""
    offered = drawn_tools(rng, rng.choice((1, 2, 2, 3)))
    kinds = rng.choices(list(KINDS), list(KINDS.values()), k=count)
    return [draw(rng, "train", kind, offered=offered) for kind in kinds]


def drawn_tools(rng: Random, count: int) -> list[Tool]:
    names = list(SEEN) + [name for name, tool in SEEN.items() if tool.options]
    chosen: dict[str, Tool] = {}
    while len(chosen) < count:
        name = rng.choice(names)
        chosen[name] = SEEN[name]
    return list(chosen.values())


def held_out(count: int, seed: int) -> list[Case]:
    """Cases that need one call: of seen tools, of those in new words, of unseen tools; cases that
    need two; and cases that need none, half of them in new words. As many of each."""
    rng = Random(f"held out {seed}")
    cases = []
    for number in range(count):
        pair = drawn_tools(rng, 2)
        new = [replace(tool, ask=(ASKED[tool.name],)) for tool in pair]
        unseen = [TOOLS[name] for name in rng.sample(UNSEEN, 2)]
        cases += [
            draw(rng, "held_out", "one", f"seen-{number}", pair),
            draw(rng, "held_out", "one", f"words-{number}", new),
            draw(rng, "held_out", "one", f"tools-{number}", unseen),
            draw(rng, "held_out", "parallel", f"two-{number}", pair),
            draw(rng, "held_out", "chat", f"chat-{number}", pair),
            talk(rng, f"talk-{number}", pair),
        ]
    return cases


def talk(rng: Random, id: str, offered: list[Tool]) -> Case:
    values = {name: rng.choice(options) for name, options in CHAT_WORDS.items()}
    said = rng.choice(TALK).format(**values)
    message = {"role": "user", "content": said}
    return Case(id, "chat", offer(rng, [], offered), [message], [], None)
