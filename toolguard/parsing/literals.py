"""Reads Python literals, and JSON as one of them."""

from __future__ import annotations

import ast
import re
from functools import cache
from typing import Any

from lark import Lark, UnexpectedInput

from ..formats.nodes import Ref, Seq, optional
from ..formats.reader import SPACE, build_reader
from ..formats.wire_format import library
from ..tools.toolset import Arguments, parse_json


def checked(text: str) -> str:
    """A text that no grammar has read yet, if it is a literal as masks have them.

    Python takes more, such as `.5`, and so does Python's JSON, such as `1e000`. White space around
    it is as bounded as elsewhere.

    Raises:
        ValueError: it is none.
    """
    try:
        _literals().parse(text, start="start")
    except UnexpectedInput as error:
        raise ValueError(f"{text[:40]!r} is no literal") from error
    return text


@cache
def _literals() -> Lark:
    rules = library("literals")
    space = optional(rules["WS"])
    spaced = Seq((space, Ref("literal"), space))
    starts = dict.fromkeys(("start", "opened", "reply"), spaced)
    return build_reader(starts, rules, ()).lark


def read_literal(text: str, json_too: bool) -> Any:
    """A Python literal, or JSON.

    Raises:
        ValueError: it is none.
    """
    if json_too:
        try:
            return parse_json(text)
        except ValueError:
            pass
    try:
        text = _SLASH.sub(r"\1/" if json_too else _no_escape, text)
        return _plain(ast.parse(text.strip(SPACE), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text[:40]!r} is no literal: {error}") from error


_SLASH = re.compile(r"(?<!\\)((?:\\\\)*)\\/")
"""An escape of JSON that Python does not have: there it would be two characters."""


def _no_escape(slash: re.Match[str]) -> str:
    raise ValueError(f"{slash[0]!r} is no escape of Python")


def _plain(node: ast.expr) -> Any:
    """The value of a syntax tree that holds only what JSON has, keys once."""
    match node:
        case ast.Constant(str(text)):  # Python does not put the halves of a pair together
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        case ast.Constant(None | bool() | int() | float() as constant):
            return constant
        case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as positive)):
            return -positive
        case ast.List(items):
            return [_plain(item) for item in items]
        case ast.Dict(keys, values):
            names = [_plain(key) for key in keys if key is not None]
            if len(names) < len(values) or not all(isinstance(name, str) for name in names):
                raise ValueError(f"a key of {ast.unparse(node)[:40]!r} is no string")
            return Arguments(zip(names, map(_plain, values), strict=True))
        case _:
            raise ValueError(f"{ast.unparse(node)[:40]!r} is no literal")
