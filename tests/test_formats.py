"""Grammar files: reading, recognising, and a format of one's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2ForCausalLM

import toolguard
from benchmarks.real_data import made_calls
from toolguard import Guard, WireFormat

from .test_masks import encode, walks
from .turns import examples

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

SILENT = "{% for m in messages %}{{ m.content }}{% endfor %}"
BARE = (
    "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}"
    "<|tool_call|>[{{ c.function | tojson }}]<|/tool_call|>{% endfor %}{% endfor %}"
)
JSON_CALLS = {
    "open": "<tool_call>",
    "close": "</tool_call>",
    "repeats": True,
    "content": "json",
    "transform": {"type": "function", "function": "{content}"},
}
XML_CALLS = {
    "open_pattern": r"<tool_call>\s*<function=(?P<name>[^\n>]+)>",
    "close_pattern": r"</tool_call>\s*",
    "repeats": True,
    "content": "xml-inline",
    "content_args": {
        "tag_pattern": r"<parameter=(?P<key>[^>\n]+)>\s*(?P<value>.*?)\s*</parameter>"
    },
    "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
}
CLOSED_CALLS = {
    "open_pattern": r'\{"name":\s*"(?P<name>[^"]+)",\s*"parameters":\s*',
    "close_pattern": r"\}<\|eot_id\|>\s*",
    "repeats": True,
    "content": "json",
    "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
}
LISTED_CALLS = {
    "open": "<|tool_call|>",
    "close_pattern": r"<\|/tool_call\|>|$",
    "content": "json",
    "transform_each": True,
    "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{arguments}"}},
}
UNKNOWN_CALLS = JSON_CALLS | {"open": "<<call", "close": "call>>"}
NAMELESS_CALLS = JSON_CALLS | {"transform": {"type": "function", "function": {"name": "get"}}}


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
        (SILENT, "leaves calls out"),
        (
            "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}"
            "<tool_call>{{ c.function | tojson }}</tool_call>!{% endfor %}{% endfor %}",
            "hermes: ",
        ),
        ("{{ raise_exception('no tools here') }}", "cannot render a tool call"),
    ],
)
def test_an_unknown_template_is_refused_with_what_it_stumbled_over(
    template: str, message: str
) -> None:
    other = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
    other.chat_template = template
    with pytest.raises(toolguard.FormatError, match=message):
        toolguard.recognise(other)


def answering(chat: str | None, calls: dict[str, object]) -> PreTrainedTokenizerBase:
    """A tokenizer with a chat template and a response template of which only the calls matter."""
    other = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
    other.chat_template = other.chat_template if chat == "own" else chat
    other.response_template = {
        "defaults": {"role": "assistant"},
        "start_anchor": "<|im_start|>assistant\n",
        "fields": {
            "reasoning_content": {"open": "<think>", "close": "</think>"},
            "tool_calls": calls,
            "content": {"close_pattern": r"\s*<\|im_end\|>"},
        },
    }
    return other


@pytest.mark.parametrize(
    ("chat", "calls", "name"),
    [
        (SILENT, JSON_CALLS, "hermes"),
        (None, XML_CALLS, "qwen3_xml"),
        ("own", XML_CALLS, "qwen3_xml"),
        (None, CLOSED_CALLS, "llama3_json"),
        (BARE, LISTED_CALLS, "phi4_mini"),
        ("own", UNKNOWN_CALLS, "hermes"),
    ],
)
def test_a_response_template_wins_as_far_as_it_decides(
    chat: str | None, calls: dict[str, object], name: str
) -> None:
    assert toolguard.recognise(answering(chat, calls)).name == name


@pytest.mark.parametrize(
    ("chat", "calls", "message"),
    [
        (SILENT, LISTED_CALLS, "written in granite3, phi4_mini .*name the wire format, one of gr"),
        ("own", LISTED_CALLS, "written in granite3, phi4_mini .*no format reads the chat templ"),
        (SILENT, NAMELESS_CALLS, "in no format .*hermes: it reads the calls .*leaves calls out"),
        (SILENT, {"content": "yaml"}, "malformed .*yaml.*set tokenizer.response_template to None"),
    ],
)
def test_a_response_template_that_decides_nothing_is_refused_with_what_it_read(
    chat: str | None, calls: dict[str, object], message: str
) -> None:
    with pytest.raises(toolguard.FormatError, match=message):
        toolguard.recognise(answering(chat, calls))


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
            assert [fault.kind for fault in turn.faults] == ["unfinished_turn"] * bool(turn.cut)
            assert choice == "auto" or turn.calls or turn.cut


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


@pytest.mark.parametrize(
    ("name", "suffix", "added"), [("hy4", ":6124c78e", True), ("hy4", "", False), ("hy3", "", True)]
)
def test_a_checkpoints_tags_may_have_another_suffix_or_none(
    name: str, suffix: str, added: bool
) -> None:
    own = WireFormat.load(name)
    call = {"name": "{{ c.function.name }}", "arguments": {"key": "{{ v }}"}}
    written = toolguard.render(own, [call]).replace(":opensource", suffix)
    start, stop = written.index(f"<arg_key{suffix}>"), written.rindex(f"</arg_value{suffix}>")
    stop += len(f"</arg_value{suffix}>")
    argument = written[start:stop].replace("key<", "{{ k }}<")
    arguments = f"{{% for k, v in c.function.arguments.items() %}}{argument}{{% endfor %}}"
    other = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
    other.chat_template = (
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}"
        f"{written[:start]}{arguments}{written[stop:]}{{% endfor %}}{{% endfor %}}"
    )
    if added:
        other.add_tokens([text.replace(":opensource", suffix) for text in own.controls])
    found = toolguard.recognise(other)
    assert found is WireFormat.load(f"{name}:{suffix[1:]}")
    for example in examples(name):
        text = example["turn"].replace(":opensource", suffix)
        guard = Guard.compile(found, example["tools"], other)
        ids = [*encode(other, text), other.eos_token_id]
        assert walks(guard, ids)
        turn = guard.read(ids)
        assert (turn.faults, turn.text) == ((), example["text"])
        assert made_calls(turn) == example["calls"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("hermes:a", "hermes have no suffix"), ("hy4:a b", "is :a b"), ("hy5:a", "unknown .*'hy5'")],
)
def test_a_suffix_that_no_tags_have_is_refused(name: str, message: str) -> None:
    with pytest.raises(toolguard.FormatError, match=message):
        WireFormat.load(name)


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
