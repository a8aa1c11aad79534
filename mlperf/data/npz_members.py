"""Arrays of numbers in NumPy archives (.npz), read from the beginning without loading them whole."""

from __future__ import annotations

import math
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from mlperf.data.npy import read_header, require_size
from mlperf.data.watched_file import FileStatus, WatchedFile
from mlperf.util.errors import RunError
from mlperf.util.failures import damage
from mlperf.util.printable import shown_name


@contextmanager
def opened_archive(path: Path, problem: str, expected: FileStatus | None = None) -> Iterator[OpenArchive]:
    """Open an archive. RunError "path: problem: cause" if reading it fails, or if it changes meanwhile."""
    file = WatchedFile(path, expected)
    try:
        with (
            damage(path, problem),
            open(file.descriptor, "rb", closefd=False) as stream,
            zipfile.ZipFile(stream) as archive,
            ExitStack() as stack,
        ):
            yield OpenArchive(archive, stack, file.status)
    except RunError:
        file.check()  # the better explanation
        raise
    file.check()


class OpenArchive:
    """An open archive. status: status of its file."""

    def __init__(self, archive: zipfile.ZipFile, stack: ExitStack, status: FileStatus) -> None:
        self._archive = archive
        self._stack = stack
        self.status = status

    def names(self) -> list[str]:
        """Return the names of the arrays. ValueError if the archive has other members, or one of them twice."""
        members = Counter(self._archive.namelist())
        for member, count in members.items():
            if not member.endswith(".npy"):
                raise ValueError(f"it contains {shown_name(member)}, which is no array")
            if count > 1:
                raise ValueError(f"{shown_name(member)} appears {count} times")
        return [member.removesuffix(".npy") for member in members]

    def has(self, name: str) -> bool:
        """Return whether there is an array of this name. ValueError if there are several."""
        count = self._archive.namelist().count(f"{name}.npy")
        if count > 1:
            raise ValueError(f"{name}.npy appears {count} times")
        return count == 1

    def array(self, name: str) -> ArrayMember:
        """Open an array. ValueError if there is none, or if it is no array of numbers."""
        if not self.has(name):
            raise ValueError(f"there is no {name}.npy")
        info = self._archive.getinfo(f"{name}.npy")
        return ArrayMember(name, self._stack.enter_context(self._archive.open(info)), info.file_size)


class ArrayMember:
    """An array in an archive, read from the beginning, some rows at a time.

    name: of the array. size: bytes of the uncompressed file, with its header.
    by_column: whether the array is stored in column order (Fortran order).
    """

    def __init__(self, name: str, file: IO[bytes], size: int) -> None:
        self._name = name
        self._file = file
        header = read_header(file, name)
        require_size(header, size - file.tell(), name)
        self.shape, self.dtype, self.by_column = header.shape, header.dtype, header.by_column
        self._columns: list[npt.NDArray[np.generic]] = []
        self._done = 0

    def read(self, rows: int) -> npt.NDArray[np.generic]:
        """Return the next rows."""
        if self.by_column:
            if not self._columns:
                self._columns = [self._read_column() for _ in range(self.shape[1])]
            self._done += rows
            return np.stack([column[self._done - rows : self._done] for column in self._columns], axis=1)
        return self.read_values(rows * math.prod(self.shape[1:])).reshape(rows, *self.shape[1:])

    def read_values(self, count: int) -> npt.NDArray[np.generic]:
        """Return the next values, in the order in which they are stored."""
        content = self._file.read(count * self.dtype.itemsize)
        if len(content) < count * self.dtype.itemsize:
            raise EOFError(f"{self._name} ends early")
        return np.frombuffer(content, self.dtype)

    def finish(self) -> None:
        """Raise ValueError unless the array was read completely; zipfile then verifies its checksum."""
        if self._file.read(1):
            raise ValueError(f"{self._name} has more values than its shape says")

    def _read_column(self) -> npt.NDArray[np.generic]:
        """Read the next column of an array in column order, as int32 if that is lossless."""
        column = self.read_values(self.shape[0])
        with np.errstate(invalid="ignore"):
            narrow = column.astype(np.int32)
        return narrow if np.array_equal(narrow, column) else column
