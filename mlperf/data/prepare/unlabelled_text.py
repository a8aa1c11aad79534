"""Criteo's text without the column of the label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.prepare.parse import ParsedBlock, fault_error
from mlperf.data.prepare.text_format import CriteoText, ParsedRows, Parser
from mlperf.data.schema import CRITEO
from mlperf.data.text.blocks import PADDING, Bytes, TextBlock, text_blocks
from mlperf.util.errors import RunError

_NEWLINE = ord("\n")
_LABEL = np.frombuffer(b"0\t", np.uint8)


def lacks_label(path: Path) -> bool:
    """Return whether the first row of a text has one column fewer than Criteo's. Errors as of `text_blocks`."""
    first = next(iter(text_blocks(path)))
    line = first.text[: first.length].tobytes().partition(b"\n")[0]
    return line.count(b"\t") == CRITEO.columns - 2


class UnlabelledCriteoText(CriteoText):
    """Rows of 39 columns. Their label is 0."""

    has_labels = False

    def parser(self) -> UnlabelledParser:
        """See TextFormat."""
        return UnlabelledParser(super().parser())

    def error(self, path: Path, first_line: int, block: TextBlock, fault: npt.NDArray[Any]) -> RunError:
        """See TextFormat."""
        return fault_error(path, first_line, block, fault, columns=CRITEO.columns - 1)


class UnlabelledParser:
    """Parses a copy of each block with a label in front of each line."""

    def __init__(self, parser: Parser) -> None:
        self._parser = parser

    def parse(self, block: TextBlock) -> ParsedRows:
        """Return the rows and faults of a block. The next call overwrites the rows."""
        if block.overlong:
            return self._parser.parse(block)
        text = np.zeros(block.length + len(_LABEL) * _count_lines(block.text, block.length) + PADDING, np.uint8)
        length = _put_labels(block.text, block.length, _LABEL, text)
        parsed = self._parser.parse(TextBlock(text, length, block.end))
        faults = parsed.faults
        faults[:, 2] -= 1  # the column
        faults[:, 3] -= len(_LABEL) * (faults[:, 0] + 1)  # the position, after the labels of the lines so far
        return ParsedBlock(parsed.rows, parsed.lines, faults)


@numba.njit("int64(uint8[::1], int64)", nogil=True, cache=True)
def _count_lines(text: Bytes, length: int) -> int:
    count = 0
    for position in range(length):
        count += text[position] == _NEWLINE
    return count


@numba.njit("int64(uint8[::1], int64, Array(uint8, 1, 'C', readonly=True), uint8[::1])", nogil=True, cache=True)
def _put_labels(text: Bytes, length: int, label: Bytes, result: Bytes) -> int:
    """Fill `result` with the lines of `text`, each after `label`; return its length."""
    done = 0
    starts_line = True
    for position in range(length):
        if starts_line:
            for byte in label:
                result[done] = byte
                done += 1
        result[done] = text[position]
        done += 1
        starts_line = text[position] == _NEWLINE
    return done
