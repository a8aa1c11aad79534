"""NumPy archives of prepared rows, in the format of the original DLRM implementation (facebookresearch/dlrm).

The arrays are X_int (dense features), X_cat (ids), y (labels) and counts (rows of each table); all but counts have
one row for each sample.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mlperf.data.npy import write_header
from mlperf.data.npz_members import ArrayMember, opened_archive
from mlperf.data.schema import CRITEO, MAX_TABLE_ROWS, Rows
from mlperf.data.watched_file import FileStatus
from mlperf.util.errors import RunError

_BLOCK_ROWS = 1 << 16
# Columns of the binary file in each array, in the order in which the arrays are written.
_COLUMNS = {"y": slice(0, 1), "X_int": CRITEO.dense_columns, "X_cat": CRITEO.id_columns}


def _width(name: str) -> int:
    return _COLUMNS[name].stop - _COLUMNS[name].start


def write_npz(target: Path, parts: Sequence[Path], counts: Sequence[int]) -> None:
    """Write the rows of the binary files `parts`, one file after the other, to an archive, as int32."""
    rows = sum(part.stat().st_size for part in parts) // CRITEO.row_bytes
    target.unlink(missing_ok=True)
    with zipfile.ZipFile(target, "x", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, columns in _COLUMNS.items():
            shape = (rows,) if name == "y" else (rows, _width(name))
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                write_header(member, CRITEO.dtype, shape)
                for part in parts:
                    for block in _binary_blocks(part):
                        member.write(np.ascontiguousarray(block[:, columns]).tobytes())
        with archive.open("counts.npy", "w") as member:
            np.lib.format.write_array(member, np.array(counts, np.int32))


def _binary_blocks(path: Path) -> Iterator[Rows]:
    with path.open("rb") as file:
        while len(block := np.fromfile(file, CRITEO.dtype, _BLOCK_ROWS * CRITEO.columns)):
            yield block.reshape(-1, CRITEO.columns)


@dataclass(frozen=True)
class Archive:
    """An archive of rows. counts: rows of each table, None if they are not in the archive."""

    path: Path
    rows: int
    counts: tuple[int, ...] | None
    status: FileStatus

    @classmethod
    def open(cls, path: Path) -> Archive:
        """Read the shapes and the counts. RunError if the file is damaged or not such an archive."""
        with opened_archive(path, "cannot read an archive with X_int, X_cat and y") as archive:
            members = {name: archive.array(name) for name in _COLUMNS}
            rows = (*members["y"].shape, 0)[0]
            for name in _COLUMNS:
                allowed = {(rows, _width(name)), (rows,)} if name == "y" else {(rows, _width(name))}
                if members[name].shape not in allowed:
                    raise RunError(
                        f"{path}: {name} has shape {members[name].shape}; expected {(rows, _width(name))}"
                    )
            counts = _counts(archive.array("counts"), path) if archive.has("counts") else None
            return cls(path, rows, counts, archive.status)

    def blocks(self) -> Iterator[Rows]:
        """Yield the rows, int32 [N, columns], with negative dense features set to 0.

        Raises RunError if a value is invalid for its column, or if the file has changed since `open`.
        """
        done = 0
        with opened_archive(self.path, "damaged", self.status) as archive:
            members = {name: archive.array(name) for name in _COLUMNS}
            while done < self.rows:
                count = min(_BLOCK_ROWS, self.rows - done)
                parts = [members[name].read(count).reshape(count, -1) for name in _COLUMNS]
                values = np.concatenate([part.astype(np.float64) for part in parts], axis=1)
                yield self._to_rows(values, done)
                done += count
            for member in members.values():
                member.finish()

    def _to_rows(self, values: npt.NDArray[np.float64], first_row: int) -> Rows:
        """Check and convert values [N, columns]; float64 represents every 32-bit integer exactly."""
        invalid = (values != np.floor(values)) | ~(np.abs(values) < 2.0**31)
        invalid[:, 0] |= (values[:, 0] != 0) & (values[:, 0] != 1)
        invalid[:, CRITEO.id_columns] |= values[:, CRITEO.id_columns] < 0
        if invalid.any():
            row, column = np.argwhere(invalid)[0]
            expected = "a label, 0 or 1" if column == 0 else "a whole number of 32 bits"
            expected = "an index" if column >= CRITEO.first_id else expected
            raise RunError(
                f"{self.path}: row {first_row + row + 1}, column {column + 1}: {values[row, column]:g} is not "
                f"{expected}"
            )
        rows = values.astype(np.int32)
        dense = rows[:, CRITEO.dense_columns]
        np.maximum(dense, 0, out=dense)
        return rows


def read_counts(path: Path) -> tuple[int, ...]:
    """Return the rows of each table from a `*_fea_count.npz` of another tool. RunError if it has none."""
    with opened_archive(path, "cannot read counts per column") as archive:
        return _counts(archive.array("counts"), path)


def _counts(member: ArrayMember, path: Path) -> tuple[int, ...]:
    """Return the rows of each table. RunError unless there is a whole number of at least 1 for every table."""
    allowed = f"expected {CRITEO.tables} counts from 1 to {MAX_TABLE_ROWS}"
    if member.shape != (CRITEO.tables,):
        raise RunError(f"{path}: {allowed}, found an array of shape {member.shape}")
    values = member.read(CRITEO.tables).tolist()
    member.finish()
    if not all(type(value) is not bool and 1 <= value <= MAX_TABLE_ROWS and value % 1 == 0 for value in values):
        raise RunError(f"{path}: {allowed}, found {values}")
    return tuple(int(value) for value in values)
