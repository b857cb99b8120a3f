"""What is talked about in the world `mistral`: a museum and its workshop."""

from benchmarks.lab.cases import Talk
from benchmarks.lab.tools import (
    Tool,
    code,
    enum,
    flag,
    integer,
    listed,
    number,
    record,
    several,
    words,
)

ARTISTS = listed(
    "Corot Degas Ensor Goya Hals Ingres Klee Manet Monet Munch Rodin Rubens Seurat Sisley Tapies "
    "Turner Utrillo Vermeer Warhol Zorn"
)
SUBJECTS = listed(
    "Bathers Bridge Cathedral Dancer Harvest Hunter Lady Miller Orchard Peasant Pond Sower Sunrise "
    "Tempest Vase Windmill"
)
KINDS = listed("bronze etching fresco mosaic pastel sketch tapestry")
HALLS = listed("attic annex chapel cellar gallery library rotunda vault")
STAFF = listed(
    "Amina Bruno Chloe Diego Elif Farid Greta Hassan Ines Jiro Keiko Luca Nadia Omar Pia Rafael"
)
MATERIALS = listed("chalk clay cork felt gesso gold linen marble slate velvet wax wood")
TOWNS = listed(
    "Arles Basel Cork Delft Essen Florence Ghent Jena Krakow Leiden Mainz Nimes Pisa Siena"
)
SCHOOLS = listed("Alder Birch Cedar Elm Hazel Linden Maple Poplar Rowan Willow")

TOOLS = (
    Tool(
        "hang_picture",
        "Hang a picture",
        {"picture": words(ARTISTS, SUBJECTS), "hall": enum(HALLS), "height": number(1, 4)},
        ("hang the {picture} in the {hall}", "I want to see the {picture} in the {hall}"),
        {"hook": integer(10, 99)},
        "The {picture} hangs on hook {hook}.",
        options={"height": ", {height} metres high"},
    ),
    Tool(
        "lend_work",
        "Lend a work",
        {"work": words(ARTISTS, SUBJECTS), "town": words(TOWNS), "weeks": integer(2, 60)},
        ("lend the {work} to {town}", "{town} asks for the {work}"),
        {"loan": code()},
        "The loan to {town} is {loan}.",
        options={"weeks": " for {weeks} weeks"},
    ),
    Tool(
        "order_material",
        "Order for the workshop",
        {
            "materials": several(words(MATERIALS), 3),
            "pay": record(fund=enum(HALLS), limit=integer(100, 900)),
        },
        (
            "order {materials}, at most {pay_limit} from the fund of the {pay_fund}",
            "the {pay_fund} fund pays {pay_limit} for {materials}",
        ),
        {"days": integer(2, 30)},
        "It all comes within {days} days.",
    ),
    Tool(
        "guide_group",
        "Plan a tour",
        {
            "guide": words(STAFF),
            "school": words(SCHOOLS),
            "pupils": integer(5, 60),
            "french": flag(),
        },
        (
            "let {guide} guide {pupils} pupils of {school}",
            "{school} comes with {pupils} pupils, {guide} shows them round",
        ),
        {"tour": integer(100, 999)},
        "{guide} leads tour {tour}.",
        options={"french": ", {french} French"},
        spoken={"french": ("in", "not in")},
    ),
    Tool(
        "set_climate",
        "Air of a hall",
        {"hall": enum(HALLS), "humidity": integer(30, 70), "degrees": number(15, 25)},
        (
            "keep the {hall} at {humidity} percent",
            "the air of the {hall} should have {humidity} percent",
        ),
        {"minutes": integer(5, 90)},
        "The {hall} gets there in {minutes} minutes.",
        options={"degrees": " and {degrees} degrees"},
    ),
    Tool(
        "restore_piece",
        "Restore a piece",
        {"label": code(), "kind": enum(KINDS), "by": words(STAFF)},
        ("have the {kind} {label} restored", "{label} is a {kind} that needs repair"),
        {"cost": integer(100, 9999)},
        "To restore the {kind} costs {cost}.",
        options={"by": " by {by}"},
    ),
    Tool(
        "print_poster",
        "Print posters",
        {"motif": words(ARTISTS, SUBJECTS), "copies": integer(10, 999), "glossy": flag()},
        (
            "print {copies} posters of the {motif}",
            "we sell the {motif} as a poster, {copies} of them",
        ),
        {"price": number(1, 20)},
        "A poster costs {price}.",
        options={"glossy": " on {glossy} paper"},
        spoken={"glossy": ("glossy", "plain")},
    ),
    Tool(
        "rate_visit",
        "Note how visitors liked it",
        {"marks": several(integer(1, 99), 4), "hall": enum(HALLS)},
        ("note the marks {marks}", "visitors gave us {marks}"),
        {"mean": number(1, 99)},
        "The mean is {mean}.",
        options={"hall": " for the {hall}"},
    ),
    Tool(
        "call_guard",
        "Send a guard",
        {"hall": enum(HALLS), "guard": words(STAFF), "reason": words(MATERIALS, KINDS)},
        (
            "send {guard} to the {hall}, somebody touched the {reason}",
            "the {reason} in the {hall} is in danger, {guard} must go",
        ),
        {"seconds": integer(10, 300)},
        "{guard} is in the {hall} in {seconds} seconds.",
    ),
)
CHAT = (
    ("I am {person} and I admire {artist}.", "{artist} would be glad of it, {person}."),
    ("{artist} never painted in {town}, did he?", "I doubt that {artist} ever saw {town}."),
    ("My aunt has a {kind} made of {material}.", "A {kind} of {material}? That is rare."),
    ("The {hall} smells of {material}.", "Old rooms do, and the {hall} is very old."),
    ("Was the {subject} by {artist} a gift?", "The {subject} was a gift of {artist} himself."),
    ("Thank you, {school} loved the {subject}.", "Then {school} has good taste."),
    ("{person} fell asleep in the {hall}.", "Let {person} sleep, the {hall} is calm."),
    ("Which is heavier, {material} or {other}?", "That depends on how much {material} it is."),
    ("Greetings from {town}, yours {person}.", "Greetings to {town}, dear {person}!"),
)
WORDS = {
    "person": STAFF,
    "artist": ARTISTS,
    "subject": SUBJECTS,
    "town": TOWNS,
    "kind": KINDS,
    "hall": HALLS,
    "material": MATERIALS,
    "other": MATERIALS,
    "school": SCHOOLS,
}
TALK = Talk(
    {tool.name: tool for tool in TOOLS},
    CHAT,
    WORDS,
    openings=("", "kindly ", "next, ", "for tomorrow: "),
    joints=(" as well as this: ", ". Then "),
)
