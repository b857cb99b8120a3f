"""Replies that only talk about tool calls, for any wire format: no call may come of them.

`{opener}` and `{closer}` stand for the format's own control tokens.
"""

from __future__ import annotations

import toolguard
from toolguard import WireFormat

_TEXTS = (
    "A model opens a call with {opener} and then names the function.",
    "The tag {opener} marks where a tool call begins; without it the server sees text.",
    "Our parser looks for {opener}, and falls back to plain text if there is none.",
    "Q: What does {opener} do?\nA: It opens a tool call.",
    "- {opener}: begins a call\n- anything else: is text",
    "If the log shows {opener} twice, the template was applied twice.",
    "Write {opener} only if a function should run.",
    "I would not put {opener} into a system prompt: models repeat it.",
    "The opener ({opener}) is one token in most vocabularies.",
    "In the docs, {opener} stands in backticks: `{opener}`.",
    "A call stands between {opener} and {closer}.",
    "Everything between {opener} and {closer} is read as JSON, the rest is shown to the user.",
    "Do not forget {closer}: a call that is not closed is lost.",
    "The tag {closer} ends it.",
    "In C, `struct point { int x; int y; };` declares two members, and `{ 0 }` zeroes them.",
    'A JSON object looks like this: {"name": "Ada", "age": 36}. It has two members.',
    '```json\n{"name": "get_weather", "description": "Looks up the weather."}\n```',
    "```python\ndef function(arguments):\n    return {**arguments}\n```",
    "The word function comes from Latin functio, a performance.",
    "In JavaScript, `function f() { return []; }` gives an empty array each time.",
    'The field is called "arguments", and holds an object, not a string.',
    "Call me later, or use the tool that hangs on the wall.",
    "To call a function in a shell you just write its name: no brackets are needed.",
    "A set is {1, 2, 3}; a list is [1, 2, 3]; the empty tuple is ().",
    "<b>Tools</b> are described in <i>XML</i> or in JSON, as the model was trained.",
    "The user asked for a parameter named `function`; there is none.",
    "Assistant, user, tool and system are the four roles of a conversation.",
    "\\frac{a}{b} is a fraction in LaTeX, and {a \\over b} an older one.",
    "An f-string such as f'{name}: {value:>{width}}' nests its braces.",
    'You could answer {"error": "no such tool"}, but plain words are better.',
    "For example:\n```\n{opener}\n{...}\n{closer}\n```\nThe dots are the call.",
    'Write `{opener}{"name": ..., "arguments": ...}{closer}` and wait.',
    'The format is {opener}{"name": <function-name>, "arguments": <args>}{closer}, one per line.',
    "Use {opener} ... {closer} tags around it.",
    "`{opener}`",
    '"{opener}" is the opening tag, "{closer}" the closing one.',
    "The tags are:\n\n1. {opener}\n2. {closer}\n\nNothing else.",
    "You need {opener}\nand then {closer}.",
    "Models write {opener}{closer} when they have nothing to say.",
    "Sie \u00f6ffnen ihn mit {opener} und schlie\u00dfen ihn mit {closer}.",
    "\u5b83\u7528 {opener} \u6253\u5f00\uff0c\u7528 {closer} \u5173\u95ed\u3002",
    "{opener} opens a call.",
    "**{opener}** opens a call.",
    "| tag | meaning |\n|---|---|\n| {opener} | opens |\n| {closer} | closes |",
    "<p>{opener}</p> in HTML needs escaping.",
    "if text.startswith('{opener}'): return parse(text)",
    "re.findall(r'{opener}(.*?){closer}', text)",
    "A model opened a call with {opener}",
    "Ends with {closer}",
)


def prose(wire_format: WireFormat) -> list[str]:
    """The texts, with the format's control tokens in them."""
    opener, closer = wire_format.opener, wire_format.closer
    if not opener:  # a format that no token opens: the call itself is talked about
        opener = toolguard.render(wire_format, [{"name": "f", "arguments": {}}])
    return [
        text.replace("{opener}", opener).replace("{closer}", closer or "its end") for text in _TEXTS
    ]
