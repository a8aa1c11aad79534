"""CRC-32 of files, and combination of the CRC-32s of consecutive parts."""

from __future__ import annotations

import os
from pathlib import Path

from mlperf.util.files import read_fully_at

try:  # several times as fast
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

__all__ = ["combine_crc32", "crc32", "file_crc32"]

# CRC-32 is arithmetic with polynomials over GF(2); bit 31 of a number is the coefficient of x^0.
_POLYNOMIAL = 0xEDB88320
_ONE = 1 << 31
_X = 1 << 30


def _multiply(a: int, b: int) -> int:
    """Multiply two polynomials modulo the polynomial of CRC-32."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product


def _repeated_squares() -> list[int]:
    """Return x^(2^n) for n = 0 ... 63."""
    powers = [_X]
    for _ in range(63):
        powers.append(_multiply(powers[-1], powers[-1]))
    return powers


_POWERS = _repeated_squares()


def combine_crc32(first: int, second: int, second_bytes: int) -> int:
    """Return the CRC-32 of two consecutive parts from their CRC-32s and the length of the second part.

    Appending n zero bytes to the first part multiplies its CRC-32 by x^(8 n).
    """
    factor, bits, n = _ONE, 8 * second_bytes, 0
    while bits:
        if bits & 1:
            factor = _multiply(_POWERS[n], factor)
        bits >>= 1
        n += 1
    return _multiply(factor, first) ^ second


def file_crc32(path: Path, start: int = 0, end: int | None = None) -> int:
    """Return the CRC-32 of the bytes `start` to `end` (default: the end) of a file. OSError if it is shorter."""
    found = 0
    buffer = memoryview(bytearray(1 << 22))
    with path.open("rb", buffering=0) as file:
        end = os.fstat(file.fileno()).st_size if end is None else end
        for offset in range(start, end, len(buffer)):
            part = buffer[: end - offset]
            if read_fully_at(file.fileno(), part, offset) < len(part):
                raise OSError(f"{path}: ends before byte {end}")
            found = crc32(part, found)
    return found
