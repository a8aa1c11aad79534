"""Click logs in text files, plain or compressed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlperf.data.columns.description import ColumnsDescription
from mlperf.data.columns.header import LogLayout, read_layout
from mlperf.data.columns.messages import fault_message, shown_field
from mlperf.data.columns.parse import ColumnsParser
from mlperf.data.columns.plan import make_actions
from mlperf.data.columns.source import LogFile
from mlperf.data.text.blocks import TextBlock, count_newlines, text_blocks
from mlperf.data.text.compressed import compression, unpacked_size
from mlperf.util.errors import RunError
from mlperf.util.failures import damage


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

    def count_rows(self) -> int:
        """Return the number of lines, without the header."""
        return sum(count_newlines(block) for block in self.blocks())

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
        if number == 1:
            message += '; if this line has the names of the columns, --columns needs "header = true" in [text]'
        return RunError(f"{self.path}: line {number}, {self._layout.name(column)}: {field}: {message}")


def open_text_log(path: Path, description: ColumnsDescription, *, label_optional: bool) -> TextLog:
    """Return a text file. RunError if it is empty, is no text, or lacks a column."""
    return TextLog(path, description, read_layout(path, description, label_optional=label_optional))
