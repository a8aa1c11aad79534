"""The tables of `MultiHotTables` in a file: an uncompressed .npz with arrays 0.npy, 1.npy, ..., int32 [rows, ids].

The values of each array begin at a multiple of 64 bytes, so that the file can be mapped into memory. The tables of
the benchmark DLRM-DCNv2 have 23.9 GB.
"""

from __future__ import annotations

import logging
import mmap
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mlperf.data.multi_hot import Ids, MultiHotShape, MultiHotTables
from mlperf.data.npy import LOCAL_HEADER_BYTES, StoredArray, find_damage, open_archive, write_header
from mlperf.util.errors import RunError
from mlperf.util.failures import damage
from mlperf.util.files import atomic_file
from mlperf.util.progress import Progress

_log = logging.getLogger(__name__)

MAX_IN_MEMORY = 256 << 20  # bytes of tables that are drawn in each run, in about a second
_ALIGNMENT = 64
_ZIP64_FIELD_BYTES = 20  # that zipfile adds in front of a member that may exceed 4 GB
_FIELD_BYTES = 4  # id and length of an extra field
_PADDING_FIELD = 0xD935  # the extra field of a zip archive with which Android's zipalign pads
_COMPARED_ROWS = 64


def multi_hot_tables(shape: MultiHotShape, beside: Path, named: Path | None = None) -> MultiHotTables:
    """Return the tables: from a file, which is created if it is missing, or drawn in memory if they are small.

    beside: prefix of the data; large tables are in a file beside it. named: the file to use instead, in any case.
    RunError if the file is damaged, has other tables or cannot be written.
    """
    if named is None and 4 * shape.ids <= MAX_IN_MEMORY:
        return MultiHotTables.drawn(shape)
    path = beside.with_name(f"{beside.name}{_ending(shape)}") if named is None else named
    # A link is followed when the file is opened; if its target is missing, creating it is refused.
    if not os.path.exists(path):
        _create(path, shape)
    return open_tables(path, shape)


def _ending(shape: MultiHotShape) -> str:
    """Return the end of the name of the file beside the data, another one for other tables."""
    facts = f"{shape.rows_per_table} {shape.sizes}"
    return f"_multi_hot_{shape.distribution}_{zlib.crc32(facts.encode()):08x}.npz"


def _create(path: Path, shape: MultiHotShape) -> None:
    size = 4 * shape.ids
    _log.info("%s: drawing the ids of --multi-hot-sizes, %s GB, once", path, f"{size / 1e9:,.2f}")
    try:
        write_tables(path, shape)
    except OSError as error:  # names a temporary file
        raise RunError(
            f"{path}: the ids of --multi-hot-sizes cannot be written: {error.strerror or error}; "
            "--multi-hot-tables names another file"
        ) from None


def write_tables(path: Path, shape: MultiHotShape) -> None:
    """Draw the tables into a file, in a few megabytes of memory. OSError if it cannot be written."""
    pieces = _with_progress(path, shape)
    with atomic_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        os.posix_fallocate(file.fileno(), 0, 4 * shape.ids)  # fails now if the disk is full
        number, piece = next(pieces)
        for table, (rows, size) in enumerate(zip(shape.rows_per_table, shape.sizes, strict=True)):
            info = zipfile.ZipInfo(f"{table}.npy")
            start = file.tell() + LOCAL_HEADER_BYTES + len(info.filename) + _ZIP64_FIELD_BYTES + _FIELD_BYTES
            padding = -start % _ALIGNMENT
            info.extra = _PADDING_FIELD.to_bytes(2, "little") + padding.to_bytes(2, "little") + bytes(padding)
            with archive.open(info, "w", force_zip64=True) as member:
                write_header(member, "<i4", (rows, size))
                while number == table:
                    member.write(piece.astype("<i4", copy=False).data)
                    number, piece = next(pieces)


def _with_progress(path: Path, shape: MultiHotShape) -> Iterator[tuple[int, Ids]]:
    """Yield the pieces of the tables, and at the end one of no table."""
    progress = Progress(f"drawing {path.name}", 4 * shape.ids)
    try:
        for number, piece in shape.pieces():
            yield number, piece
            progress.add(piece.nbytes, len(piece))
    finally:
        progress.close()
    yield -1, np.empty((0, 0), np.int32)


def open_tables(path: Path, shape: MultiHotShape) -> MultiHotTables:
    """Map the tables of a file into memory. RunError if it is damaged or has other tables."""
    arrays = _arrays(path, shape)
    file = arrays[0].file
    with damage(path, "cannot be mapped into memory"):
        mapped = mmap.mmap(file.descriptor, 0, access=mmap.ACCESS_READ)
        values = np.frombuffer(mapped, "<i4", file.size // 4)
    starts = np.array([array.offset // 4 for array in arrays])
    tables = MultiHotTables(shape, values, starts, file)
    _check_first_rows(tables)
    return tables


def _arrays(path: Path, shape: MultiHotShape) -> list[StoredArray]:
    """Return the arrays of the tables in order. RunError unless there are exactly those of `shape`."""
    found = open_archive(path)
    names = [f"{table}.npy" for table in range(len(shape.sizes))]
    if sorted(found) != sorted(names):
        raise RunError(f"{path}: must have the tables of --multi-hot-sizes, {names[0]} to {names[-1]}")
    arrays = [found[name] for name in names]
    for array, rows, size in zip(arrays, shape.rows_per_table, shape.sizes, strict=True):
        array.require(["int32"], (rows, size))
        if array.offset % 4:
            raise RunError(
                f"{path}: cannot be mapped into memory, because its arrays do not begin at multiples of 4 bytes; "
                "it seems to come from another program; remove it to draw it again"
            )
    return arrays


def _check_first_rows(tables: MultiHotTables) -> None:
    """Raise RunError if the first drawn rows differ, as those of another distribution do."""
    assert tables.file is not None
    for number, piece in tables.shape.pieces():
        if tables.sizes[number] > 1:
            rows = min(_COMPARED_ROWS, len(piece))
            if not np.array_equal(tables.table(number)[:rows], piece[:rows]):
                raise RunError(
                    f"{tables.file.path}: does not have the ids of --multi-hot-distribution="
                    f"{tables.shape.distribution}; remove it to draw them again"
                )
            return


def verify_tables(path: Path) -> None:
    """Compare all bytes of a file with tables with the checksums in it. RunError if they differ."""
    if (difference := find_damage(path)) is not None:
        raise RunError(f"{path}: damaged: {difference}; remove it to draw it again")
