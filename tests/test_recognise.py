"""Recognition from chat templates: each kind of template, in small ones of our own."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from typer.testing import CliRunner

import toolguard
from benchmarks.real_data import DATA
from benchmarks.templates import row, templates
from toolguard import Guard, WireFormat
from toolguard.cli.main import app
from toolguard.decoding.guard import turn_ends
from toolguard.formats.reader import fixed_text
from toolguard.formats.wire_format import GRAMMARS
from toolguard.parsing import chat_template
from toolguard.parsing import recognise as recognition

JSON = '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
TEXT = '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments }}}'
HERMES = f"<tool_call>\n{JSON}\n</tool_call>"
QWEN = (
    "<tool_call>\n<function={{ c.function.name }}>\n"
    "{% for k, v in c.function.arguments.items() %}<parameter={{ k }}>\n{{ v }}\n</parameter>\n"
    "{% endfor %}</function>\n</tool_call>"
)


def template(
    call: str,
    prompt: str = "",
    before: str = "",
    end: str = "<|im_end|>\n",
    tools: str = "",
    always: bool = False,
) -> str:
    """A chat template: how it writes a call, and what the prompt and a past turn begin with."""
    wanted = "true" if always else "add_generation_prompt"
    return (
        tools + "{% for m in messages %}{% if m.role == 'user' %}"
        "<|im_start|>user\n{{ m.content }}<|im_end|>\n{% else %}"
        f"<|im_start|>assistant\n{before}{{{{ m.content }}}}"
        f"{{% for c in m.tool_calls or [] %}}{call}{{% endfor %}}{end}{{% endif %}}{{% endfor %}}"
        f"{{% if {wanted} %}}<|im_start|>assistant\n{prompt}{{% endif %}}"
    )


DESCRIBED = (
    "{% for t in tools %}{% for k, p in t.function.parameters.properties.items() %}"
    "{{ k + ': ' + p.description }}\n{% endfor %}{% endfor %}"
)
KIMI = (
    "{% for m in messages %}<|im_middle|>{{ m.content }}{% if m.tool_calls %}"
    "<|tool_calls_section_begin|>{% for c in m.tool_calls %}<|tool_call_begin|>{{ c.id }}"
    "<|tool_call_argument_begin|>{{ c.function.arguments | tojson }}<|tool_call_end|>{% endfor %}"
    "<|tool_calls_section_end|>{% endif %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_middle|>{% endif %}"
)
KINDS = {
    "plain": (template(HERMES), "hermes"),
    "the prompt opens the reasoning": (
        template(QWEN, "<think>\n", "<think>\n\n</think>\n\n"),
        "qwen3_xml",
    ),
    "a past turn only closes it": (template(QWEN, "<think>", "</think>"), "qwen3_xml"),
    "the prompt's tag begins as the call's": (template(HERMES, "<think>\n"), "hermes"),
    "the prompt closes it, too": (template(HERMES, "<think>\n</think>"), "hermes"),
    "an end that no format lists": (template(HERMES, end="<|over|>\n"), "hermes"),
    "white space before and behind": (
        template(HERMES, before=" ", end="\n\n<|over|>\n"),
        "hermes",
    ),
    "arguments as JSON text": (template(f"<tool_call>\n{TEXT}\n</tool_call>"), "hermes"),
    "arguments joined as text": (
        template(f"<tool_call>\n{TEXT}\n</tool_call>".replace("}}}", " + '' }}}")),
        "hermes",
    ),
    "a parameter needs a description": (template(HERMES, tools=DESCRIBED), "hermes"),
    "the prompt stands behind every turn": (
        template(HERMES, "<think>\n</think>\n", always=True),
        "hermes",
    ),
    "an empty turn follows": (template(HERMES, end="<|im_end|><|im_end|>"), "hermes"),
    "a section that only a second call closes": (
        KIMI.replace(
            "{% endfor %}<|tool_calls_section_end|>",
            "{% if not loop.first %}<|tool_calls_section_end|>{% endif %}{% endfor %}",
        ),
        "kimi_k2",
    ),
    "a call's name stands in its id": (KIMI, "kimi_k2"),
    "a list that grows": (template("{% set _ = [].append(c.id) %}" + HERMES), "hermes"),
    "a generator as JSON": (
        template(HERMES, tools="{{ tools | map(attribute='function') | tojson }}"),
        "hermes",
    ),
    "tools and the date by other names": (
        template(HERMES, tools="{{ functions + datetime }}"),
        "hermes",
    ),
    "contents are parts": (
        template(HERMES).replace("m.content", "m.content[0]['text']"),
        "hermes",
    ),
}


@pytest.fixture
def other() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_template_is_recognised(kind: str, other: PreTrainedTokenizerBase) -> None:
    other.chat_template, name = KINDS[kind]
    assert toolguard.recognise(other).name == name


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (template(""), r"leaves calls out \(it renders '<\|im_end\|>\\n'\): name the wire format"),
        (template("{{ nothing.at.all }}"), "cannot render a tool call .*nothing.*: name the wire"),
        (template(HERMES + "!"), "no format reads .*near misses: .*hermes: text after a call"),
        (
            template(HERMES.replace("arguments | tojson", "name | tojson")),
            "near misses: .*hermes: ",
        ),
        (template(f"I call.{HERMES}"), "hermes: it reads 'I call.' beside the call"),
        # Bare JSON, and only as text: Phi-4-mini's history does not show how it calls.
        (template(TEXT), "no format reads the chat template's call"),
    ],
)
def test_a_refusal_names_its_reason(
    written: str, message: str, other: PreTrainedTokenizerBase
) -> None:
    other.chat_template = written
    with pytest.raises(toolguard.FormatError, match=message):
        toolguard.recognise(other)


@pytest.mark.parametrize(
    ("changed", "call", "message"),
    [
        ("LINES", QWEN, "several formats .*: qwen3_xml, twin; name one"),
        ("VALUE", QWEN, "qwen3_xml"),
        ("VALUE", QWEN.replace(">\n{{ v }}\n<", ">{{ v }}<"), "twin"),
    ],
)
def test_formats_that_read_the_same_call_are_told_apart_by_white_space_in_values(
    changed: str,
    call: str,
    message: str,
    other: PreTrainedTokenizerBase,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    shutil.copy(GRAMMARS / "json.lark", tmp_path)
    text = (GRAMMARS / "qwen3_xml.lark").read_text("utf-8").replace("LINES", changed)
    (tmp_path / "twin.lark").write_text(text, "utf-8")
    twin = WireFormat.from_file(tmp_path / "twin.lark")
    known = {"qwen3_xml": WireFormat.load("qwen3_xml"), "twin": twin}
    monkeypatch.setattr(recognition, "format_names", lambda **_: tuple(known))
    monkeypatch.setattr(recognition, "WireFormat", SimpleNamespace(load=known.__getitem__))
    other.chat_template = template(call)
    try:
        said = toolguard.recognise(other).name
    except toolguard.FormatError as error:
        said = str(error)
    assert re.search(message, said)


def test_the_end_that_only_the_template_tells_ends_turns(other: PreTrainedTokenizerBase) -> None:
    hermes = WireFormat.load("hermes")
    assert other.convert_tokens_to_ids("<|over|>") == other.unk_token_id
    other.chat_template = template(HERMES, end="<|over|>\n")
    before = turn_ends(hermes, other)
    other.add_tokens(["<|over|>"], special_tokens=True)
    over = other.convert_tokens_to_ids("<|over|>")
    assert turn_ends(hermes, other) == [*before, over]
    guard = Guard.compile(hermes, [{"name": "ping"}], other)
    call = '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>'
    state = guard.start(100)
    ids = [*other(call)["input_ids"], over]
    assert all(state.accept(token) for token in ids)
    assert state.done
    assert [it.name for it in guard.read(ids).calls] == ["ping"]


def test_a_control_token_of_the_format_is_no_end_that_the_template_tells(
    other: PreTrainedTokenizerBase,
) -> None:
    other.chat_template = template(HERMES, end="<think><|im_end|>\n")
    hermes = WireFormat.load("hermes")
    assert other.convert_tokens_to_ids("<think>") not in turn_ends(hermes, other)


@pytest.mark.parametrize(
    "harm",
    [
        "{% set _ = [].append.__self__.__class__ %}{{ _.mro() }}",
        "{% set _ = [].append(raise_exception('no calls')) %}",
        "{% set _ = tools.clear() %}{% set _ = c.function.arguments.clear() %}",
        "{% set _ = tools[0].clear() %}{% set _ = messages[0].clear() %}{{ messages[0].role.x.y }}",
    ],
)
def test_what_a_template_may_do_to_lists_harms_nothing(
    harm: str, other: PreTrainedTokenizerBase
) -> None:
    before = deepcopy((chat_template.CALL, chat_template._TOOL))
    other.chat_template = template(harm + HERMES)
    with pytest.raises(toolguard.FormatError):
        toolguard.recognise(other)
    assert before == (chat_template.CALL, chat_template._TOOL)


@pytest.mark.parametrize(
    ("said", "name"),
    [("<response>\n{}\n</response>\n", "hermes+response"), ("<answer>{}</answer>", "hermes")],
)
def test_a_variant_is_recognised_by_the_reply_that_the_template_writes(
    said: str, name: str, other: PreTrainedTokenizerBase
) -> None:
    wrapped = f"{{% if m.content %}}{said.format('{{ m.content }}')}{{% endif %}}"
    written = template(HERMES, "<think>\n", "<think>\n\n</think>\n\n")
    other.chat_template = written.replace("\n\n{{ m.content }}", f"\n\n{wrapped}")
    assert toolguard.recognise(other).name == name


def test_the_command_line_shows_the_end_that_only_the_template_tells(
    other: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    other.chat_template = template(HERMES, end="<|over|>\n")
    other.save_pretrained(tmp_path)
    given = ["formats", "--model", str(tmp_path)]
    listed = json.loads(CliRunner().invoke(app, [*given, "--json"]).stdout)["formats"]
    assert listed["hermes"]["ends"] == ["<|im_end|>", "<|endoftext|>", "<|over|>"]
    assert (
        "<|over|> in this chat template"
        in CliRunner().invoke(app, given, env={"COLUMNS": "200"}).stdout
    )


def own_template(name: str, opened: bool) -> str:
    """A template that writes what `render` writes of the calls that templates are asked for."""
    wire_format = WireFormat.load(name)
    first, second, telling = chat_template.CALL, chat_template._OTHER, recognition._TELLING
    written = {}
    for calls in ((first,), (first, second), (telling,)):
        with suppress(toolguard.FormatError):
            key = "|".join(call["arguments"]["place"] for call in calls)
            written[key] = toolguard.render(wire_format, calls)
    opening, closing = map(fixed_text, wire_format.reasoning if opened else ("", ""))
    end = next((it for it in wire_format.ends if it != "<|call|>"), "")
    return (
        f"{{% set written = {json.dumps(written)} %}}{{% for m in messages %}}"
        "{% if m.role == 'user' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n{% else %}"
        f"<|im_start|>assistant\n{{{{ {json.dumps(opening + closing)} }}}}{{{{ m.content }}}}"
        "{% if m.tool_calls %}"
        "{{ written[m.tool_calls | map(attribute='function.arguments.place') | join('|')] }}"
        f"{{% endif %}}{end}\n{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}<|im_start|>assistant\n{{{{ {json.dumps(opening)} }}}}"
        "{% endif %}"
    )


def opens(name: str) -> bool:
    """Whether a prompt may open the reasoning of a format."""
    rules = WireFormat.load(name).rules
    return rules["opened"] != rules["start"]


@pytest.mark.parametrize(
    ("name", "opened"),
    [(name, opened) for name in toolguard.format_names() for opened in {False, opens(name)}],
)
def test_each_format_is_recognised_by_what_it_writes_and_as_no_other(
    name: str, opened: bool, other: PreTrainedTokenizerBase
) -> None:
    other.chat_template = own_template(name, opened)
    assert toolguard.recognise(other).name == name


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no data in {DATA}: set TOOLGUARD_DATA")
def test_real_templates_are_recognised_or_leave_calls_out(other: PreTrainedTokenizerBase) -> None:
    rows = {name: row(other, text) for name, text in templates(DATA / "templates").items()}
    assert len(rows) >= 14
    refused = {name: each["refusal"] for name, each in rows.items() if not each["format"]}
    assert {*refused} == {"granite-3.3.jinja", "lfm2.5.jinja", "phi-4-mini.jinja"}
    assert json.dumps(rows)
