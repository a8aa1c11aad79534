"""CRC-32 of a file from those of its parts, so that many threads can write or read it."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from mlperf.util.files import read_fully_at

_POLYNOMIAL = 0xEDB88320  # of CRC-32, the coefficient of x^0 in the highest bit
_ONE = 1 << 31


def _times(a: int, b: int) -> int:
    """Multiply polynomials over GF(2), modulo the CRC's."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product


def _powers() -> list[int]:
    """Return x^(2^n) for n = 0 ... 63."""
    powers = [1 << 30]
    for _ in range(63):
        powers.append(_times(powers[-1], powers[-1]))
    return powers


_POWERS = _powers()


def combine(first: int, second: int, second_bytes: int) -> int:
    """Return the CRC-32 of two parts, one behind the other, from theirs and the length of the second.

    The first part's is multiplied by x^(8 n): that is what n bytes of zeros behind it would do to it.
    """
    shift, bits, n = _ONE, 8 * second_bytes, 0
    while bits:
        if bits & 1:
            shift = _times(_POWERS[n], shift)
        bits >>= 1
        n += 1
    return _times(shift, first) ^ second


def file_crc32(path: Path, start: int = 0, end: int | None = None) -> int:
    """Return the CRC-32 of a file's bytes from `start` to `end`. OSError if there are fewer."""
    value = 0
    buffer = memoryview(bytearray(1 << 22))
    with path.open("rb", buffering=0) as file:
        end = os.fstat(file.fileno()).st_size if end is None else end
        for offset in range(start, end, len(buffer)):
            part = buffer[: end - offset]
            if read_fully_at(file.fileno(), part, offset) < len(part):
                raise OSError(f"{path}: ends before byte {end}")
            value = zlib.crc32(part, value)
    return value
