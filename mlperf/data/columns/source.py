"""What the preparation asks of a file of a click log: its rows in blocks, and their parser."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mlperf.data.columns.description import ColumnsDescription
from mlperf.data.columns.parse import ParsedColumns
from mlperf.util.errors import RunError


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
    def count_rows(self) -> int:
        """Return the number of rows, good and bad. RunError if the file is damaged."""

    @abstractmethod
    def parser(self, *, keeps_negative: bool = False) -> Parser:
        """Return a parser. keeps_negative: whether negative integers are kept that are stored as integers."""

    @abstractmethod
    def fault_error(self, rows_before: int, block: Any, fault: npt.NDArray[np.int64]) -> RunError:
        """Return the error for a row of `Faults`. rows_before: number of rows, good and bad, before the block."""
