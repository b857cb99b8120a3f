"""What models write in words that is no part of a call: one list, for faults and for repairs."""

from __future__ import annotations

import re
from typing import Literal

ROLE = r"(?i:user|assistant|system|developer|tool|human|ipython)"
"""Who else may speak, spelled as a word."""
HEADER = rf"(?:<\|im_start\|>|<\|start_header_id\|>)?(?:{ROLE}|observation)(?:<\|end_header_id\|>)?"
"""What begins somebody's turn."""
RESPONSE = (
    r"(?:</?tool_response>|(?i:(?:execution|tool|function) (?:result|response|output)s?"
    r"|observation)[ \t]*(?:[:=]|(?=\n|\Z)))"
)
"""How an invented answer of a tool begins."""
SENTINEL = (
    r"<\|[^|<>\s]{1,40}\|>|<\uff5c[^\uff5c<>\s]{1,40}\uff5c>"
    r"|\]<\][^<>\[\]\s]{1,16}\[>\[|\[e~\[|\]~b\]"
)
"""A special token of some model, spelled out."""
CURLY = {
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", "\u201c\u201d\u201f\u2033\u00bb"),
    **dict.fromkeys("\u2018\u2019\u201a\u00b4`", "\u2018\u2019\u00b4`"),
}
"""Quotation marks that no encoding has, each with those that may close it."""
SPEAKER = re.compile(
    rf"^[ \t]*(?:{RESPONSE}|{HEADER}[ \t]*:?[ \t]*$)|<\|im_start\|>|</?tool_response>",
    re.MULTILINE,
)
"""Where another speaker begins, for sure: a header on a line of its own, or an answer."""

_OPENING = re.compile(rf"\s*(?:({RESPONSE})|{HEADER}[ \t]*(?::|\n|\Z)|<\|im_start\|>)")


def other_speaker(text: str) -> Literal["fabricated_response", "run_on"] | None:
    """The fault of a text behind a call that opens as a tool's answer or as another's turn."""
    opening = _OPENING.match(text)
    if opening is None:
        return None
    return "fabricated_response" if opening[1] else "run_on"
