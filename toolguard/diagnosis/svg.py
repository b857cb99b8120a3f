"""A figure of matplotlib as a piece of a page: text stays text, colours are the page's."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from xml.etree import ElementTree

from matplotlib import style
from matplotlib.figure import Figure

from ..report.words import printable

_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_FONT = re.compile(r"font-family:[^;]*;?")
_HEX = re.compile(r"#[0-9a-f]{6}")
_OWN = (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style")
"""What matplotlib says of itself, and a style sheet that would rule the whole page."""

ElementTree.register_namespace("", _SVG)
ElementTree.register_namespace("xlink", _LINK)


class Inks:
    """Colours that the page decides: matplotlib draws with a number in the place of each."""

    def __init__(self) -> None:
        self._numbers: dict[str, str] = {}

    def __call__(self, css: str) -> str:
        """What to give matplotlib for a colour of CSS."""
        return self._numbers.setdefault(css, f"#{len(self._numbers) + 1:06x}")

    def put_back(self, style: str) -> str:
        """A style with the page's colours in the place of the numbers."""
        colours = {number: css for css, number in self._numbers.items()}
        return _HEX.sub(lambda found: colours.get(found[0], found[0]), style)


@contextmanager
def drawing() -> Iterator[None]:
    """The same picture each time, whatever matplotlib is set to here; a `$` is a `$`."""
    same = {"svg.fonttype": "none", "svg.hashsalt": "toolguard", "text.parse_math": False}
    with style.context(["default", same]):
        yield


def inline(figure: Figure, inks: Inks, label: str, titles: Mapping[str, str]) -> str:
    """The figure as an `<svg>` element.

    Args:
        figure: drawn at 72 dots an inch.
        inks: the colours it was drawn with.
        label: what a screen reader says in its place.
        titles: what hovering over the artist with this `gid` shows.
    """
    file = io.StringIO()
    none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", dpi=72, transparent=True, metadata=none)
    root = ElementTree.fromstring(file.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in _OWN:
                parent.remove(child)
    for element in root.iter():
        if "style" in element.attrib:
            css = _FONT.sub("", element.attrib["style"]).strip()
            element.set("style", inks.put_back(css))
        if element.tag.endswith("}g"):  # of two figures, they would be the same
            title = titles.get(element.attrib.pop("id", ""))
            if title is not None:
                said = ElementTree.Element(f"{{{_SVG}}}title")
                said.text = printable(title)
                element.insert(0, said)
    width, height = root.attrib["viewBox"].split()[2:]
    root.attrib.update(width=width, height=height, role="img")
    root.set("aria-label", printable(label))
    return ElementTree.tostring(root, encoding="unicode")
