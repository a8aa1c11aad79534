"""A file of Criteo's text that is scored, with or without the column of the label."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from mlperf.benchmarks.data_sets import DataSetTraits
from mlperf.data.prepare.parse import BlockParser, ParsedBlock, fault_error
from mlperf.data.schema import CRITEO
from mlperf.data.text.blocks import PADDING, Bytes, TextBlock, count_newlines, text_blocks
from mlperf.util.errors import RunError

_NEWLINE = ord("\n")
_LABEL = np.frombuffer(b"0\t", np.uint8)


class CriteoFile:
    """A text with the columns of Criteo's. has_label: whether the first row has all 40 of them, or 39.

    path: of the file. max_ind_range: ids are taken modulo it; -1: no limit.

    RunError if the file is empty or damaged, OSError if it cannot be read.
    """

    def __init__(self, path: Path, traits: DataSetTraits, max_ind_range: int) -> None:
        self._path = path
        self._keeps_negative = traits.keeps_negative
        self._max_ind_range = max_ind_range
        first = next(text_blocks(path))
        line = first.text[: first.length].tobytes().partition(b"\n")[0]
        self.has_label = line.count(b"\t") != CRITEO.columns - 2

    def blocks(self) -> Iterator[TextBlock]:
        """Yield the lines."""
        return text_blocks(self._path)

    def parser(self) -> BlockParser | _UnlabelledParser:
        """Return a parser. The label of rows without one is 0."""
        parser = BlockParser(self._max_ind_range, keep_negative=self._keeps_negative)
        return parser if self.has_label else _UnlabelledParser(parser)

    def fault_error(self, rows_before: int, block: Any, fault: npt.NDArray[np.int64]) -> RunError:
        """Return the error for a row of `Faults`. rows_before: number of rows before the block."""
        columns = CRITEO.columns if self.has_label else CRITEO.columns - 1
        return fault_error(self._path, rows_before + 1, block, fault, columns=columns)


class _UnlabelledParser:
    """Parses a copy of each block with a label in front of each line."""

    def __init__(self, parser: BlockParser) -> None:
        self._parser = parser

    def parse(self, block: TextBlock) -> ParsedBlock:
        """Return the rows and faults of a block. The next call overwrites the rows."""
        if block.overlong:
            return self._parser.parse(block)
        text = np.zeros(block.length + len(_LABEL) * count_newlines(block) + PADDING, np.uint8)
        length = _put_labels(block.text, block.length, _LABEL, text)
        parsed = self._parser.parse(TextBlock(text, length, block.end))
        faults = parsed.faults
        faults[:, 2] -= 1  # the column
        faults[:, 3] -= len(_LABEL) * (faults[:, 0] + 1)  # the position, after the labels of the lines so far
        return parsed


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
