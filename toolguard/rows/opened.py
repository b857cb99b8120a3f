"""Files as they come: plain, gzip or xz."""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from ..errors import RowError


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The content of a file, unpacked, and the file itself, which knows how far it was read.

    Raises:
        RowError: it cannot be read, or unpacked to its end.
    """
    try:
        with path.open("rb") as raw:
            if path.suffix == ".gz":
                with gzip.open(raw) as content:
                    yield cast(BinaryIO, content), raw
            elif path.suffix == ".xz":
                with lzma.open(raw) as unpacked:
                    yield cast(BinaryIO, unpacked), raw
            else:
                yield raw, raw
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise RowError(f"cannot read {path}: {error}") from error


def read_text(path: Path) -> str:
    """All of a small file.

    Raises:
        RowError: it cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    with opened(path) as (content, _):
        return content.read().decode()
