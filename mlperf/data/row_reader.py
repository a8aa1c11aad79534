"""Where rows are read from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mlperf.data.schema import Rows, RowSchema
from mlperf.data.watched_file import WatchedFile
from mlperf.util.errors import RunError


class RowReader(Protocol):
    """The rows of a split, in order. Several threads may read."""

    def check(self) -> None:
        """Raise RunError if a file has changed since it was opened."""
        ...

    def read(self, rows: Rows, first: int) -> None:
        """Fill `rows`, int32 [N, columns], with those from number `first` on. RunError if that is not possible."""
        ...

    def place(self, row: int, column: int) -> tuple[str, int]:
        """Return "file: row, column" of a value, for messages, and the value. `row` and `column` count from 0."""
        ...


class IdReader(Protocol):
    """Several ids per table of the rows of a split, stored beside the rows. Several threads may read."""

    @property
    def ids_per_table(self) -> tuple[int, ...] | None:
        """Number of ids of each table in a sample."""
        ...

    def read_ids(self, ids: npt.NDArray[np.int32], first: int, count: int) -> None:
        """Fill `ids`, int32 [L], with those of `count` rows, table by table, [count, ids] each.

        RunError if that is not possible.
        """
        ...

    def place_of_id(self, row: int, table: int, number: int) -> str:
        """Return "file: row, column" of an id, for messages."""
        ...


@dataclass(frozen=True)
class BinaryRows:
    """The rows of a binary file."""

    file: WatchedFile
    rows: int
    schema: RowSchema

    def check(self) -> None:
        """Raise RunError if the file has changed since it was opened."""
        self.file.check()

    def read(self, rows: Rows, first: int) -> None:
        """Fill `rows`, int32 [N, columns]. RunError if the file ends before or has changed."""
        row_bytes = self.schema.row_bytes
        count = self.file.read_at(rows.data, first * row_bytes)
        if count < len(rows) * row_bytes:
            end = first + len(rows)
            raise RunError(f"{self.file.path}: ends before row {end} of {self.rows}, {row_bytes} bytes each")

    def place(self, row: int, column: int) -> tuple[str, int]:
        """Return "file: row, column" of a value, and the value."""
        value = np.zeros(1, self.schema.dtype)
        self.file.read_at(value.data, row * self.schema.row_bytes + column * self.schema.dtype.itemsize)
        return f"{self.file.path}: row {row + 1}, column {column + 1}", int(value[0])
