"""A file of a click log: its rows in blocks, and their parser."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mlperf.data.columns.description import ColumnsDescription
from mlperf.data.columns.header import LogLayout, read_layout
from mlperf.data.columns.messages import fault_message, shown_field
from mlperf.data.columns.parse import ColumnsParser, ParsedColumns
from mlperf.data.columns.plan import make_actions
from mlperf.data.text.blocks import TextBlock, text_blocks
from mlperf.data.text.compressed import compression, unpacked_size
from mlperf.util.errors import RunError
from mlperf.util.failures import damage


class Block(Protocol):
    """Rows of a file. length: their bytes, for the progress. end: where reading continues after them."""

    @property
    def length(self) -> int: ...

    @property
    def end(self) -> int: ...


class Parser(Protocol):
    """Parses the blocks of a file, one at a time: each thread needs one of its own."""

    def parse(self, block: Any, /) -> ParsedColumns:
        """Return the rows of a block, in arrays that the next call overwrites."""
        ...


class LogFile(ABC):
    """A file of a click log.

    columns: number of its columns. has_label: whether it has the column of the label.
    """

    def __init__(self, path: Path, description: ColumnsDescription, columns: int, has_label: bool) -> None:
        self.path = path
        self.description = description
        self.columns = columns
        self.has_label = has_label

    @abstractmethod
    def blocks(self, start: int = 0) -> Iterator[Block]:
        """Yield the rows from `start` on: 0, or the `end` of a block. RunError if the file is damaged."""

    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Return the length of all blocks together and the number of rows, estimated. RunError if damaged."""

    @abstractmethod
    def parser(self, *, keeps_negative: bool = False) -> Parser:
        """Return a parser. keeps_negative: whether negative integers are kept that are stored as integers."""

    @abstractmethod
    def fault_error(self, rows_before: int, block: Any, fault: npt.NDArray[np.int64]) -> RunError:
        """Return the error for a row of `Faults`. rows_before: number of rows, good and bad, before the block."""


class TextLog(LogFile):
    """A text, plain or compressed."""

    def __init__(self, path: Path, description: ColumnsDescription, layout: LogLayout) -> None:
        super().__init__(path, description, layout.columns, layout.has_label)
        self._layout = layout

    def blocks(self, start: int = 0) -> Iterator[TextBlock]:
        """Yield the lines from byte `start` of the unpacked text on, without the header."""
        return text_blocks(self.path, max(start, self._layout.start))

    def size(self) -> tuple[int, int]:
        """Return the size of the unpacked text, and an estimate of the rows from its beginning."""
        with damage(self.path, f"damaged {compression(self.path)} file"):
            text_bytes = unpacked_size(self.path) - self._layout.start
        block = next(self.blocks(), None)
        if block is None:
            return 0, 0
        lines = block.text[: block.length].tobytes().count(b"\n")
        return text_bytes, max(lines, lines * text_bytes // block.length)

    def parser(self, *, keeps_negative: bool = False) -> ColumnsParser:
        """Return a parser of the text."""
        layout = self._layout
        actions = make_actions(self.description, layout.positions, layout.columns)
        return ColumnsParser(
            self.description,
            actions,
            layout.separator,
            has_label=self.has_label,
            keeps_negative=keeps_negative,
        )

    def fault_error(self, rows_before: int, block: Any, fault: npt.NDArray[np.int64]) -> RunError:
        """Return the error, with the number of the line in the file, from 1, header included."""
        line, reason, column, position = (int(value) for value in fault)
        number = rows_before + line + 1 + (self._layout.names is not None)
        field = shown_field(block, position, self._layout.separator)
        message = fault_message(reason, self.description, self._layout, column)
        return RunError(f"{self.path}: line {number}, {self._layout.name(column)}: {field}: {message}")


def open_log(path: Path, description: ColumnsDescription, *, label_optional: bool = False) -> LogFile:
    """Return the file, by the ending of its name: text, .gz, .zst or .parquet.

    label_optional: whether the column of the label may be missing.

    RunError if the file cannot be read, or lacks a column.
    """
    layout = read_layout(path, description, label_optional=label_optional)
    return TextLog(path, description, layout)
