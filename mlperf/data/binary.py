"""The binary file of a split: fixed-length rows of int32, read and decoded in batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mlperf.data.batch import RowSource
from mlperf.data.multi_hot import MultiHotTables
from mlperf.data.row_batches import RowBatches
from mlperf.data.row_reader import BinaryRows
from mlperf.data.schema import CRITEO, LOG1P, DenseFormat, RowSchema
from mlperf.data.watched_file import FileStatus, WatchedFile
from mlperf.distributed.processes import ALONE, Processes


@dataclass(frozen=True)
class BinaryFile(RowBatches):
    """One split of a prepared data set, as a BatchSource.

    The file is opened when this object is created. RunError if that fails or, later, if the file has changed.

    rows: number of rows of the file.
    rows_per_table: the valid indices of table T are 0 to rows_per_table[T] - 1.
    max_ind_range: if positive, indices are taken modulo it when they are read.
    schema: layout of the rows. If they have several ids per table, these are neither limited nor expanded.
    expected: status of the file when it was checked.
    dense, modulo_rows: as in RowSource. Other fields: as in RowBatches.
    """

    path: Path
    rows: int
    batch_size: int
    rows_per_table: tuple[int, ...]
    max_ind_range: int = -1
    shuffle_seed: int | None = None
    limit: int = 0
    readers: int = 1
    pin_memory: bool = False
    schema: RowSchema = CRITEO
    expected: FileStatus | None = None
    dense: DenseFormat = LOG1P
    modulo_rows: bool = False
    multi_hot: MultiHotTables | None = None
    processes: Processes = ALONE
    reader: BinaryRows = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        reader = BinaryRows(WatchedFile(self.path, self.expected), self.rows, self.schema)
        object.__setattr__(self, "reader", reader)  # the class is frozen

    @property
    def source(self) -> RowSource:
        """The file, and what is valid in it."""
        return RowSource(
            self.path,
            self.rows_per_table,
            self.max_ind_range,
            self.schema,
            self.reader,
            self.dense,
            self.modulo_rows,
        )
