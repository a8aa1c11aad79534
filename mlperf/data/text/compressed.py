"""Open text that is plain or compressed by gzip or zstd, by the ending of its name.

Gzip: isal if it is installed, otherwise Python's gzip, which is 3 times slower. Both support files of several gzip
members and verify the checksum and length of each member.
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from pathlib import Path
from typing import Any

from mlperf.data.text.zstd_file import DamagedZstdError, ZstdFile

SAMPLE_BYTES = 1 << 24  # of unpacked text, for an estimate of its size

igzip: Any
try:
    from isal import igzip, isal_zlib  # type: ignore[no-redef,unused-ignore]

    _FORMAT_ERRORS: tuple[Any, ...] = (zlib.error, isal_zlib.error)
except ImportError:
    igzip, _FORMAT_ERRORS = None, (zlib.error,)

# Exceptions raised for a damaged file. Other OSErrors are I/O failures.
DAMAGE_ERRORS = (EOFError, gzip.BadGzipFile, DamagedZstdError, *_FORMAT_ERRORS)

COMPRESSIONS = (".gz", ".zst")  # endings of names


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
    """Open a text file for reading bytes; a name ending in .gz or .zst is decompressed."""
    if path.suffix == ".zst":
        return ZstdFile(path)
    return open_gzip(path) if path.suffix == ".gz" else path.open("rb", buffering=0)


def compression(path: Path) -> str:
    """Return what a file is compressed with, for messages."""
    return {".gz": "gzip", ".zst": "zstd"}.get(path.suffix, "text")


def unpacked_size(path: Path) -> int:
    """Return the size of a text in bytes, exact if possible. Raise one of `DAMAGE_ERRORS` if it is damaged.

    A gzip file ends with the size of its last member modulo 2^32. The multiple of 2^32, and the size of a file
    with several members, are estimated from the compression ratio of its beginning, and so is that of a zstd file.
    """
    size = path.stat().st_size
    if path.suffix == ".zst":
        with ZstdFile(path) as text:
            sample_bytes = text.seek(SAMPLE_BYTES)
            return sample_bytes if sample_bytes < SAMPLE_BYTES else size * sample_bytes // text.packed_bytes()
    if path.suffix != ".gz":
        return size
    with path.open("rb") as raw, gzip.open(raw) as unpacked:
        sample_bytes = len(unpacked.read(SAMPLE_BYTES))
        if len(unpacked.read(1)) == 0:
            return sample_bytes
        estimate = size * sample_bytes / raw.tell()
        raw.seek(-4, 2)
        (last_size,) = struct.unpack("<I", raw.read(4))
    stored = max(0, round((estimate - last_size) / 2**32)) * 2**32 + last_size
    return stored if abs(stored - estimate) < estimate / 2 else int(estimate)
