"""Read raw text, plain or gzipped, in blocks of whole lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.schema import CRITEO
from mlperf.data.text.compressed import DAMAGE_ERRORS, compression, open_text
from mlperf.util.errors import RunError
from mlperf.util.files import read_fully

Bytes = npt.NDArray[np.uint8]

BLOCK_BYTES = 2 << 20
PADDING = 16  # bytes after the last line: the parsers may read 16 bytes from any position
_SHOWN_BYTES = 100  # first bytes of an overlong line, kept for the message
_NEWLINE = ord("\n")
CRITEO_TEXT = f"rows of {CRITEO.columns} columns separated by tabs"


@dataclass(frozen=True)
class TextBlock:
    """Whole lines: bytes [0, length) of `text`, of which the last is a newline; padding follows.

    end: position in the file, unzipped, at which the block ends.
    overlong: whether the block is only the beginning of a line longer than BLOCK_BYTES. Such a line is a bad row.
    """

    text: Bytes
    length: int
    end: int
    overlong: bool = False


def text_blocks(path: Path, start: int = 0, *, expected: str = CRITEO_TEXT) -> Iterator[TextBlock]:
    """Yield the lines of a file from position `start` (of the unzipped text) on. A missing last newline is added.

    expected: what an empty file lacks, for the message.

    Whether a line is overlong depends only on its length, so resuming at the end of a block yields the same lines.

    Raises RunError if the file is empty or damaged, and OSError with the file name if it cannot be read.
    """
    offset = start  # position of text[0] in the file
    rest = np.empty(0, np.uint8)  # the beginning of a line whose end is not yet read
    overlong: Bytes | None = None  # the first bytes of an overlong line whose end is not yet read
    ended = False
    try:
        with open_text(path) as file:
            file.seek(start)
            while not ended:
                text = np.empty(len(rest) + BLOCK_BYTES + PADDING, np.uint8)
                text[: len(rest)] = rest
                size = len(rest) + read_fully(file, text[len(rest) : len(rest) + BLOCK_BYTES].data)
                ended = size < len(rest) + BLOCK_BYTES
                if ended and (text[size - 1] != _NEWLINE if size else overlong is not None):
                    text[size] = _NEWLINE
                    size += 1
                begin = 0
                # Only the first line can be overlong: the others begin in the bytes that were just read.
                first_end = _first_newline(text, size) + 1
                if overlong is None and size and not 0 < first_end <= BLOCK_BYTES:
                    overlong = text[:_SHOWN_BYTES].copy()
                if overlong is not None and first_end:
                    yield _overlong_block(overlong, offset + first_end)
                    overlong, begin = None, first_end
                length = _last_newline(text, size) + 1
                if length > begin:
                    yield TextBlock(text[begin:], length - begin, offset + length)
                kept = 0 if overlong is not None else size - length
                offset += size - kept
                rest = text[size - kept : size].copy()
            if offset == 0:
                raise RunError(f"{path}: empty file; expected {expected}")
    except DAMAGE_ERRORS as error:
        raise RunError(f"{path}: damaged {compression(path)} file after {offset} bytes of text: {error}") from None
    except OSError as error:
        error.filename = str(path)
        raise


def _overlong_block(beginning: Bytes, end: int) -> TextBlock:
    line_end = np.frombuffer(b"\n" + bytes(PADDING), np.uint8)
    return TextBlock(np.concatenate([beginning, line_end]), len(beginning) + 1, end, overlong=True)


def count_lines(path: Path) -> int:
    """Return the number of lines of a file."""
    return sum(count_newlines(block) for block in text_blocks(path))


def count_newlines(block: TextBlock) -> int:
    """Return the number of lines of a block."""
    return int(_count_newlines(block.text, block.length))


@numba.njit("(uint8[::1], int64)", nogil=True, cache=True)
def _last_newline(text: Bytes, size: int) -> int:
    for position in range(size - 1, -1, -1):
        if text[position] == _NEWLINE:
            return position
    return -1


@numba.njit("(uint8[::1], int64)", nogil=True, cache=True)
def _first_newline(text: Bytes, size: int) -> int:
    for position in range(size):
        if text[position] == _NEWLINE:
            return position
    return -1


@numba.njit("(uint8[::1], int64)", nogil=True, cache=True)
def _count_newlines(text: Bytes, size: int) -> int:
    count = 0
    for position in range(size):
        count += text[position] == _NEWLINE
    return count
