"""Opening gzipped text: with isal if it is installed, otherwise with Python's gzip, which is 3 times slower.

Both read a file of several gzip members as one text and check the checksum and length of each member.
"""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import Any

igzip: Any
try:
    from isal import igzip, isal_zlib  # type: ignore[no-redef,unused-ignore]

    _FORMAT_ERRORS: tuple[Any, ...] = (zlib.error, isal_zlib.error)
except ImportError:
    igzip, _FORMAT_ERRORS = None, (zlib.error,)

# What reading a damaged file raises. Of the subclasses of OSError, only that of gzip means damage.
DAMAGE_ERRORS = (EOFError, gzip.BadGzipFile, *_FORMAT_ERRORS)


def advice() -> str | None:
    """Return advice for users of gzipped text, None if the faster library is installed."""
    if igzip is not None:
        return None
    return "unpacked by Python's gzip; with isal (pip install isal) it is 3 times as fast"


def open_gzip(path: Path) -> io.BufferedIOBase:
    """Open a gzipped file for reading."""
    opened: io.BufferedIOBase = (igzip or gzip).open(path)
    return opened


def open_text(path: Path) -> io.BufferedIOBase | io.RawIOBase:
    """Open a text file for reading bytes; it is unpacked if its name ends in .gz."""
    return open_gzip(path) if path.suffix == ".gz" else path.open("rb", buffering=0)
