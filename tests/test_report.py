"""The report as a table, as a page, and the page in a real browser."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By

from benchmarks.report_picture import draw, example
from toolguard import Intervention, Report, Step

from .pages import HOSTILE, Reader, show


def report_of(tokens: list[str]) -> Report:
    """A report in which each of these texts stands wherever a model's text can."""
    return Report(
        policy="recover",
        tokens=len(tokens),
        forced=0,
        forward_passes=1,
        seconds=1.0,
        pressure=1.0,
        interventions=tuple(
            Intervention(step, "call", token, 7, None, "lead", f"{token} has no business here")
            for step, token in enumerate(tokens)
        ),
        steps=tuple(
            Step(step, "text", "text", token, 7, {token: 0.5}, 0.1, 0.1, 1)
            for step, token in enumerate(tokens)
        ),
        state_before="polluted",
        state_after="healthy_response",
        retries=2,
        retried_tokens=1234,
    )


def printed(report: Report, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(report)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_has_a_header_line_and_every_intervention() -> None:
    out = printed(example())
    for part in (
        "state collapsed → healthy_call",
        "policy enforce",
        "tokens 35",
        "forced 2",
        "forward passes 33",
        "pressure 5.42 nats",
        "retries 0",
    ):
        assert part in " ".join(out.split())
    row = next(line for line in out.splitlines() if "<|im_end|>" in line)
    assert row.split()[:5] == ["2", "call", "'<|im_end|>'", "0.986", "masked"]
    assert row.strip().endswith("the turn cannot end inside call")


def test_the_table_prints_what_a_model_wrote_as_it_is() -> None:
    out = printed(report_of(["[red]", "\x1b[2J", "\u202e", "[/]"]), width=200)
    assert "[red] has no business here" in out
    assert "'[/]'" in out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "retries 2 (1,234 tokens)" in out


def test_a_turn_in_which_nothing_was_done_says_so() -> None:
    quiet = replace(example(), interventions=(), state_before=None, steps=())
    assert "no interventions" in printed(quiet)
    assert "state healthy_call" in printed(quiet)
    assert "None." in Reader(quiet.to_html()).text


def test_the_page_has_every_figure_of_every_step() -> None:
    report = example()
    text = Reader(report.to_html()).text
    for step in report.steps:
        assert f"step {step.step} in {step.region}, {step.position}" in text
        assert f"(id {step.token_id}), rank {step.rank}" in text
        assert f"illegal mass {step.illegal:.3f}, pressure {step.pressure:.2f} nats" in text
        for mass in step.masses.values():
            assert f"{mass:.3f}" in text
    for item in report.interventions:
        assert f"{item.token} ({item.mass:.3f}) masked: {item.reason}" in text


def test_white_space_is_visible() -> None:
    text = Reader(report_of([" a", "\n\n", "\t", "", "\u200b", "\ud800"]).to_html()).text
    for shown in ("·a", "⏎⏎", "⇥", "∅", "\\u200b", "\\ud800"):
        assert shown in text


def test_without_steps_the_page_says_how_to_get_them() -> None:
    report = replace(example(), steps=())
    reader = Reader(report.to_html())
    assert "trace=True" in reader.text
    assert "the turn cannot end inside call" in reader.text
    assert "forward passes" in reader.text
    assert ("svg",) not in {tag[:1] for tag in reader.tags}


def test_the_page_needs_nothing_else() -> None:
    page = example().to_html()
    reader = Reader(page)
    attributes = {name for tag in reader.tags for name in tag[1:]}
    assert not attributes & {"src", "href", "srcset", "xlink:href", "action", "data"}
    assert not {tag[0] for tag in reader.tags} & {"script", "link", "iframe", "object", "img"}
    assert "url(" not in page
    assert "@import" not in page
    page.encode()


@given(
    st.lists(st.text() | st.sampled_from([HOSTILE, "&lt;b&gt;", "'\"", "<!--", "]]>"]), max_size=5)
)
def test_no_text_of_a_token_becomes_markup(tokens: list[str]) -> None:
    harmless = [f"token{index}" for index in range(len(tokens))]
    # Equal texts are one control token, and one row of the chart.
    harmless = [harmless[tokens.index(token)] for token in tokens]
    page = report_of(tokens).to_html()
    reader = Reader(page)
    assert reader.tags == Reader(report_of(harmless).to_html()).tags
    assert all("\n" in c or c.isprintable() for c in page)
    for token in tokens:
        if token.isprintable() and " " not in token and token:
            assert token in reader.text


def test_a_long_turn_makes_a_page_of_reasonable_size() -> None:
    steps = tuple(replace(example().steps[2], step=step) for step in range(4000))
    page = replace(example(), steps=steps, tokens=4000).to_html()
    assert len(page) < 500 * 4000


def test_importing_toolguard_loads_neither_rich_nor_the_page() -> None:
    code = (
        "import sys, toolguard\n"
        "found = {'rich', 'html', 'toolguard.report.page', 'toolguard.report.table'}\n"
        "assert not found & set(sys.modules), found & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def shown_figures(chrome: Chrome) -> list[str]:
    return [tip.text for tip in chrome.find_elements(By.CLASS_NAME, "tip") if tip.is_displayed()]


def test_hovering_and_tabbing_show_the_figures_of_a_token(chrome: Chrome, tmp_path: Path) -> None:
    show(chrome, example().to_html(), tmp_path)
    assert shown_figures(chrome) == []
    boxes = chrome.find_elements(By.CLASS_NAME, "box")
    ActionChains(chrome).move_to_element(boxes[2]).perform()
    (figures,) = shown_figures(chrome)
    assert figures.splitlines() == [
        'step 2 in call, structure: {" (id 259), rank 2',
        "illegal mass 0.989, pressure 4.48 nats",
        "control mass <|im_end|> 0.986, <tool_call> 0.001",
        "1 <|im_end|> (0.986) masked: the turn cannot end inside call",
    ]
    ActionChains(chrome).move_to_element(boxes[33]).perform()
    (figures,) = shown_figures(chrome)
    assert figures.startswith("step 33 in call")
    ActionChains(chrome).move_to_element(chrome.find_element(By.TAG_NAME, "h1")).perform()
    assert shown_figures(chrome) == []
    for step in range(3):
        ActionChains(chrome).send_keys(Keys.TAB).perform()
        if chrome.switch_to.active_element.tag_name != "li":  # the strip itself, if it scrolls
            ActionChains(chrome).send_keys(Keys.TAB).perform()
        (figures,) = shown_figures(chrome)
        assert figures.startswith(f"step {step} ")


def test_figures_stand_beside_the_tokens_also_of_a_long_turn(
    chrome: Chrome, tmp_path: Path
) -> None:
    steps = tuple(
        replace(step, step=step.step + 35 * n) for n in range(40) for step in example().steps
    )
    show(chrome, replace(example(), steps=steps, tokens=len(steps)).to_html(), tmp_path)
    box = chrome.find_elements(By.CLASS_NAME, "box")[1200]
    ActionChains(chrome).scroll_to_element(box).move_to_element(box).perform()
    (tip,) = (tip for tip in chrome.find_elements(By.CLASS_NAME, "tip") if tip.is_displayed())
    assert tip.text.startswith("step 1,200 ")
    strip = chrome.find_element(By.CLASS_NAME, "strip")
    assert tip.rect["y"] >= strip.rect["y"] + strip.rect["height"] - 2
    assert strip.rect["height"] < 700


CONTRASTS = """
const pen = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const light = colour => {
  pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
  const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].map(
    c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const paper = getComputedStyle(document.querySelector('.toolguard')).backgroundColor;
const texts = document.querySelectorAll('.box, sup, dt, dd, b, th, td, .note, .hint, svg text');
return [...texts].map(e => {
  const style = getComputedStyle(e), back = style.backgroundColor;
  const below = e.matches('.number') ? getComputedStyle(document.querySelector('circle')).fill
    : back == 'rgba(0, 0, 0, 0)' ? paper : back;
  const [a, b] = [light(e.matches('svg *') ? style.fill : style.color), light(below)];
  return [e.className.baseVal ?? e.className, e.textContent,
    (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
});
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_in_dark(chrome: Chrome, tmp_path: Path, scheme: str) -> None:
    several = replace(example(), state_before="polluted", state_after="collapsed")
    show(chrome, several.to_html(), tmp_path, scheme)
    paper = chrome.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    contrasts = chrome.execute_script(CONTRASTS)
    assert len(contrasts) > 60
    assert [item for item in contrasts if item[2] < 4.5] == []  # WCAG AA


def test_what_a_model_wrote_does_not_run_and_nothing_is_loaded(
    chrome: Chrome, tmp_path: Path
) -> None:
    show(chrome, report_of([HOSTILE, "</title>", "<style>*{display:none}"]).to_html(), tmp_path)
    assert chrome.execute_script("return window.broken") is None
    assert chrome.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert chrome.find_elements(By.CLASS_NAME, "box")[0].text == HOSTILE.replace(" ", "·")
    assert chrome.get_log("browser") == []


@pytest.mark.parametrize("width", [500, 1000])
def test_the_page_is_never_wider_than_the_window(
    chrome: Chrome, tmp_path: Path, width: int
) -> None:
    steps = tuple(replace(step, token=step.token * 90) for step in example().steps)
    chrome.set_window_size(width, 900)
    try:
        show(chrome, replace(example(), steps=steps).to_html(), tmp_path)
        wide = "const e = document.documentElement; return e.scrollWidth - e.clientWidth"
        assert chrome.execute_script(wide) == 0
    finally:
        chrome.set_window_size(1000, 900)


def test_a_notebook_looks_the_same_with_a_report_in_it(chrome: Chrome, tmp_path: Path) -> None:
    host = (
        "<!doctype html><meta charset=utf-8><body class=vscode-dark style='overflow-y: scroll'>"
        "<h1>a</h1><h2>b</h2><p class=note>c <sup>1</sup><code>d</code><table><tr><th>e"
        "<td class=mass>f</table><ol class=strip><li>g</ol><dl><dt>h<dd>i</dl><div id=output></div>"
        "<svg><text>j</text></svg>"
    )
    look = """return [...document.querySelectorAll('body > :not(#output), body > :not(#output) *')]
      .map(e => [...getComputedStyle(e)].map(name => [name, getComputedStyle(e)[name]].join(': ')))
    """
    show(chrome, host, tmp_path)
    before = chrome.execute_script(look)
    chrome.execute_script(
        "document.getElementById('output').innerHTML = arguments[0]", example()._repr_html_()
    )
    assert chrome.execute_script(look) == before
    assert len(chrome.find_elements(By.CLASS_NAME, "box")) == 35
    assert chrome.find_element(By.CLASS_NAME, "toolguard").is_displayed()
    # The notebook is dark, the system is not.
    paper = "return getComputedStyle(document.querySelector('.toolguard')).backgroundColor"
    assert chrome.execute_script(paper) == "rgb(15, 19, 24)"


@pytest.mark.usefixtures("chrome")
@pytest.mark.slow
def test_the_picture_in_the_readme_can_be_made_again(tmp_path: Path) -> None:
    picture = tmp_path / "report.png"
    draw(example(), picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert 20_000 < picture.stat().st_size < 150_000
