"""The layout of a row: how many dense features, how many embedding tables, how many ids for each table.

All code that reads, writes or decodes rows uses a `RowSchema`. `CRITEO` is the layout of the Criteo click logs.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from mlperf.benchmarks.data_sets import DENSE_FEATURES, TABLES

MAX_TABLE_ROWS = 1 << 31  # ids are int32


@dataclass(frozen=True)
class RowSchema:
    """Layout of a row of the binary file: one label, then the dense features, then the ids, table by table.

    Every column is a little-endian int32.

    dense_features: number of dense features.
    ids_per_table: number of ids of each table in a row; all 1 if the data is one-hot.
    """

    dense_features: int
    ids_per_table: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.dense_features < 0 or min(self.ids_per_table, default=1) < 1:
            raise ValueError(f"{self}: dense_features must be at least 0 and each of ids_per_table at least 1")

    @property
    def tables(self) -> int:
        """Number of embedding tables."""
        return len(self.ids_per_table)

    @property
    def first_id(self) -> int:
        """Column of the first id; the columns before it are the label (0) and the dense features."""
        return 1 + self.dense_features

    @property
    def columns(self) -> int:
        """Number of columns."""
        return self.first_id + sum(self.ids_per_table)

    @property
    def dense_columns(self) -> slice:
        """Columns of the dense features."""
        return slice(1, self.first_id)

    @property
    def id_columns(self) -> slice:
        """Columns of the ids."""
        return slice(self.first_id, self.columns)

    @property
    def dtype(self) -> np.dtype[np.int32]:
        """Type of every column in the file: little-endian int32."""
        return np.dtype("<i4")

    @property
    def row_bytes(self) -> int:
        """Size of a row in the file."""
        return self.columns * self.dtype.itemsize

    @property
    def is_one_hot(self) -> bool:
        """Whether a row has exactly one id for every table."""
        return all(ids == 1 for ids in self.ids_per_table)

    @property
    def first_ids(self) -> tuple[int, ...]:
        """Column of the first id of each table."""
        return tuple(self.first_id + before for before in accumulate(self.ids_per_table, initial=0))[:-1]

    def table_of(self, column: int) -> int:
        """Return the number of the table to which the ids of a column belong."""
        return bisect_right(self.first_ids, column) - 1

    def require_one_hot(self, user: str) -> None:
        """Raise ValueError if a table has several ids, which `user`, a module or class, does not support."""
        if not self.is_one_hot:
            raise ValueError(f"{user} supports one id per table, not ids_per_table={self.ids_per_table}")


@dataclass(frozen=True)
class DenseTransform:
    """What the model gets of a dense value x that is stored as float32; of NaN, a missing value, it gets 0.

    is_log: ln(1 + max(x, 0)); otherwise (x - mean) / deviation. Computed in float64 and rounded to float32.
    """

    is_log: bool = False
    mean: float = 0.0
    deviation: float = 1.0


@dataclass(frozen=True)
class DenseFormat:
    """What a dense column x of a row holds; the model gets ln(max(x, smallest) + offset), computed in float32.

    smallest, offset: of integers; `offset` is greater than -`smallest`. is_float: the column holds the bits of the
    float32 feature itself instead. transforms: of each column if these are not the features yet.
    """

    smallest: int = 0
    offset: int = 1
    is_float: bool = False
    transforms: tuple[DenseTransform, ...] = ()


LOG1P = DenseFormat()  # DLRM: ln(1 + max(x, 0))

CRITEO = RowSchema(dense_features=DENSE_FEATURES, ids_per_table=(1,) * TABLES)

Rows = npt.NDArray[np.int32]  # rows in memory, int32 [N, columns]
Keys = npt.NDArray[np.uint64]  # 64-bit ids, [N] or [N, ids per row]
