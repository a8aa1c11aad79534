"""The files that the DLRM-DCNv2 reference prepares: arrays day_0_dense.npy, day_0_labels.npy, ... in a folder.

With day_K_sparse.npy the rows have one id per table; with day_K_sparse_multi_hot.npz instead, several. The last
day is divided into two halves: here the first one is test and the second one val, in the reference the other way
round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlperf.benchmarks import dashed
from mlperf.benchmarks.data_sets import TERABYTE_DAYS
from mlperf.data.criteo.days import split_rows
from mlperf.data.day_files import DayPart, DayRows
from mlperf.data.npy import StoredArray, open_archive, open_array
from mlperf.data.prepared.reference_paths import day_file, day_files
from mlperf.data.schema import CRITEO
from mlperf.data.watched_file import FileStatus
from mlperf.util.errors import RunError
from mlperf.util.printable import shown_name

_LAST = TERABYTE_DAYS - 1


@dataclass(frozen=True)
class ReferenceFiles:
    """The files of all days.

    prefix: the path FOLDER/day, with which all names begin.
    rows_per_day: number of rows of each day. ids_per_table: if the rows have several ids per table, how many.
    statuses: status of each file when its header was read, by name.
    """

    prefix: Path
    rows_per_day: tuple[int, ...]
    ids_per_table: tuple[int, ...] | None
    statuses: dict[str, FileStatus]

    @classmethod
    def read(cls, prefix: Path) -> ReferenceFiles:
        """Read the headers of all files. RunError if one is missing, or is not as it should be."""
        has_ids = not day_file(prefix, 0, "sparse.npy").is_file()
        days = [open_day(prefix, day, has_ids=has_ids) for day in range(TERABYTE_DAYS)]
        per_table = days[0].ids_per_table if has_ids else None
        for day in days:
            if has_ids and day.ids_per_table != per_table:
                raise RunError(
                    f"{day.parts[0].ids[0].file.path}: has {dashed(day.ids_per_table or ())} ids per table, "
                    f"day 0 has {dashed(per_table or ())}"
                )
        files = [array.file for day in days for array in day.parts[0].arrays]
        rows = tuple(day.rows for day in days)
        if not sum(rows[:-1]) or not rows[-1]:
            where = f"day {_LAST}" if sum(rows[:-1]) else f"days 0 to {_LAST - 1}"
            raise RunError(f"{prefix.parent}: there are no rows in {where}")
        return cls(prefix, rows, per_table, {file.path.name: file.status for file in files})

    def rows(self, split: str) -> int:
        """Return the number of rows of a split: train, test or val."""
        return split_rows(self.rows_per_day)[split]

    def paths(self, split: str) -> list[Path]:
        """Return the files of a split."""
        paths = [path for day in _days(split) for path in day_files(self.prefix, day)]
        return [path for path in paths if path.name in self.statuses]

    def open(self, split: str) -> DayRows:
        """Open the files of a split. RunError if one has changed since the headers were read."""
        has_ids, expected = self.ids_per_table is not None, self.statuses
        parts = [open_day(self.prefix, day, has_ids=has_ids, expected=expected).parts[0] for day in _days(split)]
        if split != "train":
            first = self.rows("test")
            start, count = (0, first) if split == "test" else (first, self.rows("val"))
            parts = [DayPart(p.dense, p.labels, p.sparse, p.ids, start, count) for p in parts]
        return DayRows([part for part in parts if part.rows])


def _days(split: str) -> Sequence[int]:
    """Return the days of a split; the evaluation splits are parts of the last day."""
    return range(_LAST) if split == "train" else [_LAST]


def open_day(prefix: Path, day: int, *, has_ids: bool, expected: dict[str, FileStatus] | None = None) -> DayRows:
    """Open the files of a day. RunError if one is missing, has other shapes or dtypes, or has changed."""

    def status(path: Path) -> FileStatus | None:
        return None if expected is None else expected[path.name]

    dense, labels, sparse, archive = day_files(prefix, day)
    dense_array = open_array(dense, status(dense))
    dense_array.require(["float32"], (None, CRITEO.dense_features))
    rows = dense_array.rows
    labels_array = open_array(labels, status(labels))
    labels_array.require(["int32"], (None, 1))
    sparse_array: StoredArray | None = None
    ids: tuple[StoredArray, ...] = ()
    if has_ids:
        ids = tuple(_id_arrays(archive, status(archive)))
    else:
        sparse_array = open_array(sparse, status(sparse))
        sparse_array.require(["int32", "int64"], (None, CRITEO.tables))
    part = DayPart(dense_array, labels_array, sparse_array, ids, 0, rows)
    for array in part.arrays:
        if array.rows != rows:
            raise RunError(f"{array.name}: has {array.rows} rows, {dense.name} has {rows}")
    return DayRows([part])


def _id_arrays(path: Path, expected: FileStatus | None) -> list[StoredArray]:
    """Return the arrays of an archive with several ids per table, in the order of the tables."""
    found = open_archive(path, expected)
    names = [f"{table}.npy" for table in range(CRITEO.tables)]
    if set(found) != set(names):
        missing = sorted(set(names) - set(found)) or sorted(set(found) - set(names))
        problem = "lacks" if set(names) - set(found) else "also contains"
        raise RunError(f"{path}: {problem} {shown_name(missing[0])}; it must have {names[0]} to {names[-1]}")
    for name in names:
        found[name].require(["int32"], (None, None))
        if found[name].header.shape[1] < 1:
            raise RunError(f"{found[name].name}: has no ids")
    return [found[name] for name in names]
