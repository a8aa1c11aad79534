"""What the files of a preparation contain, and which rows each has in a state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlperf.data.criteo.days import SPLITS, split_rows
from mlperf.data.prepare.state import PreparationState
from mlperf.data.schema import CRITEO, RowSchema


@dataclass(frozen=True)
class Layout:
    """schema: layout of the rows. key_bytes: size of a saved id.

    has_splits: whether the parts into which the text is divided are the splits; otherwise they are days, of which
    the last is stored as "test" and divided into test and validation rows at the end.
    """

    schema: RowSchema = CRITEO
    key_bytes: int = 4
    has_splits: bool = False

    def rows(self, rows_per_part: Sequence[int]) -> dict[str, int]:
        """Return the rows of each split."""
        return dict(zip(SPLITS, rows_per_part, strict=True)) if self.has_splits else split_rows(rows_per_part)

    def held_out_rows(self, rows_per_part: Sequence[int]) -> dict[str, int]:
        """Return the rows, besides the training rows, of each file that is written while the text is read."""
        if self.has_splits:
            return dict(zip(SPLITS[1:], rows_per_part[1:], strict=True))
        return {"test": rows_per_part[-1]}

    def training_bytes(self, bytes_per_part: Sequence[int]) -> list[int]:
        """Return the bytes of each part that is for training."""
        return list(bytes_per_part[:1] if self.has_splits else bytes_per_part[:-1])

    def row_bytes(self, state: PreparationState) -> dict[str, int]:
        """Return the minimum size of the files of the splits from which a preparation continues."""
        if state.phase == "publish":
            rows = {**self.rows(state.rows_per_day), "train": state.train_rows}
        else:
            train = state.train_rows if state.buckets is None else state.spill_rows
            rows = {**self.held_out_rows(state.rows_per_day), "train": train}
        return {split: count * self.schema.row_bytes for split, count in rows.items()}


CRITEO_LAYOUT = Layout()
