"""Open gzipped text with isal if it is installed, otherwise with Python's gzip, which is 3 times slower.

Both support files of several gzip members and verify the checksum and length of each member.
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

# Exceptions raised for a damaged file. Other OSErrors are I/O failures.
DAMAGE_ERRORS = (EOFError, gzip.BadGzipFile, *_FORMAT_ERRORS)


def gzip_advice() -> str | None:
    """Return a hint about faster decompression, None if isal is installed."""
    if igzip is not None:
        return None
    return "decompressed with Python's gzip; isal (pip install isal) is 3 times faster"


def open_gzip(path: Path) -> io.BufferedIOBase:
    """Open a gzipped file for reading."""
    opened: io.BufferedIOBase = (igzip or gzip).open(path)
    return opened


def open_text(path: Path) -> io.BufferedIOBase | io.RawIOBase:
    """Open a text file for reading bytes; a name ending in .gz is decompressed."""
    return open_gzip(path) if path.suffix == ".gz" else path.open("rb", buffering=0)
