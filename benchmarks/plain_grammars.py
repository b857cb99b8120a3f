"""Triggered grammars as a user of llguidance would write them: free text, then calls in their tags.

They follow llguidance's documentation of tool calls and its `StructTag`: text is `/(.|\\n)*/`,
control tokens that the tokenizer has are named by id, arguments are `%json` schemas.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from toolguard import Toolset


def plain_grammar(wire_format: str, toolset: Toolset, added: Mapping[str, int]) -> str:
    """A Lark grammar of the whole turn.

    Args:
        added: the ids of the tokenizer's added tokens.

    Raises:
        NotImplementedError: nobody has written one for this format.
    """
    if wire_format not in GRAMMARS:
        raise NotImplementedError(f"no plain grammar is written for {wire_format}")
    return "%llguidance {}\n" + GRAMMARS[wire_format](toolset, _Writer(added))


class _Writer:
    """Writes terminals."""

    def __init__(self, added: Mapping[str, int]) -> None:
        self.added = added
        self._cuts = re.compile("(" + "|".join(map(re.escape, added)) + ")") if added else None

    def __call__(self, text: str) -> str:
        """Fixed text, its control tokens by id."""
        parts = self._cuts.split(text) if self._cuts else [text]
        return " ".join(
            f"<[{self.added[part]}]>"
            if part in self.added
            else json.dumps(part, ensure_ascii=False)
            for part in parts
            if part
        )


_TEXT = "TEXT: /(.|\\n)*/\n"


def schema_of(tool: Any) -> dict[str, Any]:
    """The schema of a tool's arguments, as it was given."""
    given = tool.definition.get("function", tool.definition).get("parameters")
    return given or {"type": "object", "properties": {}}


def _framed(before: str, opener: str, name: str, closer: str, between: str, after: str) -> Any:
    """A format whose calls are an opener with the name, the arguments as JSON, and a closer.

    Args:
        before, after: around all calls of a turn.
        between: between two calls.
    """

    def grammar(toolset: Toolset, write: _Writer) -> str:
        calls = [
            f"{write(opener + name.format(tool.name))} %json {json.dumps(schema_of(tool))} "
            f"{write(closer)}"
            for tool in toolset
        ]
        names = [f"call_{place}: {call}" for place, call in enumerate(calls)]
        options = " | ".join(f"call_{place}" for place in range(len(calls)))
        many = f"call ({write(between)} call)*" if between else "call+"
        section = f"{write(before)} {many} {write(after)}"
        return f"start: TEXT ({section})?\ncall: {options}\n" + _TEXT + "\n".join(names) + "\n"

    return grammar


def _harmony(toolset: Toolset, write: _Writer) -> str:
    calls = "\n".join(
        f"call_{place}: {write(f' to=functions.{tool.name}')} {write('<|channel|>commentary')} "
        f"({write(' json')} | {write(' <|constrain|>json')}) {write('<|message|>')} "
        f"%json {json.dumps(schema_of(tool))}"
        for place, tool in enumerate(toolset)
    )
    options = " | ".join(f"call_{place}" for place in range(len(toolset)))
    return (
        "start: analysis* (final | call)\n"
        f"analysis: {write('<|channel|>analysis<|message|>')} TEXT "
        f"{write('<|end|><|start|>assistant')}\n"
        f"final: {write('<|channel|>final<|message|>')} TEXT\n"
        f"call: {options}\n{calls}\n" + _TEXT
    )


def _mistral_json(toolset: Toolset, write: _Writer) -> str:
    lead, then = '{"name": "', '", "arguments": '
    calls = "\n".join(
        f"call_{place}: {write(lead + tool.name + then)} %json {json.dumps(schema_of(tool))} id? "
        f"{write('}')}"
        for place, tool in enumerate(toolset)
    )
    options = " | ".join(f"call_{place}" for place in range(len(toolset)))
    opener = write("[TOOL_CALLS]")
    quoted = json.dumps(', "id": "')
    return (
        f'start: TEXT ({opener} " "? "[" call (", " call)* "]")?\n'
        f'call: {options}\n{calls}\nid: {quoted} /[a-zA-Z0-9]{{9}}/ "\\""\n' + _TEXT
    )


def _qwen3_xml(toolset: Toolset, write: _Writer) -> str:
    lines = [f"start: TEXT (call ({write(chr(10))} call)*)?", _TEXT.strip()]
    lines.append("lazy_string[lazy]: /(.|\\n)*\\n<\\/parameter>\\n/")
    calls = []
    for place, tool in enumerate(toolset):
        schema = schema_of(tool)
        given = []
        for number, (key, inner) in enumerate(schema.get("properties", {}).items()):
            rule = f"argument_{place}_{number}"
            value = f"%json {json.dumps(inner)} {write(chr(10) + '</parameter>' + chr(10))}"
            text = isinstance(inner, Mapping) and inner.get("type") == "string"
            if text and "enum" not in inner:
                value = "lazy_string"
            elif text:
                options = " | ".join(json.dumps(option) for option in inner["enum"])
                value = f"({options}) {write(chr(10) + '</parameter>' + chr(10))}"
            lines.append(f"{rule}: {write(f'<parameter={key}>{chr(10)}')} {value}")
            given.append(rule if key in schema.get("required", []) else f"{rule}?")
        calls.append(f"call_{place}")
        head = write(f"<tool_call>\n<function={tool.name}>\n")
        tail = write("</function>\n</tool_call>")
        lines.append(f"call_{place}: {head} {' '.join(given)} {tail}")
    return "\n".join([*lines, f"call: {' | '.join(calls)}", ""])


def _pythonic(toolset: Toolset, write: _Writer) -> str:
    lines = [
        'start: REPLY | "[" call (", " call)* "]"',
        "REPLY: /[^\\[](.|\\n)*/",
        "STRING: /'([^'\\\\\\n]|\\\\.)*'/ | /\"([^\"\\\\\\n]|\\\\.)*\"/",
        "INT: /-?[0-9]+/",
        "FLOAT: /-?[0-9]+(\\.[0-9]+)?([eE][-+]?[0-9]+)?/",
        'BOOL: "True" | "False"',
        'literal: STRING | FLOAT | BOOL | "None" | list | dict',
        'list: "[" (literal (", " literal)*)? "]"',
        'dict: "{" (STRING ": " literal (", " STRING ": " literal)*)? "}"',
    ]
    kinds = {
        "string": "STRING", "integer": "INT", "number": "FLOAT", "boolean": "BOOL",
        "array": "list", "object": "dict",
    }  # fmt: skip
    calls = []
    for place, tool in enumerate(toolset):
        schema = schema_of(tool)
        keys, required = schema.get("properties", {}), schema.get("required", [])
        needed: list[str] = []
        optional: list[str] = []
        for key, inner in keys.items():
            kind = inner.get("type") if isinstance(inner, Mapping) else None
            value = kinds.get(kind, "literal") if isinstance(kind, str) else "literal"
            if isinstance(inner, Mapping) and inner.get("type") == "string" and "enum" in inner:
                value = "(" + " | ".join(json.dumps(f"'{o}'") for o in inner["enum"]) + ")"
            (needed if key in required else optional).append(f"{json.dumps(key + '=')} {value}")
        # In the order of the schema, the required ones first.
        inside = ' ", " '.join(needed)
        inside += (
            "".join(f' (", " {one})?' for one in optional)
            if needed
            else (f"({' | '.join(optional)})?" if optional else "")
        )
        calls.append(f"call_{place}")
        lines.append(f'call_{place}: {json.dumps(tool.name + "(")} {inside} ")"')
    return "\n".join([*lines, f"call: {' | '.join(calls)}", ""])


GRAMMARS: dict[str, Callable[[Toolset, _Writer], str]] = {
    "hermes": _framed(
        "", "<tool_call>\n", '{{"name": "{}", "arguments": ', "}\n</tool_call>", "\n", ""
    ),
    "deepseek_v3": _framed(
        "<\uff5ctool\u2581calls\u2581begin\uff5c>",
        "<\uff5ctool\u2581call\u2581begin\uff5c>function<\uff5ctool\u2581sep\uff5c>",
        "{}\n```json\n",
        "\n```<\uff5ctool\u2581call\u2581end\uff5c>",
        "\n",
        "<\uff5ctool\u2581calls\u2581end\uff5c>",
    ),
    "deepseek_v31": _framed(
        "<\uff5ctool\u2581calls\u2581begin\uff5c>",
        "<\uff5ctool\u2581call\u2581begin\uff5c>",
        "{}<\uff5ctool\u2581sep\uff5c>",
        "<\uff5ctool\u2581call\u2581end\uff5c>",
        "",
        "<\uff5ctool\u2581calls\u2581end\uff5c>",
    ),
    "mistral_args": _framed("", "[TOOL_CALLS]", "{}[ARGS]", "", "", ""),
    "mistral_json": _mistral_json,
    "harmony": _harmony,
    "qwen3_xml": _qwen3_xml,
    "pythonic": _pythonic,
}
"""By wire format."""
