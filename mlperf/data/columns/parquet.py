"""Click logs in Parquet files, read with the package pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlperf.data.columns.description import ColumnsDescription
from mlperf.data.columns.header import LogLayout, named_positions
from mlperf.data.columns.messages import fault_message
from mlperf.data.columns.parquet_parser import ParquetParser, check_types
from mlperf.data.columns.source import LogFile
from mlperf.util.errors import RunError, UsageError
from mlperf.util.failures import damage
from mlperf.util.printable import shown

BLOCK_ROWS = 1 << 15


@dataclass(frozen=True)
class ParquetBlock:
    """Rows of a Parquet file.

    batch: their columns, a `pyarrow.RecordBatch`. length: their share of the bytes of the file. end: number of
    the row after them, from 0.
    """

    batch: Any
    length: int
    end: int


class ParquetLog(LogFile):
    """A Parquet file."""

    def __init__(self, path: Path, description: ColumnsDescription, layout: LogLayout, file: Any) -> None:
        super().__init__(path, description, layout.columns, layout.has_label)
        self._layout = layout
        self._rows = int(file.metadata.num_rows)
        self._bytes = path.stat().st_size

    def size(self) -> tuple[int, int]:
        """Return the bytes and the rows of the file."""
        return self._bytes, self._rows

    def count_rows(self) -> int:
        """Return the number of rows."""
        return self._rows

    def blocks(self, start: int = 0) -> Iterator[ParquetBlock]:
        """Yield the rows from number `start` on."""
        with damage(self.path, "damaged Parquet file"):
            file = _open(self.path)
            groups, first_row = _groups_from(file, start)
            assert self._layout.names is not None
            names = [self._layout.names[position] for position in self._layout.positions if position is not None]
            batches = file.iter_batches(BLOCK_ROWS, row_groups=groups, columns=names)
        while True:
            with damage(self.path, f"damaged Parquet file after {first_row} rows"):
                batch = self._next(batches)
            if batch is None:
                return
            end = first_row + batch.num_rows
            if end > start:
                batch = batch.slice(max(0, start - first_row))
                first = end - batch.num_rows
                yield ParquetBlock(batch, self._bytes * end // self._rows - self._bytes * first // self._rows, end)
            first_row = end

    def _next(self, batches: Iterator[Any]) -> Any:
        """Return the next batch, None after the last. RunError if pyarrow cannot convert a column."""
        try:
            return next(batches, None)
        except NotImplementedError as error:  # such as lists of dictionary values in several row groups
            raise RunError(f"{self.path}: pyarrow cannot read it: {error}") from None

    def parser(self, *, keeps_negative: bool = False) -> ParquetParser:
        """Return a parser of the file."""
        return ParquetParser(self.description, self._layout, keeps_negative=keeps_negative)

    def fault_error(self, rows_before: int, block: Any, fault: npt.NDArray[np.int64]) -> RunError:
        """Return the error, with the number of the row in the file, from 1."""
        row, reason, column, _ = (int(value) for value in fault)
        assert self._layout.names is not None
        value = shown(block.batch.column(self._layout.names[column])[row].as_py())
        message = fault_message(reason, self.description, self._layout, column)
        return RunError(
            f"{self.path}: row {rows_before + row + 1}, {self._layout.name(column)}: {value}: {message}"
        )


def open_parquet(path: Path, description: ColumnsDescription, *, label_optional: bool) -> ParquetLog:
    """Return a Parquet file. RunError if it is damaged, or lacks a column or has it with another type."""
    with damage(path, "damaged, or not a Parquet file"):
        file = _open(path)
        schema = file.schema_arrow
    names = list(schema.names)
    positions = named_positions(path, description, names, label_optional=label_optional)
    layout = LogLayout("", tuple(names), len(names), 0, positions)
    for position in positions:
        if position is not None and names.count(names[position]) > 1:
            raise RunError(
                f"{path}: {names.count(names[position])} columns have the name {shown(names[position])}"
            )
    check_types(path, description, layout, schema)
    return ParquetLog(path, description, layout, file)


def _open(path: Path) -> Any:
    """Open a Parquet file. UsageError if pyarrow is not installed."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise UsageError(f"{path}: .parquet requires the package pyarrow (pip install pyarrow)") from None
    return pyarrow.parquet.ParquetFile(path)


def _groups_from(file: Any, start: int) -> tuple[list[int], int]:
    """Return the row groups with rows from number `start` on, and the number of the first of their rows."""
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    ends = np.cumsum([0, *sizes])
    first = int(np.searchsorted(ends[1:], start, side="right"))
    return list(range(first, len(sizes))), int(ends[first])
