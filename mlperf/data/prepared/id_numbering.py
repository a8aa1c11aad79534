"""The ids of a prepared data set, X.ids: which id of each column has which row of its embedding table.

The file begins with 8 bytes, the number of columns and a checksum of the entries that follow, one for each column
(_ENTRY). Then come the keys of each column in order of their numbers: the differences to the smallest key, each in
as few bytes as the largest difference needs.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mlperf.data.columns.description import IdKind
from mlperf.data.schema import Keys
from mlperf.util.errors import RunError
from mlperf.util.files import open_regular, read_fully

MAGIC = b"DLRMids1"
_KINDS = tuple(IdKind)
_START = np.dtype([("magic", "S8"), ("columns", "<u4"), ("crc32", "<u4")])
# kind: number of the IdKind. width: bytes of a difference. crc32: of the keys as uint64.
_ENTRY = np.dtype(
    [
        *(("kind", "<u4"), ("width", "<u4"), ("first_index", "<u4"), ("crc32", "<u4")),
        *(("count", "<u8"), ("smallest", "<u8")),
    ]
)
_BLOCK_KEYS = 1 << 17
_MAX_COLUMNS = 1 << 16


@dataclass(frozen=True)
class ColumnIds:
    """The ids of a column. first_index: number of the first one. crc32: CRC-32 of the keys as uint64.

    width: bytes of a key in the file, after `smallest` is subtracted. offset: position of the first in the file.
    """

    kind: IdKind
    first_index: int
    count: int
    crc32: int
    smallest: int
    width: int
    offset: int


@dataclass(frozen=True)
class IdNumbering:
    """The numbering in a file X.ids."""

    path: Path
    columns: tuple[ColumnIds, ...]

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that differ if an id has another number."""
        digest = hashlib.blake2b(digest_size=8)
        for column in self.columns:
            digest.update(f"{column.kind} {column.first_index} {column.count} {column.crc32}\n".encode())
        return digest.hexdigest()

    @classmethod
    def read(cls, path: Path, fingerprint: str | None = None) -> IdNumbering:
        """Read what the file says of each column. RunError if it is missing or damaged, or of another numbering.

        fingerprint: of the numbering that the manifest of the file names; None: it may be any.
        """
        try:
            with open_regular(path) as file:
                size = file.seek(0, 2)
                file.seek(0)
                numbering = cls(path, _read_entries(file, path, size))
        except OSError as error:
            raise RunError(f"{path}: cannot be read: {error.strerror}") from None
        if fingerprint is not None and numbering.fingerprint != fingerprint:
            raise RunError(f"{path}: has the numbering {numbering.fingerprint}, its manifest says {fingerprint}")
        return numbering

    def keys(self, table: int) -> Keys:
        """Return the keys of a column, uint64, in order of their numbers. RunError if the file is damaged."""
        column = self.columns[table]
        keys = np.empty(column.count, np.uint64)
        try:
            with open_regular(self.path) as file:
                file.seek(column.offset)
                for start in range(0, column.count, _BLOCK_KEYS):
                    _read_keys(file, keys[start : start + _BLOCK_KEYS], column)
        except OSError as error:
            raise RunError(f"{self.path}: cannot be read: {error.strerror}") from None
        if zlib.crc32(keys.data) != column.crc32:
            raise RunError(f"{self.path}: damaged: the checksum of the ids of column {table + 1} differs")
        return keys


def _read_entries(file: Any, path: Path, size: int) -> tuple[ColumnIds, ...]:
    start = np.frombuffer(file.read(_START.itemsize).ljust(_START.itemsize, b"\0"), _START)[0]
    if start["magic"] != MAGIC:
        raise RunError(f"{path}: not a file with the ids of prepared data")
    columns = int(start["columns"])
    content = file.read(columns * _ENTRY.itemsize) if columns <= _MAX_COLUMNS else b""
    if len(content) != columns * _ENTRY.itemsize or zlib.crc32(content) != start["crc32"]:
        raise RunError(f"{path}: damaged: the checksum of its header differs")
    offset = _START.itemsize + len(content)
    found = []
    for entry in np.frombuffer(content, _ENTRY):
        kind, width, first_index, crc32, count, smallest = (int(entry[name]) for name in _ENTRY.names or ())
        if kind >= len(_KINDS) or not 1 <= width <= 8:
            raise RunError(f"{path}: written by a later version of this program")
        found.append(ColumnIds(_KINDS[kind], first_index, count, crc32, smallest, width, offset))
        offset += width * count
    if offset != size:
        raise RunError(f"{path}: damaged: {size} bytes, its header says {offset}")
    return tuple(found)


def _read_keys(file: Any, keys: Keys, column: ColumnIds) -> None:
    """Fill `keys` with the next ones of the file."""
    stored = np.empty((len(keys), column.width), np.uint8)
    read_fully(file, stored.data)  # the checksum of the keys differs if the file is too short
    padded = np.zeros((len(keys), 8), np.uint8)
    padded[:, : column.width] = stored
    np.add(padded.view("<u8")[:, 0], np.uint64(column.smallest), out=keys)


def is_numbering(path: Path) -> bool:
    """Return whether a file begins as X.ids does. OSError if it cannot be read."""
    with open_regular(path) as file:
        return file.read(len(MAGIC)) == MAGIC


class IdsWriter:
    """Writes X.ids to a new file, column by column."""

    def __init__(self, file: BinaryIO, columns: int) -> None:
        self._file = file
        self._entries = np.zeros(columns, _ENTRY)
        self._done = 0
        file.seek(_START.itemsize + self._entries.nbytes)

    def write(self, kind: IdKind, first_index: int, ids: npt.NDArray[np.unsignedinteger[Any]]) -> None:
        """Write the ids of the next column, unsigned, in order of their numbers."""
        smallest, largest = (int(ids.min()), int(ids.max())) if len(ids) else (0, 0)
        width = max(1, -(-(largest - smallest).bit_length() // 8))
        crc32 = 0
        for start in range(0, len(ids), _BLOCK_KEYS):
            keys = ids[start : start + _BLOCK_KEYS].astype("<u8")
            crc32 = zlib.crc32(keys.data, crc32)
            differences = (keys - np.uint64(smallest)).view(np.uint8).reshape(-1, 8)
            self._file.write(np.ascontiguousarray(differences[:, :width]).data)
        self._entries[self._done] = _KINDS.index(kind), width, first_index, crc32, len(ids), smallest
        self._done += 1

    def finish(self) -> None:
        """Write the header. All columns must be written."""
        assert self._done == len(self._entries)
        content = self._entries.tobytes()
        start = np.array((MAGIC, len(self._entries), zlib.crc32(content)), _START)
        self._file.seek(0)
        self._file.write(start.tobytes() + content)
