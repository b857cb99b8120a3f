"""Grammar files: reading, recognising, and a format of one's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

import toolguard
from toolguard import Guard, WireFormat

BRACKETS = r"""
// A format that shares nothing with hermes: spelled tags, the name in an attribute, no reasoning.
%declare TEXT REPLY NAME ARGUMENTS
%import .json (WS)

start: turn
opened: turn
turn: reply | calls
reply: REPLY
calls: TEXT? OPEN call further*
further: OPEN call
call: NAME "\"]" WS? ARGUMENTS CLOSE
end: END

OPEN: "[call name=\""
CLOSE: "[/call]"
END: "<|im_end|>"
"""


@pytest.fixture
def brackets(tmp_path: Path) -> WireFormat:
    path = tmp_path / "brackets.lark"
    path.write_text(BRACKETS)
    (tmp_path / "json.lark").write_text(_json_grammar())
    return WireFormat.from_file(path)


def _json_grammar() -> str:
    from toolguard.formats.wire_format import GRAMMARS

    return (GRAMMARS / "json.lark").read_text()


def test_the_bundled_template_is_recognised(tokenizer: PreTrainedTokenizerBase) -> None:
    assert toolguard.recognise(tokenizer) is WireFormat.load("hermes")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "leaves calls out"),
        (
            "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}"
            "<tool_call>{{ c.function | tojson }}</tool_call>!{% endfor %}{% endfor %}",
            "hermes: ",
        ),
        ("{{ raise_exception('no tools here') }}", "cannot render a tool call"),
    ],
)
def test_an_unknown_template_is_refused_with_what_it_stumbled_over(
    tokenizer: PreTrainedTokenizerBase, template: str, message: str, tmp_path: Path
) -> None:
    other = type(tokenizer).from_pretrained(toolguard.checkpoint("healthy"))
    other.chat_template = template
    with pytest.raises(toolguard.FormatError, match=message):
        toolguard.recognise(other)


def test_a_format_of_ones_own_is_a_file(
    brackets: WireFormat, tokenizer: PreTrainedTokenizerBase, noise: Qwen2ForCausalLM
) -> None:
    tools = [
        {
            "name": "add",
            "parameters": {"properties": {"n": {"type": "integer"}}, "required": ["n"]},
        },
        {"name": "ping"},
    ]
    guard = Guard.compile(brackets, tools, tokenizer)
    text = 'So: a [link], then [call name="add"] {"n": 3}[/call][call name="ping"]{}[/call]'
    state = guard.start(200)
    ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    assert all(state.accept(token) for token in ids)
    turn = guard.read(ids)
    assert [(call.name, call.arguments) for call in turn.calls] == [("add", {"n": 3}), ("ping", {})]
    assert turn.faults == ()
    broken = guard.read(tokenizer('[call name="add"] {"n": 3')["input_ids"])
    assert broken.faults[0].kind == "missing_close"
    conversation = [[{"role": "user", "content": text}]] * 3
    for choice in ("auto", "required"):
        for turn in toolguard.generate(
            noise,
            tokenizer,
            conversation,
            tools,
            wire_format=brackets,
            tool_choice=choice,
            max_new_tokens=70,
            temperature=2.0,
            seed=3,
        ):
            assert turn.faults == ()
            assert choice == "auto" or turn.calls


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("call: NAME", "call: MISSING", "MISSING is used but not defined"),
        ("further: OPEN call", "", "further is used but not defined"),
        ("reply: REPLY", "reply: REPLY )", "line 9"),
        ("%declare TEXT", "%declare PROSE TEXT", "%declare PROSE"),
        ("end: END", "", "no rule 'end'"),
        ("%import .json", "%import .toml", "toml.lark"),
    ],
)
def test_a_malformed_grammar_file_is_refused_with_its_place(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "bad.lark"
    path.write_text(BRACKETS.replace(old, new))
    (tmp_path / "json.lark").write_text(_json_grammar())
    with pytest.raises(toolguard.FormatError, match=message):
        WireFormat.from_file(path)


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(toolguard.FormatError, match=r"known are apertus, .*hermes"):
        WireFormat.load("json")


def test_handling_text_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, toolguard as t;"
        "s = t.Toolset.of([{'name': 'f'}]);"
        "print(t.read_turn('<tool_call>', t.WireFormat.load('hermes'), s).state,"
        " *sorted({'torch', 'transformers', 'vllm'} & sys.modules.keys()))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["collapsed"]
