"""CRC-32 of files, and combination of the CRC-32s of consecutive parts."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from mlperf.util.files import open_regular, read_fully_at
from mlperf.util.parallel import Stages, run_in_order
from mlperf.util.threads import available_cores

_PART_BYTES = 1 << 22  # read by a thread at a time

try:  # several times as fast
    from isal.isal_zlib import crc32 as bytes_crc32
except ImportError:
    from zlib import crc32 as bytes_crc32

__all__ = ["bytes_crc32", "combine_crc32", "file_crc32", "parallel_crc32"]

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


@lru_cache(maxsize=64)  # most parts of a file have one size
def _factor(zero_bytes: int) -> int:
    """Return x^(8 n): appending n zero bytes multiplies the CRC-32 by it."""
    factor, bits, n = _ONE, 8 * zero_bytes, 0
    while bits:
        if bits & 1:
            factor = _multiply(_POWERS[n], factor)
        bits >>= 1
        n += 1
    return factor


def combine_crc32(first: int, second: int, second_bytes: int) -> int:
    """Return the CRC-32 of two consecutive parts from their CRC-32s and the length of the second part."""
    return _multiply(_factor(second_bytes), first) ^ second


def file_crc32(path: Path, start: int = 0, end: int | None = None) -> int:
    """Return the CRC-32 of the bytes `start` to `end` (default: the end) of a file, using all cores.

    OSError if the file is shorter.
    """
    with open_regular(path) as file:
        descriptor = file.fileno()
        end = os.fstat(descriptor).st_size if end is None else end

        def read_at(buffer: memoryview, offset: int) -> int:
            return read_fully_at(descriptor, buffer, offset)

        return parallel_crc32(path, read_at, start, end)


def parallel_crc32(
    path: Path,
    read_at: Callable[[memoryview, int], int],
    start: int,
    end: int,
    report: Callable[[int, int], None] = lambda offset, count: None,
) -> int:
    """Return the CRC-32 of the bytes `start` to `end` of a file, using all cores.

    read_at: fills a buffer from an offset of the file, as `read_fully_at` does.
    report: called with offset and size of each part when it is done. OSError if the file, `path`, is shorter.
    """
    crc32 = 0
    offsets: Iterator[int] = iter(range(start, end, _PART_BYTES))
    threads = min(available_cores(), -(-(end - start) // _PART_BYTES))

    def make_worker(stages: Stages) -> Callable[[int, int], None]:
        buffer = memoryview(bytearray(min(_PART_BYTES, end - start)))

        def add_part(number: int, offset: int) -> None:
            nonlocal crc32
            part = buffer[: end - offset]
            if read_at(part, offset) < len(part):
                raise OSError(errno.EIO, f"ends before byte {end}", str(path))
            of_part = bytes_crc32(part)
            with stages.turn(0, number):
                crc32 = combine_crc32(crc32, of_part, len(part))
                report(offset, len(part))

        return add_part

    run_in_order(offsets, make_worker, threads=threads, stages=1)
    return crc32
