"""Batches: what every data source yields and every model takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mlperf.data.row_reader import RowReader
from mlperf.data.schema import CRITEO, LOG1P, MAX_TABLE_ROWS, DenseFormat, RowSchema


@dataclass(frozen=True)
class Batch:
    """B samples with T sparse features.

    dense: float32 [B, dense features], already transformed for the bottom MLP.
    indices: int64 ids. With one id per table and sample: [T, B], and `offsets` is None. With several: [L],
        ordered by table, then by sample.
    offsets: int64 [T, B], position in `indices` of the first id of each table and sample; or None.
    labels: float32 [B, 1].
    ids_per_table: if not None, each sample has this number of ids of each table. The ids of table k are
        `indices` viewed as [B, ids_per_table[k]], and `offsets` say the same.
    """

    dense: torch.Tensor
    indices: torch.Tensor
    offsets: torch.Tensor | None
    labels: torch.Tensor
    ids_per_table: tuple[int, ...] | None = None

    @property
    def size(self) -> int:
        """Number of samples."""
        return self.labels.shape[0]

    def bags(self) -> torch.Tensor:
        """Return the bag of each id, table * B + sample, int64 [L]. Requires `offsets`."""
        assert self.offsets is not None
        bags = torch.arange(self.offsets.numel(), device=self.offsets.device)
        # Without the size of the result, the host would wait for it.
        return torch.repeat_interleave(bags, self.bag_sizes().flatten(), output_size=len(self.indices))

    def bag_sizes(self) -> torch.Tensor:
        """Return the number of ids of each table and sample, int64 [T, B]. Requires `offsets`."""
        assert self.offsets is not None
        starts = self.offsets.flatten()
        stops = torch.cat((starts[1:], starts.new_full((1,), len(self.indices))))
        return (stops - starts).view_as(self.offsets)

    def ids_by_table(self) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """Yield the ids of each table, int64 [N], and the sample of each id; None if id i belongs to sample i."""
        if self.offsets is None:
            for ids in self.indices:
                yield ids, None
            return
        samples = self.bags() % self.size
        bounds = [*self.offsets[:, 0].tolist(), len(self.indices)]  # on a GPU, the host waits for it here
        for start, stop in pairwise(bounds):
            yield self.indices[start:stop], samples[start:stop]

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`. Copies from pinned memory do not block the host."""
        return Batch(
            self.dense.to(device, non_blocking=True),
            self.indices.to(device, non_blocking=True),
            None if self.offsets is None else self.offsets.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
            self.ids_per_table,
        )

    def pin(self) -> Batch:
        """Return the batch in pinned memory."""
        return Batch(
            self.dense.pin_memory(),
            self.indices.pin_memory(),
            None if self.offsets is None else self.offsets.pin_memory(),
            self.labels.pin_memory(),
            self.ids_per_table,
        )


@dataclass(frozen=True)
class RowSource:
    """Stored rows, and the range of their valid ids.

    path: the binary file, or the folder of the files.
    rows_per_table: the valid indices of table T are 0 to rows_per_table[T] - 1.
    max_ind_range: if positive, indices are first taken modulo it.
    schema: layout of the rows.
    reader: reads the rows; None: the binary file is opened by its path if that is needed.
    dense: format of the dense features.
    modulo_rows: whether indices, which must not be negative, are taken modulo the rows of their table.
    """

    path: Path
    rows_per_table: tuple[int, ...]
    max_ind_range: int = -1
    schema: RowSchema = CRITEO
    reader: RowReader | None = None
    dense: DenseFormat = LOG1P
    modulo_rows: bool = False

    @property
    def moduli(self) -> npt.NDArray[np.int64]:
        """What indices are first taken modulo, table by table, int64 [T]; -1: nothing."""
        limits = self.rows_per_table if self.modulo_rows else (self.max_ind_range,) * len(self.rows_per_table)
        return np.array(limits)

    @property
    def smallest_id(self) -> int:
        """Smallest index that is valid before it is taken modulo something."""
        return 0 if self.modulo_rows else -MAX_TABLE_ROWS


@dataclass(frozen=True)
class RawBatch:
    """B undecoded rows, to be decoded on the device.

    rows: int32 [B, columns]: label, dense features, ids.
    first_row: position of the first row in the split, from 0.
    ids: int32 [L], the valid ids of several per table, those of table k viewed as [B, ids of table k]; None if the
        ids of `rows` are used.
    """

    rows: torch.Tensor
    first_row: int
    source: RowSource
    ids: torch.Tensor | None = None

    @property
    def size(self) -> int:
        """Number of samples."""
        return self.rows.shape[0]
