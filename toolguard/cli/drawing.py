"""Charts, where matplotlib is there to draw them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from ..errors import RowError


def drawing(chart: Path) -> ModuleType:
    """The module that draws; what it lacks is said before hours of reading.

    Raises:
        RowError: there is no matplotlib, or the file cannot be drawn.
    """
    try:
        from . import chart as module
    except ImportError as error:
        raise RowError(
            "--chart needs matplotlib: pip install '.[chart]' in toolguard's clone"
        ) from error
    if chart.suffix not in module.KINDS or not chart.parent.is_dir():
        kinds = " or ".join(module.KINDS)
        raise RowError(f"cannot draw {chart}: name a file in a folder, {kinds}")
    return module
