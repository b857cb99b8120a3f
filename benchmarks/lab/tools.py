"""The tools of the synthetic world: their schemas, values, and how people ask for them.

Values are drawn from short word lists but in many combinations, so that a model has to copy them
from the request instead of remembering them.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any


def listed(text: str) -> list[str]:
    return text.split()


CITIES = listed(
    "Oslo Paris Lima Cairo Tokyo Rome Berlin Madrid Dublin Vienna Athens Lisbon Prague Warsaw "
    "Helsinki Zurich Geneva Boston Denver Austin Toronto Sydney Delhi Seoul Quito Nairobi Accra "
    "Porto Milan Turin Lyon Nice Bonn Leeds Bristol Kyoto Osaka Manila Havana Bogota"
)
FIRST = listed(
    "Anna Ben Clara David Emma Felix Grace Henry Irene Jack Kate Leo Mia Noah Olga Peter Quinn "
    "Rosa Sam Tina Ugo Vera Will Xenia Yara Zoe Adam Bella Carl Dora Erik Fiona"
)
LAST = listed(
    "Smith Jones Brown Lopez Garcia Weber Fischer Rossi Silva Costa Novak Kim Park Tanaka Singh "
    "Khan Moreau Dubois Larsen Berg Nilsson Walker Young Hill"
)
ADJECTIVES = listed(
    "Blue Red Green Golden Silver Quiet Happy Silent Broken Little Wild Gentle Hidden Lucky Early "
    "Northern Second Simple Bright Distant"
)
NOUNS = listed(
    "River Moon Garden Mountain Letter Window Forest Harbor Summer Winter Mirror Engine Market "
    "Planet Bridge Island Castle Thunder Lantern Shadow"
)
DISHES = listed(
    "pizza sushi ramen tacos curry lasagna falafel risotto burger noodles paella salad soup kebab "
    "dumplings pancakes"
)
ANIMALS = listed("cat dog horse rabbit tiger parrot dolphin turtle falcon spider lizard donkey")
DAYS = listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
ROOMS = listed("kitchen bedroom bathroom office garage hallway")
LANGUAGES = listed("French German Spanish Italian Polish Turkish Korean Dutch")
CURRENCIES = listed("EUR USD GBP JPY CHF SEK")
LABELS = listed("tea laundry workout meeting homework bread yoga medicine lunch reading")

Value = Any
"""A JSON value."""


@dataclass(frozen=True)
class Field:
    """An argument: its JSON schema, and how to draw a value for it."""

    schema: dict[str, Value]
    draw: Callable[[Random], Value]


def words(*lists: list[str]) -> Field:
    return Field({"type": "string"}, lambda rng: " ".join(rng.choice(options) for options in lists))


def enum(options: list[str]) -> Field:
    return Field({"type": "string", "enum": options}, lambda rng: rng.choice(options))


def integer(low: int, high: int) -> Field:
    return Field({"type": "integer"}, lambda rng: rng.randint(low, high))


def number(low: int, high: int) -> Field:
    """A number with one decimal that is not zero, so that it reads the same in every JSON."""
    return Field(
        {"type": "number"}, lambda rng: rng.randint(low, high - 1) + rng.randint(1, 9) / 10
    )


def flag() -> Field:
    return Field({"type": "boolean"}, lambda rng: rng.random() < 0.5)


def code() -> Field:
    return Field(
        {"type": "string"},
        lambda rng: rng.choice("ABCDEFGH") + rng.choice("KLMNPQRS") + str(rng.randint(1000, 99999)),
    )


def several(item: Field, most: int = 3) -> Field:
    def draw(rng: Random) -> list[Value]:
        values: list[Value] = []
        size = rng.randint(2, most)
        while len(values) < size:
            if (value := item.draw(rng)) not in values:
                values.append(value)
        return values

    return Field({"type": "array", "items": item.schema}, draw)


def record(**fields: Field) -> Field:
    return Field(
        object_schema(fields, list(fields)),
        lambda rng: {name: item.draw(rng) for name, item in fields.items()},
    )


def object_schema(fields: dict[str, Field], required: list[str]) -> dict[str, Value]:
    properties = {name: item.schema for name, item in fields.items()}
    return {"type": "object", "properties": properties, "required": required}


@dataclass(frozen=True)
class Tool:
    """A tool, what its users say, what it returns, and how the result is told.

    `ask`, `options` and `reply` are format strings over the spoken arguments; nested arguments are
    `{outer_inner}`. An argument named in `options` is optional: it is given if, and only if, its
    clause is said. `spoken` gives the words for true and false.
    """

    name: str
    description: str
    fields: dict[str, Field]
    ask: tuple[str, ...]
    result: dict[str, Field]
    reply: str
    options: dict[str, str] = field(default_factory=dict)
    spoken: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def schema(self) -> dict[str, Value]:
        """The tool as an OpenAI style definition."""
        required = [name for name in self.fields if name not in self.options]
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": object_schema(self.fields, required),
        }
        return {"type": "function", "function": function}

    def draw_arguments(self, rng: Random) -> dict[str, Value]:
        return {
            name: item.draw(rng)
            for name, item in self.fields.items()
            if name not in self.options or rng.random() < 0.5
        }

    def request(self, arguments: dict[str, Value], rng: Random) -> str:
        """What a user says to get this call: a clause without capital letter or full stop."""
        text = rng.choice(self.ask)
        text += "".join(clause for name, clause in self.options.items() if name in arguments)
        return text.format(**self.speak(arguments))

    def speak(self, values: dict[str, Value], prefix: str = "") -> dict[str, str]:
        """Every value as a person says it, by name."""
        spoken: dict[str, str] = {}
        for name, value in values.items():
            match value:
                case dict():
                    spoken |= self.speak(value, f"{prefix}{name}_")
                case bool():
                    spoken[prefix + name] = self.spoken[name][0 if value else 1]
                case list():
                    items = [say(item) for item in value]
                    spoken[prefix + name] = f"{', '.join(items[:-1])} and {items[-1]}"
                case _:
                    spoken[prefix + name] = say(value)
        return spoken


def say(value: Value) -> str:
    return value if isinstance(value, str) else json.dumps(value)


TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            "get_weather",
            "Current weather",
            {"city": words(CITIES), "unit": enum(["celsius", "fahrenheit"])},
            ("tell me the weather in {city}", "check how warm it is in {city}"),
            {"degrees": integer(1, 39), "sky": enum(["sunny", "cloudy", "rainy", "windy"])},
            "It is {sky} in {city}, {degrees} degrees.",
            options={"unit": " in {unit}"},
        ),
        Tool(
            "send_email",
            "Send an email",
            {"to": words(FIRST, LAST), "subject": words(ADJECTIVES, NOUNS), "urgent": flag()},
            ("send an email to {to} about {subject}", "write to {to} with subject {subject}"),
            {"message_id": integer(100, 9999)},
            "I sent your email to {to}, number {message_id}.",
            options={"urgent": ", marked as {urgent}"},
            spoken={"urgent": ("urgent", "not urgent")},
        ),
        Tool(
            "book_flight",
            "Book a flight",
            {
                "origin": words(CITIES),
                "destination": words(CITIES),
                "passengers": integer(1, 9),
                "cabin": enum(["economy", "business", "first"]),
            },
            (
                "book a flight from {origin} to {destination} for {passengers}",
                "reserve {passengers} seats from {origin} to {destination}",
            ),
            {"booking": code()},
            "Your flight to {destination} is booked as {booking}.",
            options={"cabin": " in {cabin} class"},
        ),
        Tool(
            "set_alarm",
            "Set an alarm",
            {"hour": integer(0, 23), "minute": integer(0, 59), "label": words(LABELS)},
            ("set an alarm at {hour}:{minute}", "wake me at {hour}:{minute}"),
            {"alarms": integer(1, 9)},
            "Your alarm is set. You have {alarms} alarms.",
            options={"label": " for {label}"},
        ),
        Tool(
            "convert_currency",
            "Convert money",
            {"amount": number(1, 900), "source": enum(CURRENCIES), "target": enum(CURRENCIES)},
            ("convert {amount} {source} to {target}", "change {amount} {source} into {target}"),
            {"converted": number(1, 9000)},
            "That is {converted} {target}.",
        ),
        Tool(
            "create_playlist",
            "Create a playlist",
            {"title": words(ADJECTIVES, NOUNS), "artists": several(words(FIRST, LAST), 2)},
            ("make a playlist {title} with {artists}", "create a list {title} of {artists}"),
            {"songs": integer(10, 99)},
            "The playlist {title} has {songs} songs.",
        ),
        Tool(
            "transfer_money",
            "Send money",
            {"recipient": words(FIRST, LAST), "amount": number(1, 900), "instant": flag()},
            ("transfer {amount} to {recipient}", "pay {recipient} the amount {amount}"),
            {"balance": number(1, 9000)},
            "Done. Your balance is {balance}.",
            options={"instant": " with {instant} delivery"},
            spoken={"instant": ("instant", "normal")},
        ),
        Tool(
            "set_light",
            "Control a light",
            {"room": enum(ROOMS), "on": flag(), "brightness": integer(1, 99)},
            ("turn {on} the light in the {room}", "switch {on} the {room} light"),
            {"watts": integer(1, 60)},
            "The {room} light now uses {watts} watts.",
            options={"brightness": " at {brightness} percent"},
            spoken={"on": ("on", "off")},
        ),
        Tool(
            "create_event",
            "Add to the calendar",
            {
                "title": words(ADJECTIVES, NOUNS),
                "when": record(day=enum(DAYS), hour=integer(0, 23)),
                "guests": several(words(FIRST), 3),
            },
            (
                "plan {title} on {when_day} at {when_hour}",
                "add {title} on {when_day} at {when_hour}",
            ),
            {"event_id": integer(100, 9999)},
            "I added {title} on {when_day} as event {event_id}.",
            options={"guests": " and invite {guests}"},
        ),
        Tool(
            "order_food",
            "Order a meal",
            {
                "dishes": several(words(DISHES), 3),
                "address": record(street=words(ADJECTIVES, NOUNS), number=integer(1, 200)),
            },
            (
                "order {dishes} to {address_number} {address_street}",
                "bring {dishes} to {address_number} {address_street}",
            ),
            {"minutes": integer(10, 90)},
            "Your food arrives at {address_street} in {minutes} minutes.",
        ),
        Tool(
            "search_hotels",
            "Find hotels",
            {"city": words(CITIES), "max_price": number(40, 400), "breakfast": flag()},
            (
                "find a hotel in {city} below {max_price}",
                "look for rooms in {city} under {max_price}",
            ),
            {"hotel": words(ADJECTIVES, NOUNS), "price": number(40, 400)},
            "The {hotel} in {city} costs {price}.",
            options={"breakfast": " {breakfast} breakfast"},
            spoken={"breakfast": ("with", "without")},
        ),
        Tool(
            "average",
            "Mean of numbers",
            {"values": several(number(1, 99), 4)},
            ("compute the average of {values}", "find the mean of {values}"),
            {"mean": number(1, 99)},
            "The average is {mean}.",
        ),
        Tool(
            "translate",
            "Translate a text",
            {"text": words(ADJECTIVES, NOUNS), "language": enum(LANGUAGES)},
            ("translate {text} to {language}", "say {text} in {language}"),
            {"characters": integer(5, 40)},
            "I translated {text} to {language}, {characters} characters.",
        ),
        Tool(
            "track_parcel",
            "Find a parcel",
            {"code": code()},
            ("track parcel {code}", "find out where parcel {code} is"),
            {"city": words(CITIES), "day": enum(DAYS)},
            "The parcel is in {city} and arrives on {day}.",
        ),
        Tool(
            "set_thermostat",
            "Set the heating",
            {"room": enum(ROOMS), "degrees": number(10, 28), "days": several(enum(DAYS), 3)},
            ("heat the {room} to {degrees}", "set the {room} to {degrees} degrees"),
            {"current": number(8, 30)},
            "The {room} is at {current} degrees now.",
            options={"days": " on {days}"},
        ),
        Tool(
            "add_contact",
            "Save a contact",
            {
                "name": words(FIRST, LAST),
                "phone": record(
                    kind=enum(["home", "work", "mobile"]), digits=integer(10000, 99999)
                ),
            },
            (
                "save {name} with {phone_kind} number {phone_digits}",
                "add {name} to my contacts, {phone_kind} {phone_digits}",
            ),
            {"contacts": integer(10, 400)},
            "I saved {name}. You have {contacts} contacts.",
        ),
    )
}
