"""Raw text, plain or gzipped, in blocks of whole lines."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.criteo.prepare.gzip_text import DAMAGE, open_zipped
from mlperf.data.schema import COLUMNS
from mlperf.util.errors import RunError
from mlperf.util.files import read_fully

Bytes = npt.NDArray[np.uint8]

BLOCK_BYTES = 2 << 20
PADDING = 8  # a parser may read a word at the last byte
_SHOWN_BYTES = 100  # of a line that is too long


@dataclass(frozen=True)
class TextBlock:
    """Whole lines: bytes [0, length) of `text`, the last a newline; then padding. end: where it ends in the file.

    overlong: the block is the beginning of one line longer than BLOCK_BYTES: a bad row, whatever it holds.
    """

    text: Bytes
    length: int
    end: int
    overlong: bool = False


def text_blocks(path: Path, start: int = 0) -> Iterator[TextBlock]:
    """Yield the lines of a file from offset `start` (of the text) on; a missing last newline is added.

    Where a line begins decides alone whether it is too long: the blocks after a block's end are, for the rows and
    the lines in them, the same whether reading went on there or began there. RunError if the file is empty or
    damaged, OSError with its name if it cannot be read.
    """
    offset = start  # of text[0] in the file
    rest = np.empty(0, np.uint8)
    overlong: Bytes | None = None  # the beginning of a line longer than a block whose end is still to come
    ended = False
    try:
        with opened(path) as file:
            file.seek(start)
            while not ended:
                text = np.empty(len(rest) + BLOCK_BYTES + PADDING, np.uint8)
                text[: len(rest)] = rest
                size = len(rest) + read_fully(file, text[len(rest) : len(rest) + BLOCK_BYTES].data)
                ended = size < len(rest) + BLOCK_BYTES
                if ended and (text[size - 1] != ord("\n") if size else overlong is not None):
                    text[size] = ord("\n")
                    size += 1
                begin = 0
                # Only the first line can be longer than a block: it alone may have begun in what was left over.
                first = _first_newline(text, size) + 1
                if overlong is None and size and not 0 < first <= BLOCK_BYTES:
                    overlong = text[:_SHOWN_BYTES].copy()
                if overlong is not None and first:
                    yield _overlong_line(overlong, offset + first)
                    overlong, begin = None, first
                length = _last_newline(text, size) + 1
                if length > begin:
                    yield TextBlock(text[begin:], length - begin, offset + length)
                kept = 0 if overlong is not None else size - length
                offset += size - kept
                rest = text[size - kept : size].copy()
            if offset == 0:
                raise RunError(f"{path}: empty file; expected rows of {COLUMNS} columns separated by tabs")
    except DAMAGE as error:
        raise RunError(f"{path}: damaged gzip file after {offset} bytes of text: {error}") from None
    except OSError as error:
        error.filename = str(path)
        raise


def _overlong_line(beginning: Bytes, end: int) -> TextBlock:
    line_end = np.frombuffer(b"\n" + bytes(PADDING), np.uint8)
    return TextBlock(np.concatenate([beginning, line_end]), len(beginning) + 1, end, overlong=True)


def opened(path: Path) -> io.BufferedIOBase | io.RawIOBase:
    """Open a file for reading, through gzip by its name."""
    return open_zipped(path) if path.suffix == ".gz" else path.open("rb", buffering=0)


def count_lines(path: Path) -> int:
    """Return the number of lines of the file."""
    return sum(int(_count_newlines(block.text, block.length)) for block in text_blocks(path))


@numba.njit("(uint8[::1], int64)", nogil=True, cache=True)
def _last_newline(text: Bytes, size: int) -> int:
    for at in range(size - 1, -1, -1):
        if text[at] == 10:
            return at
    return -1


@numba.njit("(uint8[::1], int64)", nogil=True, cache=True)
def _first_newline(text: Bytes, size: int) -> int:
    for at in range(size):
        if text[at] == 10:
            return at
    return -1


@numba.njit("(uint8[::1], int64)", nogil=True, cache=True)
def _count_newlines(text: Bytes, size: int) -> int:
    count = 0
    for at in range(size):
        count += text[at] == 10
    return count
