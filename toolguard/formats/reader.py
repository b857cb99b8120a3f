"""The lark parser of a wire format: reads finished turns.

A turn is read as *marked text*: where a control token was sampled as one id, a marker character
stands in its place (a lone surrogate, which no decoded text can hold), so that a token and its
spelled-out twin are told apart, and a token inside a string is seen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lark import Lark

from .nodes import Alt, Control, Free, Literal, Node, Pattern, Ref, Repeat, Rules, Seq, Slot

_MARK = 0xDC00
MARKED = re.compile(r"[\udc00-\udcff]")
"""Any marker."""
STRAY = chr(_MARK + 0xFF)
"""The marker of a special token that the format does not know."""

TOOL_NAME = r"[\w./-]+"
"""What a tool may be called: the characters of the Model Context Protocol, in any script."""

SPACE = " \t\r\n"
"""White space, to masks and to the parser alike; Python's own idea of it is wider (`\\x1c`)."""

LEADING_SPACE = 16
"""How much white space may stand before text or instead of it."""


def marker(index: int) -> str:
    """The marker of the format's control token number `index`."""
    return chr(_MARK + index)


def unmark(marked: str, controls: Sequence[str]) -> str:
    """Marked text as a reader sees it: control tokens spelled out."""
    return MARKED.sub(
        lambda m: "\N{REPLACEMENT CHARACTER}" if m[0] == STRAY else controls[ord(m[0]) - _MARK],
        marked,
    )


def control_pattern(controls: Sequence[str]) -> str:
    """A regular expression for any control token, marked or spelled."""
    return "|".join([MARKED.pattern, *map(re.escape, controls)])


def text_pattern(controls: Sequence[str]) -> str:
    """A regular expression for a run of free text up to the next control token."""
    stop = control_pattern(controls)
    space = f"[ \\t\\r\\n]{{0,{LEADING_SPACE}}}"
    return rf"{space}(?!{stop})[^ \t\r\n](?:(?!{stop})[\s\S])*|[ \t\r\n]{{1,{LEADING_SPACE}}}"


def build_parser(rules: Rules, json: Rules, controls: Sequence[str]) -> Lark:
    """The LALR parser of a format; `json` are the rules that NAME and ARGUMENTS stand for."""
    terminals: dict[str, str] = {text_pattern(controls): "FREE"}
    for index, text in enumerate(controls):
        terminals[rf"\udc{index:02x}|{re.escape(text)}"] = f"CONTROL_{index}"

    def terminal(regex: str) -> str:
        return terminals.setdefault(regex, f"PATTERN_{len(terminals)}")

    def show(node: Node) -> str:
        match node:
            case Literal(text):
                return terminal(re.escape(text))
            case Pattern(regex):
                return terminal(regex)
            case Control(text):
                index = controls.index(text)
                return f"CONTROL_{index}"
            case Free():
                return "FREE"
            case Slot(name):
                return "name_" if name == "NAME" else "arguments_"
            case Ref(rule):
                return rule
            case Seq(items):
                return "(" + " ".join(map(show, items)) + ")"
            case Alt(options):
                return "(" + " | ".join(map(show, options)) + ")"
            case Repeat(item, low, high):
                return show(item) + {(0, 1): "?", (0, None): "*", (1, None): "+"}[low, high]
            case _:
                raise TypeError(f"{node!r} is no part of the notation")

    lines = [
        f"{name}: {show(node)}"
        for name, node in {**json, **rules}.items()
        if name.islower() and name != "end"
    ]
    lines += [f"name_: {terminal(TOOL_NAME)}", "arguments_: object"]
    lines += [f"{name}: {_delimited(regex)}" for regex, name in terminals.items()]
    return Lark(
        "\n".join(lines),
        start=["start", "opened"],
        parser="lalr",
        propagate_positions=True,
        keep_all_tokens=True,
        maybe_placeholders=False,
    )


def _delimited(regex: str) -> str:
    return "/" + regex.replace("/", r"\/") + "/"
