"""The report of a diagnosis: its schema, its page, and the page in a real browser."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

import toolguard
from benchmarks.diagnosis_picture import draw
from toolguard.diagnosis.diagnosis import diagnose
from toolguard.diagnosis.page import PLACES, page, require
from toolguard.diagnosis.schema import report_schema
from toolguard.diagnosis.verdict import VerdictName
from toolguard.errors import RequestError
from toolguard.evaluation.local import LocalModel
from toolguard.evaluation.subject import Mode
from toolguard.formats.nodes import Region
from toolguard.parsing.turn import STATES, FaultKind
from toolguard.policy.profile import POSITIONS
from toolguard.report.report import Action

from .pages import HOSTILE, Reader, show

Content = dict[str, Any]

UNSEEN = "\u202egnp.exe\x1b[2J\x00\ud800"
"""Reorders the text around it, and cannot be seen."""


def about(model: str, reference: str | None) -> Content:
    return {
        "toolguard": toolguard.__version__,
        "model": model,
        "reference": reference,
        "profile": None,
        "settings": {"cases": "bundled", "limit": 8, "seed": 0},
    }


@pytest.fixture(scope="module")
def damaged_content(
    damaged: Qwen2ForCausalLM, healthy: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> Content:
    """Of a damaged model, with a reference."""
    cases = toolguard.held_out()
    some = [case for case in cases if case.calls][:5] + [case for case in cases if not case.calls][
        :3
    ]
    return diagnose(
        LocalModel(damaged, tokenizer, reference=healthy, max_new_tokens=96),
        some,
        reference=LocalModel(healthy, tokenizer, max_new_tokens=96),
        about=about("open_then_stop", "healthy"),
    ).to_json()


@pytest.fixture(scope="module")
def healthy_content(healthy: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase) -> Content:
    """Of a healthy model, without a reference."""
    some = [case for case in toolguard.held_out() if case.calls][:3]
    subject = LocalModel(healthy, tokenizer, max_new_tokens=96)
    return diagnose(subject, some, about=about("healthy", None)).to_json()


@pytest.fixture
def endpoint_content(damaged_content: Content) -> Content:
    """As of an endpoint that tells nothing but text."""
    content = copy.deepcopy(damaged_content)
    content.update(skill=None, control_mass=[], spikes=[], reference=None)
    content["verdict"].update(skill_intact=None, name="undetermined")
    for row in content["answers"]:
        row.update(tokens=0, forward_passes=0)
    for case in content["worst"]:
        for turn in case["turns"].values():
            turn.update(report=None, ids=[])
    return content


@pytest.fixture
def large_content(damaged_content: Content) -> Content:
    """Twenty cases of 160 tokens, and a sweep over many formats."""
    content = copy.deepcopy(damaged_content)
    case = content["worst"][0]
    report = case["turns"]["unguarded"]["report"]
    masses = {"<tool_call>": 0.1, "</tool_call>": 0.2, "<|im_end|>": 0.3}
    report["steps"] = [
        {**report["steps"][0], "step": step, "masses": masses} for step in range(160)
    ]
    content["worst"] = [{**case, "case": f"case {number}"} for number in range(20)]
    content["sweep"] = [
        {**content["sweep"][0], "format": f"format {number}", "mode": mode}
        for number in range(30)
        for mode in ("unguarded", "enforce")
    ]
    return content


def poisoned(value: Any, text: str) -> Any:
    """The content with a text in every place where a model, a case or a file may put one."""
    free = (
        "model", "reference", "profile", "sentence", "command", "code", "raw", "content", "message",
        "reason", "token", "kind", "variation", "wire_format", "case",
    )  # fmt: skip
    if isinstance(value, list):
        return [poisoned(item, text) for item in value]
    if not isinstance(value, dict):
        return value
    found: Content = {}
    for key, item in value.items():
        fault = key == "kind" and "where" in value
        if key in free and isinstance(item, str) and not fault and item != "illegal tokens":
            found[key] = item + text
        elif key in ("tools", "reasons"):
            found[key] = [name + text for name in item]
        elif key in ("arguments", "masses"):
            found[key] = {name + text: inner for name, inner in item.items()}
        elif key == "name" and "arguments" in value:
            found[key] = item + text
        else:
            found[key] = poisoned(item, text)
    return found


def problems(content: Mapping[str, Any]) -> list[str]:
    plain = json.loads(json.dumps(content))  # what a file holds: no tuples
    found = Draft202012Validator(report_schema()).iter_errors(plain)
    return [f"{error.json_path}: {error.message[:200]}" for error in found]


def test_what_a_diagnosis_says_keeps_to_the_schema(
    damaged_content: Content,
    healthy_content: Content,
    endpoint_content: Content,
    large_content: Content,
) -> None:
    for content in (damaged_content, healthy_content, endpoint_content, large_content):
        assert problems(content) == []


def test_the_schema_wants_every_field_and_no_other(damaged_content: Content) -> None:
    Draft202012Validator.check_schema(report_schema())
    for name in damaged_content:
        assert problems({key: damaged_content[key] for key in damaged_content if key != name})
    assert problems({**damaged_content, "more": 1})
    turn = damaged_content["worst"][0]["turns"]["unguarded"]
    for name in list(turn):
        content = copy.deepcopy(damaged_content)
        del content["worst"][0]["turns"]["unguarded"][name]
        assert problems(content)


def test_the_schema_explains_every_field_and_names_what_there_is() -> None:
    schema = report_schema()
    names = {
        "state": STATES,
        "mode": get_args(Mode),
        "position": POSITIONS,
        "region": get_args(Region),
        "fault_kind": get_args(FaultKind),
    }
    for name, values in names.items():
        assert tuple(schema["$defs"][name]["enum"]) == values
    verdict = schema["properties"]["verdict"]["properties"]["name"]["enum"]
    assert set(verdict) == set(get_args(VerdictName))
    actions = schema["$defs"]["intervention"]["properties"]["action"]["enum"]
    assert set(actions) == set(get_args(Action))
    assert set(PLACES) == set(POSITIONS)

    def explained(part: Mapping[str, Any]) -> bool:
        part = schema["$defs"][part["$ref"].rsplit("/", 1)[1]] if "$ref" in part else part
        return bool(part.get("description"))

    for part in (schema, *schema["$defs"].values()):
        assert part["title"]
        assert part["description"]
        for name, field in part.get("properties", {}).items():
            assert explained(field), name


@pytest.mark.parametrize("name", ["jinja2", "matplotlib"])
def test_what_is_not_installed_is_said(
    damaged_content: Content, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RequestError, match=rf"needs {name}: pip install '\.\[report\]'"):
        require()
    with pytest.raises(RequestError, match=name):
        page(damaged_content)


def test_the_same_content_is_the_same_page(damaged_content: Content) -> None:
    assert page(damaged_content) == page(copy.deepcopy(damaged_content))


def test_the_page_says_it_in_one_sentence_then_all_figures(damaged_content: Content) -> None:
    text = " ".join(Reader(page(damaged_content)).text.split())
    verdict, advice = damaged_content["verdict"], damaged_content["advice"]
    shown = [
        verdict["sentence"],
        advice["command"],
        *verdict["reasons"],
        *(row["name"] for row in damaged_content["answers"]),
        *(case["case"] for case in damaged_content["worst"]),
        *(row["format"] for row in damaged_content["sweep"]),
    ]
    at = [text.index(part) for part in shown]
    assert at[0] < at[1] < at[2]
    for row in damaged_content["control_mass"]:
        assert f"{row['mass']:.4f}" in text
    assert "None: every unguarded turn" not in text


def test_what_was_not_measured_is_said(endpoint_content: Content) -> None:
    endpoint_content.update(worst=[], sweep=[])
    text = Reader(page(endpoint_content)).text
    assert text.count("It could not be measured") == 2
    assert "None: every unguarded turn is right." in text
    assert "No other format was asked for." in text


def test_the_page_needs_nothing_else(damaged_content: Content, large_content: Content) -> None:
    for content in (damaged_content, large_content):
        html = page(content)
        reader = Reader(html)
        attributes = {name for tag in reader.tags for name in tag[1:]}
        assert not attributes & {"src", "srcset", "xlink:href", "action", "onclick", "onerror"}
        tags = [tag[0] for tag in reader.tags]
        assert not set(tags) & {"link", "iframe", "object", "img", "metadata"}
        assert tags.count("script") == 1
        assert "@import" not in html
        assert html.count("url(") == html.count("url(#")
        ids = [part.split('"')[0] for part in html.split(' id="')[1:]]
        assert len(ids) == len(set(ids))


def test_a_large_report_stays_small(large_content: Content) -> None:
    assert len(page(large_content).encode()) < 3_000_000


def test_no_text_becomes_markup(damaged_content: Content) -> None:
    plain = Reader(page(poisoned(damaged_content, "x")))
    hostile = page(poisoned(damaged_content, HOSTILE + UNSEEN))
    reader = Reader(hostile)
    assert reader.tags == plain.tags
    assert HOSTILE in reader.text
    assert "\\u202egnp.exe\\u001b[2J\\u0000\\ud800" in reader.text
    assert all(c in "\n\t" or c.isprintable() for c in hostile)
    hostile.encode()


def wide(chrome: Chrome) -> int:
    script = "const e = document.documentElement; return e.scrollWidth - e.clientWidth"
    return int(chrome.execute_script(script))


def cases(chrome: Chrome) -> list[str]:
    shown = chrome.find_elements(By.CSS_SELECTOR, ".case:not([hidden]) h3")
    return [heading.text for heading in shown]


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("which", ["large", "long words"])
def test_the_page_loads_alone_and_is_never_wider_than_the_window(
    chrome: Chrome,
    tmp_path: Path,
    damaged_content: Content,
    large_content: Content,
    width: int,
    which: str,
) -> None:
    content = large_content if which == "large" else poisoned(damaged_content, "x" * 10_000)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        show(chrome, page(content), tmp_path)
        chrome.execute_script("for (const e of document.querySelectorAll('details')) e.open = true")
        assert wide(chrome) == 0
        assert chrome.execute_script("return performance.getEntriesByType('resource').length") == 0
        assert chrome.get_log("browser") == []
    finally:
        chrome.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_hostile_text_shows_and_does_not_run(
    chrome: Chrome, tmp_path: Path, damaged_content: Content
) -> None:
    show(chrome, page(poisoned(damaged_content, HOSTILE + UNSEEN)), tmp_path)
    assert chrome.execute_script("return window.broken") is None
    assert chrome.get_log("browser") == []
    assert HOSTILE in chrome.find_element(By.TAG_NAME, "h1").text
    assert HOSTILE in chrome.find_element(By.CSS_SELECTOR, ".case pre").text
    titles = chrome.find_elements(By.CSS_SELECTOR, ".heat title")
    said = [title.get_attribute("textContent") for title in titles]
    assert any(HOSTILE.replace(" ", "·") in title for title in said)


def test_the_filters_work_by_keyboard(
    chrome: Chrome, tmp_path: Path, damaged_content: Content
) -> None:
    content = copy.deepcopy(damaged_content)
    first, second, third = content["worst"][:3]
    first.update(case="first", kind="one")
    second.update(case="second", kind="two")
    third.update(case="third", kind="two")
    second["turns"]["unguarded"].update(state="polluted", raw="I say <b>Kiruna</b>.", faults=[])
    for turn in third["turns"].values():
        turn["right"] = False
    content["worst"] = [first, second, third]
    show(chrome, page(content), tmp_path)
    assert cases(chrome) == ["first", "second", "third"]
    count = chrome.find_element(By.ID, "count")
    assert count.get_attribute("aria-live") == "polite"

    def tab() -> Any:
        chrome.switch_to.active_element.send_keys(Keys.TAB)
        return chrome.switch_to.active_element

    def tab_to(name: str) -> Any:
        chrome.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
        for _ in range(60):
            element = tab()
            if name in (element.get_attribute("name"), element.get_attribute("type")):
                return element
        raise AssertionError(name)

    def choose(name: str, letters: str) -> list[str]:
        tab_to(name).send_keys(letters)
        found = cases(chrome)
        assert count.text == f"{len(found)} of 3 cases"
        return found

    assert choose("state", "p") == ["second"]
    assert choose("state", "a") == ["first", "second", "third"]
    assert choose("fault", "open") == ["first", "third"]
    assert choose("kind", "tw") == ["third"]
    tab_to("reset").send_keys(Keys.SPACE)
    assert choose("recovered", "n") == ["third"]
    tab_to("reset").send_keys(Keys.ENTER)
    assert choose("text", "KIRUNA") == ["second"]
    assert choose("text", "?") == []
    tab_to("reset").send_keys(Keys.ENTER)
    assert choose("text", "") == ["first", "second", "third"]
    # A case opens by keyboard, too, and its tokens show their figures.
    while (element := tab()).tag_name != "summary" or "second" not in element.text:
        pass
    body = chrome.find_elements(By.CSS_SELECTOR, ".case .columns")[1]
    assert not body.is_displayed()
    element.send_keys(Keys.ENTER)
    assert body.is_displayed()


def test_the_page_can_be_read_by_structure(
    chrome: Chrome, tmp_path: Path, damaged_content: Content
) -> None:
    show(chrome, page(damaged_content), tmp_path)
    chrome.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    skip = chrome.switch_to.active_element
    assert skip.text == "Skip to the report"
    assert skip.rect["x"] >= 0
    outline = chrome.execute_script("return getComputedStyle(arguments[0]).outlineStyle", skip)
    assert outline == "solid"
    skip.send_keys(Keys.ENTER)
    assert chrome.switch_to.active_element.tag_name == "main"
    levels = chrome.execute_script(
        "return [...document.querySelectorAll('h1, h2, h3, h4')].map(e => +e.tagName[1])"
    )
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    unnamed = "svg:not([aria-label]), select:not(label *), input:not(label *), th:not([scope])"
    assert chrome.find_elements(By.CSS_SELECTOR, unnamed) == []


CONTRASTS = """
const pen = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const light = colour => {
  pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
  const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].map(
    c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const below = e => {
  for (; e; e = e.parentElement) {
    const back = getComputedStyle(e).backgroundColor;
    if (back != 'rgba(0, 0, 0, 0)') return back;
  }
};
const contrast = (one, other) => {
  const [a, b] = [light(one), light(other)];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
};
const texts = [...document.querySelectorAll('body *')].filter(e => e.checkVisibility()
  && [...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim()) && !e.closest('svg'));
const found = texts.map(
  e => [e.outerHTML.slice(0, 80), contrast(getComputedStyle(e).color, below(e))]);
// Ink is written on every colour of the figures.
const ink = getComputedStyle(document.body).color;
for (const path of document.querySelectorAll('figure svg path:not([style*="fill: none"])'))
  found.push([path.outerHTML, contrast(getComputedStyle(path).fill, ink)]);
return found;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_in_dark(
    chrome: Chrome, tmp_path: Path, damaged_content: Content, scheme: str
) -> None:
    content = copy.deepcopy(damaged_content)
    rates = content["answers"][0]["states"]
    for number, state in enumerate(STATES):  # all four have a place in the figure
        rates[state].update(hits=number + 1, of=10, share=(number + 1) / 10)
    for number, row in enumerate(content["control_mass"]):
        row["mass"] = number / len(content["control_mass"])
    show(chrome, page(content), tmp_path, scheme)
    paper = chrome.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    found = chrome.execute_script(CONTRASTS)
    assert len(found) > 200
    assert [item for item in found if item[1] < 4.5] == []  # WCAG AA


def test_printed_it_is_light_open_and_without_filters(
    chrome: Chrome, tmp_path: Path, damaged_content: Content
) -> None:
    show(chrome, page(damaged_content), tmp_path, "dark")
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        chrome.execute_script("dispatchEvent(new Event('beforeprint'))")
        paper = chrome.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert paper == "rgb(255, 255, 255)"
        assert not chrome.find_element(By.ID, "filters").is_displayed()
        assert all(
            e.is_displayed() for e in chrome.find_elements(By.CSS_SELECTOR, ".case .columns")
        )
        chrome.execute_script("dispatchEvent(new Event('afterprint'))")
        assert len(chrome.find_elements(By.CSS_SELECTOR, ".case[open]")) == 1
    finally:
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@pytest.mark.usefixtures("chrome")
@pytest.mark.slow
def test_the_picture_in_docs_can_be_made_again(tmp_path: Path, damaged_content: Content) -> None:
    picture = tmp_path / "diagnosis.png"
    draw(damaged_content, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert 50_000 < picture.stat().st_size < 300_000
