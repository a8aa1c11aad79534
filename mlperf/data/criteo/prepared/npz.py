"""NumPy archives of prepared rows, as other DLRM programs keep them: X_int, X_cat, y, and counts for all rows."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from mlperf.data.criteo.prepare.parse import Rows
from mlperf.data.schema import COLUMNS, DENSE_FEATURES, FIRST_ID, TABLES
from mlperf.util.errors import RunError
from mlperf.util.failures import damage

_BLOCK_ROWS = 1 << 16
_WIDTHS = {"y": 0, "X_int": DENSE_FEATURES, "X_cat": TABLES}  # columns, 0: one-dimensional


def write_npz(target: Path, parts: Sequence[Path], counts: Sequence[int]) -> None:
    """Write the rows of binary files, one after the other, as X_int, X_cat and y, int32, with the counts."""
    columns = {"y": slice(0, 1), "X_int": slice(1, FIRST_ID), "X_cat": slice(FIRST_ID, COLUMNS)}
    rows = sum(part.stat().st_size for part in parts) // (4 * COLUMNS)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, which in columns.items():
            shape = (rows, _WIDTHS[name]) if _WIDTHS[name] else (rows,)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                _write_header(member, shape)
                for part in parts:
                    for block in _binary_blocks(part):
                        member.write(np.ascontiguousarray(block[:, which]).tobytes())
        with archive.open("counts.npy", "w") as member:
            np.lib.format.write_array(member, np.array(counts, np.int32))


def _write_header(member: IO[bytes], shape: tuple[int, ...]) -> None:
    header = {"descr": "<i4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(member, header)


def _binary_blocks(path: Path) -> Iterator[Rows]:
    with path.open("rb") as file:
        while len(block := np.fromfile(file, "<i4", _BLOCK_ROWS * COLUMNS)):
            yield block.reshape(-1, COLUMNS)


@dataclass(frozen=True)
class Archive:
    """An archive with rows. counts: of the archive, None if it has none. RunError for one that cannot be read."""

    path: Path
    rows: int
    counts: tuple[int, ...] | None

    @classmethod
    def open(cls, path: Path) -> Archive:
        """Look at the shapes; the rows are read block by block."""
        what = "no archive with X_int, X_cat and y can be read from it"
        with damage(path, what), zipfile.ZipFile(path) as archive, ExitStack() as stack:
            members = {name: _Member(stack.enter_context(archive.open(f"{name}.npy"))) for name in _WIDTHS}
            rows = members["y"].shape[0]
            for name, width in _WIDTHS.items():
                if members[name].shape not in {(rows, width) if width else (rows,), (rows, max(1, width))}:
                    raise RunError(
                        f"{path}: {name} has shape {members[name].shape}; expected {(rows, max(1, width))}"
                    )
            counts = None
            if "counts.npy" in archive.namelist():
                with archive.open("counts.npy") as member:
                    found = np.lib.format.read_array(member, allow_pickle=False)
                counts = tuple(int(count) for count in found)
        return cls(path, rows, counts)

    def blocks(self) -> Iterator[Rows]:
        """Yield the rows, int32 [N, 40], negative integers as 0. RunError for a value its column cannot have."""
        done = 0
        with damage(self.path, "damaged"), zipfile.ZipFile(self.path) as archive, ExitStack() as stack:
            members = {name: _Member(stack.enter_context(archive.open(f"{name}.npy"))) for name in _WIDTHS}
            while done < self.rows:
                count = min(_BLOCK_ROWS, self.rows - done)
                parts = [members[name].read(count).reshape(count, -1) for name in ("y", "X_int", "X_cat")]
                yield self._convert(np.concatenate([part.astype(np.float64) for part in parts], axis=1), done)
                done += count
            for member in members.values():
                member.finish()

    def _convert(self, values: npt.NDArray[np.float64], first: int) -> Rows:
        """float64 holds every 32-bit value."""
        bad = (values != np.floor(values)) | ~(np.abs(values) < 2.0**31)
        bad[:, 0] |= (values[:, 0] != 0) & (values[:, 0] != 1)
        bad[:, FIRST_ID:] |= values[:, FIRST_ID:] < 0
        if bad.any():
            row, column = np.argwhere(bad)[0]
            kind = "a label, 0 or 1" if column == 0 else "a whole number of 32 bits"
            kind = "an index" if column >= FIRST_ID else kind
            raise RunError(
                f"{self.path}: row {first + row + 1}, column {column + 1}: {values[row, column]:g} is not {kind}"
            )
        rows = values.astype(np.int32)
        np.maximum(rows[:, 1:FIRST_ID], 0, out=rows[:, 1:FIRST_ID])
        return rows


class _Member:
    """An array in an archive, read from its beginning, a few rows at a time."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, fortran, self._dtype = read(file)
        if self._dtype.kind not in "iufb":
            raise ValueError(f"array of {self._dtype}; expected numbers")
        self._by_column = bool(fortran) and len(self.shape) > 1
        self._columns: list[npt.NDArray[np.generic]] = []
        self._done = 0

    def read(self, rows: int) -> npt.NDArray[np.generic]:
        """Return the next rows."""
        if self._by_column:
            if not self._columns:
                self._columns = [self._read_column() for _ in range(self.shape[1])]
            self._done += rows
            return np.stack([column[self._done - rows : self._done] for column in self._columns], axis=1)
        return self._read(rows * math.prod(self.shape[1:])).reshape(rows, *self.shape[1:])

    def finish(self) -> None:
        """Read what is left, at whose end the checksum is compared. ValueError if there is anything."""
        if self._file.read(1):
            raise ValueError("more rows than its shape says")

    def _read_column(self) -> npt.NDArray[np.generic]:
        """Read the next column of an array that stands column by column: in 32 bits if that changes nothing."""
        column = self._read(self.shape[0])
        with np.errstate(invalid="ignore"):
            narrow = column.astype(np.int32)
        return narrow if np.array_equal(narrow, column) else column

    def _read(self, count: int) -> npt.NDArray[np.generic]:
        content = self._file.read(count * self._dtype.itemsize)
        if len(content) < count * self._dtype.itemsize:
            raise EOFError("ends early")
        return np.frombuffer(content, self._dtype)
