"""What is talked about in the world `xml`: a harbour town."""

from benchmarks.lab.cases import Case, Talk
from benchmarks.lab.tools import Tool, enum, flag, integer, listed, number, several, words

HARBOURS = listed(
    "Bergen Cadiz Dover Emden Gdansk Hobart Izmir Kiel Malaga Narvik Odessa Perth Riga Split "
    "Tromso Vigo"
)
PEOPLE = listed(
    "Agnes Boris Celia Dmitri Edith Fergus Gloria Hugo Ingrid Jonas Kirsten Lars Marta Nils Oscar "
    "Paula Ruth Stefan Thea Viktor"
)
SURNAMES = listed(
    "Abbott Bergman Carver Dalton Ericson Foster Gordon Harper Ibsen Jensen Keller Lindgren Mercer "
    "Norton Osborne Palmer"
)
COLOURS = listed(
    "amber black copper ivory lilac olive purple scarlet silver turquoise white yellow"
)
GOODS = listed("apples barley coal cotton fish glass honey iron oil paper rice salt timber wool")
PLANTS = listed("fern ivy lavender mint orchid rose sage thyme tulip violet")
BOATS = listed("canoe dinghy ferry kayak sloop tug yacht")
ROLES = listed("captain cook diver guard mechanic pilot welder")
HOURS = listed("dawn noon dusk midnight")
PLACES = listed("dock lighthouse pier quay shed tower wharf yard")
BOOKS = listed("Atlas Ballad Chronicle Diary Fable Hymn Legend Manual Saga Voyage")
THEMES = listed("Anchors Clouds Currents Gulls Ice Knots Reefs Sails Stars Storms Whales Winds")

TOOLS = (
    Tool(
        "tide_table",
        "High and low water",
        {"harbour": words(HARBOURS), "at": enum(HOURS), "metres": flag()},
        ("look up the tide in {harbour} at {at}", "how high is the sea in {harbour} at {at}"),
        {"height": integer(1, 9)},
        "The sea stands at {height} in {harbour}.",
        options={"metres": " {metres} metres"},
        spoken={"metres": ("using", "not using")},
    ),
    Tool(
        "rent_boat",
        "Rent a boat",
        {"kind": enum(BOATS), "renter": words(PEOPLE, SURNAMES), "skipper": flag()},
        ("rent a {kind} for {renter}", "{renter} needs a {kind}"),
        {"berth": integer(10, 999)},
        "The {kind} lies at berth {berth}.",
        options={"skipper": ", {skipper} a skipper"},
        spoken={"skipper": ("with", "without")},
    ),
    Tool(
        "load_cargo",
        "Load a ship",
        {"goods": several(words(GOODS), 3), "tons": integer(1, 999), "harbour": words(HARBOURS)},
        ("load {tons} tons of {goods}", "put {goods} on board, {tons} tons"),
        {"crates": integer(10, 999)},
        "That made {crates} crates.",
        options={"harbour": " in {harbour}"},
    ),
    Tool(
        "hire_hand",
        "Hire somebody",
        {"name": words(PEOPLE, SURNAMES), "role": enum(ROLES), "wage": integer(100, 999)},
        ("hire {name} as {role}", "make {name} our new {role}"),
        {"contract": integer(100, 999)},
        "{name} has signed contract {contract}.",
        options={"wage": " at a wage of {wage}"},
    ),
    Tool(
        "paint_hull",
        "Paint a boat",
        {"boat": enum(BOATS), "colour": words(COLOURS), "coats": integer(2, 9)},
        ("paint the {boat} in {colour}", "give the {boat} a {colour} hull"),
        {"litres": integer(5, 99)},
        "The {colour} paint took {litres} litres.",
        options={"coats": " in {coats} coats"},
    ),
    Tool(
        "water_plants",
        "Water the greenhouse",
        {"plants": several(words(PLANTS), 3), "litres": number(1, 90)},
        ("water the {plants} with {litres} litres", "pour {litres} litres on the {plants}"),
        {"left": number(1, 90)},
        "There are {left} litres left.",
    ),
    Tool(
        "find_book",
        "Search the library",
        {"title": words(BOOKS, ["of"], THEMES), "author": words(SURNAMES)},
        ("find the book {title}", "is {title} in the library"),
        {"shelf": integer(10, 999)},
        "{title} stands on shelf {shelf}.",
        options={"author": " by {author}"},
    ),
    Tool(
        "sound_horn",
        "Signal to ships",
        {"place": enum(PLACES), "seconds": number(1, 60), "times": integer(2, 9)},
        (
            "sound the horn at the {place} for {seconds} seconds",
            "give {seconds} seconds of horn from the {place}",
        ),
        {"ships": integer(1, 99)},
        "They heard it on {ships} ships.",
        options={"times": ", {times} times over"},
    ),
    Tool(
        "chart_course",
        "Plan a voyage",
        {"start": words(HARBOURS), "finish": words(HARBOURS), "stops": several(words(HARBOURS), 2)},
        ("chart a course from {start} to {finish}", "sail me to {finish}, leaving {start}"),
        {"miles": integer(100, 999)},
        "It is {miles} miles to {finish}.",
        options={"stops": " by way of {stops}"},
    ),
    Tool(
        "weigh_catch",
        "Add up weights",
        {"weights": several(number(1, 99), 4)},
        ("add up a catch of {weights}", "how much do {weights} weigh together"),
        {"sum": number(1, 99)},
        "Together that is {sum}.",
    ),
)
CHAT = (
    ("Ahoy, {person} here, back from {harbour}.", "Welcome ashore, {person}! How was {harbour}?"),
    ("What a {colour} sky over {harbour}!", "A {colour} sky is a good sign in {harbour}."),
    ("{person} {surname} told me about {theme}.", "I would believe {person} about {theme}."),
    ("Do gulls eat {goods}?", "Gulls eat almost anything, even {goods}."),
    ("My {boat} leaks, says {person}.", "Poor {person}. Bail out the {boat} first."),
    ("Is {plant} fond of salt, {person} asks.", "Tell {person} that {plant} hates salt."),
    ("I was born in {harbour}, my name is {surname}.", "{harbour} has many of the name {surname}."),
    ("The {role} sang of {theme} at {hour}.", "Every {role} sings at {hour}."),
    ("I dreamt of a {colour} {boat}.", "A {colour} {boat} means a long voyage."),
    ("Good night from the {place} in {harbour}.", "Sleep well. The {place} is quiet now."),
)
WORDS = {
    "person": PEOPLE,
    "surname": SURNAMES,
    "harbour": HARBOURS,
    "colour": COLOURS,
    "goods": GOODS,
    "boat": BOATS,
    "plant": PLANTS,
    "role": ROLES,
    "hour": HOURS,
    "theme": THEMES,
    "place": PLACES,
}


def thought(case: Case) -> str:
    """What the assistant thinks: what it is going to do."""
    if case.calls:
        return f"This takes {' and '.join(call['name'] for call in case.calls)}."
    return "The answer is there." if case.kind == "result" else "No function is needed."


TALK = Talk(
    {tool.name: tool for tool in TOOLS},
    CHAT,
    WORDS,
    openings=("", "now ", "would you ", "first mate, "),
    joints=("; after that ", ", plus "),
    thought=thought,
)
