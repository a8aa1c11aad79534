"""Rows in memory, as a BatchSource."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mlperf.data.batch import RowSource
from mlperf.data.multi_hot import MultiHotTables
from mlperf.data.row_batches import RowBatches
from mlperf.data.schema import Rows, RowSchema
from mlperf.distributed.processes import ALONE, Processes


@dataclass(frozen=True)
class ArrayRows:
    """Rows of an array. name: what they come from, for messages."""

    values: Rows
    name: str
    schema: RowSchema

    def check(self) -> None:
        """Do nothing: memory does not change."""

    def read(self, rows: Rows, first: int) -> None:
        """Fill `rows`, int32 [N, columns], with those from number `first` on."""
        rows[:] = self.values[first : first + len(rows)]

    def place(self, row: int, column: int) -> tuple[str, int]:
        """Return "name: ids: row, column" of a value, and the value."""
        is_id, value = column >= self.schema.first_id, int(self.values[row, column])
        if column == 0:
            return f"{self.name}: labels: row {row + 1}", value
        part, first = ("ids", self.schema.first_id) if is_id else ("dense", 1)
        return f"{self.name}: {part}: row {row + 1}, column {column - first + 1}", value


@dataclass(frozen=True)
class MemoryRows(RowBatches):
    """Rows with the layout of the binary file.

    values: int32 [N, columns]. form: what is valid in them, and how they are decoded; its path is for messages.
    Other fields: as in RowBatches.
    """

    values: Rows
    form: RowSource
    batch_size: int
    pin_memory: bool = False
    multi_hot: MultiHotTables | None = None
    readers: int = 1
    shuffle_seed: int | None = None
    limit: int = 0
    processes: Processes = ALONE
    rows: int = field(init=False)
    schema: RowSchema = field(init=False)
    reader: ArrayRows = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # The class is frozen.
        object.__setattr__(self, "rows", len(self.values))
        object.__setattr__(self, "schema", self.form.schema)
        object.__setattr__(self, "reader", ArrayRows(self.values, str(self.form.path), self.schema))

    @property
    def source(self) -> RowSource:
        """The rows, and what is valid in them."""
        return replace(self.form, reader=self.reader)
