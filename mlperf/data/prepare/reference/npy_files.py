"""The NumPy files of the reference: day_K_dense.npy, day_K_sparse.npy and day_K_labels.npy for each day K."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mlperf.data.npy import write_header
from mlperf.data.prepared.reference_paths import DAY, day_file
from mlperf.data.schema import CRITEO
from mlperf.util.crc32 import combine_crc32
from mlperf.util.files import write_fully_at

# The arrays of a day, with their columns.
KINDS = {"dense": CRITEO.dense_features, "sparse": CRITEO.tables, "labels": 1}


@dataclass(frozen=True)
class NpyFile:
    """One file, which is written in parts. dtype: of its values."""

    name: str
    rows: int
    columns: int
    dtype: npt.DTypeLike

    @property
    def header(self) -> bytes:
        """The header, as numpy.save writes it."""
        buffer = io.BytesIO()
        write_header(buffer, self.dtype, (self.rows, self.columns))
        return buffer.getvalue()

    @property
    def row_bytes(self) -> int:
        """Size of a row."""
        return self.columns * np.dtype(self.dtype).itemsize

    @property
    def size(self) -> int:
        """Size of the file."""
        return len(self.header) + self.rows * self.row_bytes


def files_of_day(day: int, rows: int, *, is_last: bool) -> list[NpyFile]:
    """Return the files of a day, in the order of KINDS. The last day, which is not shuffled, has int64 ids."""
    dtypes = {"dense": "<f4", "sparse": "<i8" if is_last else "<i4", "labels": "<i4"}
    names = {kind: day_file(Path(DAY), day, f"{kind}.npy").name for kind in KINDS}
    return [NpyFile(names[kind], rows, columns, dtypes[kind]) for kind, columns in KINDS.items()]


def all_files(rows_per_day: Sequence[int]) -> list[list[NpyFile]]:
    """Return the files of each day."""
    last = len(rows_per_day) - 1
    return [files_of_day(day, rows, is_last=day == last) for day, rows in enumerate(rows_per_day)]


class DayWriter:
    """Writes the three files of a day at any rows. The files have their full size, and their headers, at once."""

    def __init__(self, folder: Path, files: Sequence[NpyFile]) -> None:
        self._files = files
        self._headers = [file.header for file in files]
        with ExitStack() as opened:
            self._descriptors = []
            for file, header in zip(files, self._headers, strict=True):
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(folder / file.name, flags, 0o666)
                opened.callback(os.close, descriptor)
                os.ftruncate(descriptor, file.size)
                os.posix_fallocate(descriptor, 0, file.size)  # fails now if the disk is full
                write_fully_at(descriptor, memoryview(header), 0)
                self._descriptors.append(descriptor)
            self._opened = opened.pop_all()

    def write(self, first_row: int, arrays: Sequence[npt.NDArray[np.generic]]) -> list[int]:
        """Write rows from `first_row` of the day on; return the CRC-32 of the bytes in each file.

        arrays: dense, sparse and labels, C-contiguous, [N, columns] with the dtype of the file.
        """
        checksums = []
        for file, descriptor, header, array in zip(
            self._files, self._descriptors, self._headers, arrays, strict=True
        ):
            offset = len(header) + first_row * file.row_bytes
            write_fully_at(descriptor, array.data, offset)
            # Dirty pages are not dropped, but the disk starts to write them now, so that the final fsync is short.
            os.posix_fadvise(descriptor, offset, array.nbytes, os.POSIX_FADV_DONTNEED)
            checksums.append(zlib.crc32(array.data))
        return checksums

    def close(self) -> None:
        """Close the files."""
        self._opened.close()


def file_checksum(file: NpyFile, parts: Sequence[tuple[int, int]]) -> int:
    """Return the CRC-32 of a file from the rows and the CRC-32 of its parts, in order."""
    crc32 = zlib.crc32(file.header)
    for rows, checksum in parts:
        crc32 = combine_crc32(crc32, checksum, rows * file.row_bytes)
    return crc32
