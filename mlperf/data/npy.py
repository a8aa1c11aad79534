"""Arrays of numbers in .npy files and in uncompressed .npz archives, read in place."""

from __future__ import annotations

import io
import math
import struct
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from mlperf.data.watched_file import FileStatus, WatchedFile
from mlperf.util.crc32 import parallel_crc32
from mlperf.util.errors import RunError
from mlperf.util.failures import damage
from mlperf.util.printable import shown_name

# Readers of the header of an array by format version. Version 3 differs from 2 only in the names of fields of
# structured arrays.
_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,
}
_MAX_HEADER_BYTES = 1 << 14
# In front of each member of a zip archive: a signature, 22 bytes of facts, the lengths of the name and of the
# extra fields (PKWARE's APPNOTE 4.3.7).
_LOCAL_HEADER = struct.Struct("<4s22xHH")
LOCAL_HEADER_BYTES = _LOCAL_HEADER.size


@dataclass(frozen=True)
class Header:
    """What the header of an array says. by_column: whether the array is in Fortran order."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    by_column: bool

    @property
    def nbytes(self) -> int:
        """Size of the values in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes], name: str) -> Header:
    """Read the header of the array `name`, from the beginning of `file`. ValueError unless it has numbers."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADER_READERS:
        raise ValueError(f"{name} has the unknown format version {version[0]}.{version[1]}")
    length = file.read(2 if version == (1, 0) else 4)
    size = int.from_bytes(length, "little")
    if size > _MAX_HEADER_BYTES:  # a compressed one can be short in the file and larger than the memory
        raise ValueError(f"{name} has a header of {size:,} bytes; expected at most {_MAX_HEADER_BYTES:,}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the syntax of a damaged header, which is an error anyway
        shape, by_column, dtype = _HEADER_READERS[version](io.BytesIO(length + file.read(size)))
    if dtype.kind not in "iufb":
        raise ValueError(f"{name} is an array of {dtype}; expected numbers")
    if not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(f"{name} has the impossible shape {shape}")
    return Header(shape, dtype, bool(by_column) and len(shape) > 1)


def write_header(file: IO[bytes], dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
    """Write the header of an array in C order, as numpy.save does."""
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def require_size(header: Header, size: int, name: str) -> None:
    """Raise ValueError unless the array `name` has `size` bytes after its header."""
    if header.nbytes != size:
        raise ValueError(f"{name} has {size} bytes, its shape {header.shape} says {header.nbytes}")


@dataclass(frozen=True)
class StoredArray:
    """An array of numbers in a file, by row and little-endian.

    name: path and, in an archive, name of the array, for messages. offset: of the first value, in bytes.
    member: what an archive states of the array.
    """

    file: WatchedFile
    name: str
    header: Header
    offset: int
    member: zipfile.ZipInfo | None = None

    @property
    def rows(self) -> int:
        """Length of the first axis."""
        return self.header.shape[0]

    @property
    def row_bytes(self) -> int:
        """Size of a row."""
        return math.prod(self.header.shape[1:]) * self.header.dtype.itemsize

    def require(self, allowed: Sequence[str], shape: tuple[int | None, ...]) -> None:
        """Raise RunError unless the array has one of the dtypes `allowed` and this shape; None: any length."""
        found, dtype = self.header.shape, self.header.dtype
        expected = ", ".join("N" if length is None else str(length) for length in shape)
        expected += "," if len(shape) == 1 else ""
        fits = len(found) == len(shape) and all(b in (None, a) for a, b in zip(found, shape, strict=True))
        if dtype not in [np.dtype(each).newbyteorder("<") for each in allowed] or not fits:
            raise RunError(
                f"{self.name}: is an array of {_shown(dtype)} with shape {found}; expected {' or '.join(allowed)} "
                f"and shape ({expected})"
            )
        if self.header.by_column:
            raise RunError(f"{self.name}: is in Fortran order; expected C order, row by row")

    def read(self, values: npt.NDArray[Any], first_row: int) -> None:
        """Fill a contiguous array with rows from `first_row` on. RunError if the file is too short or changed."""
        count = self.file.read_at(values.data, self.offset + first_row * self.row_bytes)
        if count < values.nbytes:
            raise RunError(f"{self.name}: ends before row {first_row + len(values)} of {self.rows}")


def _shown(dtype: np.dtype[Any]) -> str:
    return str(dtype) if dtype.isnative else f"big-endian {dtype.newbyteorder('<')}"


def open_array(path: Path, expected: FileStatus | None = None) -> StoredArray:
    """Open a .npy file and read its header. RunError if it is damaged, or has changed since it was `expected`."""
    file = WatchedFile(path, expected)
    with damage(path, "cannot read an array"):
        header, offset = _header_at(file, 0, path.name)
        require_size(header, file.size - offset, "the array")
    file.check()
    return StoredArray(file, str(path), header, offset)


def open_archive(path: Path, expected: FileStatus | None = None) -> dict[str, StoredArray]:
    """Open an uncompressed .npz file and read the headers of its arrays, by the names of the members.

    RunError if it is damaged or compressed, or has changed since it was `expected`.
    """
    file = WatchedFile(path, expected)
    arrays: dict[str, StoredArray] = {}
    with (
        damage(path, "cannot read an archive of arrays"),
        open(file.descriptor, "rb", closefd=False) as stream,
        zipfile.ZipFile(stream) as archive,
    ):
        for info in archive.infolist():
            if info.filename in arrays:
                raise ValueError(f"{shown_name(info.filename)} appears several times")
            arrays[info.filename] = _member(file, info)
    file.check()
    return arrays


def find_damage(path: Path, expected: FileStatus | None = None) -> str | None:
    """Compare all bytes of an uncompressed .npz file with the checksums in it. Return the first difference.

    RunError as from `open_archive`.
    """
    for name, array in open_archive(path, expected).items():
        member, stop = array.member, array.offset + array.header.nbytes
        assert member is not None
        found = parallel_crc32(path, array.file.read_at, stop - member.file_size, stop)
        if found != member.CRC:
            return f"the checksum of {shown_name(name)} is {found:08x}, its directory says {member.CRC:08x}"
    return None


def _member(file: WatchedFile, info: zipfile.ZipInfo) -> StoredArray:
    """Return an array of an archive. ValueError if it is compressed, encrypted or incomplete."""
    name = shown_name(info.filename)
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise ValueError(f"{name} is compressed or encrypted; it can only be read in place if it is not")
    local = bytearray(_LOCAL_HEADER.size)
    file.read_at(memoryview(local), info.header_offset)
    signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(local)
    start = info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    if signature != b"PK\x03\x04" or start + info.file_size > file.size or info.file_size != info.compress_size:
        raise ValueError(f"{name} is not where the directory of the archive says")
    header, offset = _header_at(file, start, name)
    require_size(header, start + info.file_size - offset, name)
    return StoredArray(file, f"{file.path}: {name}", header, offset, info)


def _header_at(file: WatchedFile, start: int, name: str) -> tuple[Header, int]:
    """Return the header that begins at byte `start`, and the position of the first value."""
    content = bytearray(_MAX_HEADER_BYTES)
    count = file.read_at(memoryview(content), start)
    stream = io.BytesIO(content[:count])
    header = read_header(stream, name)
    return header, start + stream.tell()
