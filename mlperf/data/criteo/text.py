"""Raw text, plain or gzipped, in blocks of whole lines."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.criteo.row_format import COLUMNS
from mlperf.errors import RunError

Bytes = npt.NDArray[np.uint8]

BLOCK_BYTES = 2 << 20
PADDING = 8  # a parser may read a word at the last byte


@dataclass(frozen=True)
class TextBlock:
    """Whole lines: bytes [0, length) of `text`, the last a newline; then padding. end: where it ends in the file.

    overlong: the block is one line longer than a block, cut: a bad row, whatever it holds.
    """

    text: Bytes
    length: int
    end: int
    overlong: bool = False


def text_blocks(path: Path, start: int = 0) -> Iterator[TextBlock]:
    """Yield the lines of a file from offset `start` (of the text) on; a missing last newline is added.

    RunError if the file is missing, empty or damaged.
    """
    offset = start
    rest = np.empty(0, np.uint8)
    skipping = False  # inside an overlong line that was reported
    try:
        with opened(path) as file:
            file.seek(start)
            while True:
                text = np.empty(len(rest) + BLOCK_BYTES + PADDING, np.uint8)
                text[: len(rest)] = rest
                size = len(rest) + _read(file, text[len(rest) : len(rest) + BLOCK_BYTES])
                ended = size < len(rest) + BLOCK_BYTES
                if size == 0:
                    break
                if ended and text[size - 1] != ord("\n"):
                    text[size] = ord("\n")
                    size += 1
                length = _last_newline(text, size) + 1
                first = _first_newline(text, length) + 1 if skipping else 0
                if length == 0 and not skipping and size >= BLOCK_BYTES:
                    cut = np.concatenate([text[:100], np.frombuffer(b"\n" + bytes(PADDING), np.uint8)])
                    yield TextBlock(cut, 101, offset, overlong=True)
                    skipping = True
                if length > first:
                    block = text if first == 0 else text[first:]
                    yield TextBlock(block, length - first, offset + length)
                skipping = skipping and length == 0
                kept = 0 if skipping else size - length
                offset += size - kept
                rest = text[size - kept : size].copy()
                if ended:
                    break
            if offset == 0:
                raise RunError(f"{path}: empty file; expected rows of {COLUMNS} columns separated by tabs")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RunError(f"{path}: damaged gzip file after {offset} bytes of text: {error}") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None


def opened(path: Path) -> io.BufferedIOBase | io.RawIOBase:
    """Open a file for reading, through gzip by its name."""
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb", buffering=0)


def _read(file: io.BufferedIOBase | io.RawIOBase, target: Bytes) -> int:
    """Fill `target`, or read to the end of the file; return the bytes read."""
    view, done = target.data, 0
    while done < len(view) and (count := file.readinto(view[done:])):
        done += count
    return done


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
