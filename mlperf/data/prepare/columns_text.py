"""The input files of a data set whose columns a description gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlperf.data.columns.description import ColumnsDescription, Transform
from mlperf.data.columns.header import MissingColumnError
from mlperf.data.columns.log_file import open_log
from mlperf.data.columns.parse import ParsedColumns
from mlperf.data.columns.source import Block, Parser
from mlperf.data.prepare.key_mapping import KeyMapper
from mlperf.data.prepare.layout import Layout
from mlperf.data.prepare.text_format import Parse, TextFormat
from mlperf.data.prepared.id_numbering import IdNumbering
from mlperf.settings.dataset import PreparationSettings
from mlperf.util.errors import RunError


class ColumnsText(TextFormat):
    """Text with a header or without, or Parquet files."""

    def __init__(
        self,
        inputs: Sequence[Path],
        settings: PreparationSettings,
        numbering: IdNumbering | None,
        columns: ColumnsDescription,
    ) -> None:
        super().__init__(inputs, settings, numbering)
        self.columns = columns
        self.layout = Layout(columns.schema, key_bytes=8, has_splits=True)
        self.standardized = [
            column for column, dense in enumerate(columns.dense, 1) if dense.transform is Transform.STANDARDIZE
        ]
        try:
            self._logs = [open_log(path, columns) for path in inputs]
        except MissingColumnError as error:
            raise RunError(f"--columns={settings.columns}: {error}") from None

    def blocks(self, file: int, start: int) -> Iterator[Block]:
        """See TextFormat."""
        return self._logs[file].blocks(start)

    def parser(self) -> Parse:
        """See TextFormat."""
        parsers: dict[int, Parser] = {}

        def parse(file: int, block: Any) -> ParsedColumns:
            if file not in parsers:
                parsers.clear()  # blocks come in the order of the files
                parsers[file] = self._logs[file].parser()
            return parsers[file].parse(block)

        return parse

    def new_mapper(self) -> KeyMapper:
        """See TextFormat."""
        return KeyMapper(self.columns.schema, self._settings.traits.first_index)

    def error(self, file: int, lines: int, block: Any, fault: npt.NDArray[np.int64]) -> RunError:
        """See TextFormat."""
        return self._logs[file].fault_error(lines, block, fault)

    def count_rows(self, file: int) -> int:
        """See TextFormat."""
        return self._logs[file].count_rows()

    def size(self, file: int) -> tuple[int, int]:
        """See TextFormat."""
        text_bytes, rows = self._logs[file].size()
        return text_bytes, rows * self.layout.schema.row_bytes
