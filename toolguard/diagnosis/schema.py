"""The published schema of report.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def report_schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of `Diagnosis.content`, which is what report.json has."""
    text = Path(__file__).with_name("report.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
