"""What the tests of pages share: hostile text, a reader of HTML, and how a page is shown."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from selenium.webdriver import Chrome

HOSTILE = (
    "</span></style></title><script>window.broken = 1</script><img src=x onerror='broken = 1'>"
)


class Reader(HTMLParser):
    """The tags of a page, with their attributes' names, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, ...]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, *(name for name, _ in attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.tags.append(("/" + tag,))

    def handle_data(self, data: str) -> None:
        self.text += data


def show(chrome: Chrome, page: str, folder: Path, scheme: str = "light") -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    file = folder / "page.html"
    file.write_text(page, encoding="utf-8")
    chrome.get(file.as_uri())
