"""Looking through prepared files: rows, labels, index ranges and checksums, in one pass at disk speed."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt

from mlperf.benchmarks import DLRM
from mlperf.data.criteo.prepare.parse import Rows
from mlperf.data.criteo.prepared.dataset import PreparedData
from mlperf.data.criteo.prepared.manifest import Manifest
from mlperf.data.criteo.prepared.paths import DatasetPaths
from mlperf.data.schema import COLUMNS, FIRST_ID, ROW_BYTES, TABLES
from mlperf.util.crc32 import combine, file_crc32
from mlperf.util.files import read_fully_at
from mlperf.util.parallel import Stages, cores, work_in_order
from mlperf.util.progress import Progress

_CHUNK_ROWS = 1 << 16

_FULL_DATA_ROWS = 10**9  # with so many training rows it is meant to be the whole


@dataclass
class SplitFacts:
    """What one file holds. least, most: of each column. crc32: of all its bytes."""

    path: Path
    size: int
    rows: int
    clicks: int = 0
    least: npt.NDArray[np.int64] = field(default_factory=lambda: np.full(COLUMNS, 2**31, np.int64))
    most: npt.NDArray[np.int64] = field(default_factory=lambda: np.full(COLUMNS, -(2**31), np.int64))
    bad_labels: int = 0
    crc32: int = 0


def scan(path: Path) -> SplitFacts:
    """Read a binary file through, with all cores. Bytes behind the last whole row are in the checksum only."""
    size = path.stat().st_size
    facts = SplitFacts(path, size, size // ROW_BYTES)
    progress = Progress(f"verifying {path.name}", size)
    descriptor = os.open(path, os.O_RDONLY)

    def make_worker(gate: Stages) -> Callable[[int, int], None]:
        buffer = np.empty((_CHUNK_ROWS, COLUMNS), np.int32)

        def look(number: int, offset: int) -> None:
            count = read_fully_at(descriptor, buffer.data, offset)
            checksum = zlib.crc32(buffer.data.cast("B")[:count])
            rows = buffer[: count // ROW_BYTES]
            least, most = np.full(COLUMNS, 2**31, np.int64), np.full(COLUMNS, -(2**31), np.int64)
            clicks, bad_labels = _look(rows, least, most)
            with gate.turn(0, number):
                facts.crc32 = combine(facts.crc32, checksum, count)
                facts.clicks += clicks
                facts.bad_labels += bad_labels
                np.minimum(facts.least, least, out=facts.least)
                np.maximum(facts.most, most, out=facts.most)
                progress.add(count, len(rows))

        return look

    try:
        offsets: Iterator[int] = iter(range(0, size, _CHUNK_ROWS * ROW_BYTES))
        work_in_order(offsets, make_worker, threads=cores(), stages=1)
    finally:
        os.close(descriptor)
        progress.close()
    return facts


@numba.njit(nogil=True, cache=True)
def _look(rows: Rows, least: npt.NDArray[np.int64], most: npt.NDArray[np.int64]) -> tuple[int, int]:
    clicks = bad_labels = 0
    for row in range(len(rows)):
        label = rows[row, 0]
        clicks += label == 1
        bad_labels += label not in (0, 1)
        for column in range(COLUMNS):
            value = rows[row, column]
            least[column] = min(least[column], value)
            most[column] = max(most[column], value)
    return clicks, bad_labels


def problems(facts: SplitFacts, counts: tuple[int, ...], manifest: Manifest | None, split: str) -> list[str]:
    """Return what is wrong with a file, a line each."""
    found = []
    if facts.size % ROW_BYTES:
        found.append(f"{facts.size} bytes, which is not a multiple of {ROW_BYTES}")
    if facts.bad_labels:
        found.append(f"{facts.bad_labels} labels are neither 0 nor 1")
    if facts.rows and facts.least[1:FIRST_ID].min() < 0:
        found.append("negative integers, which a prepared file has as 0")
    for table in range(TABLES if facts.rows else 0):
        low, high = facts.least[FIRST_ID + table], facts.most[FIRST_ID + table]
        if low < 0 or high >= counts[table]:
            found.append(f"indices of table {table} are {low} to {high}; allowed is 0 to {counts[table] - 1}")
    if manifest is not None:
        wanted = manifest.files[split]
        if facts.size != wanted.size:
            found.append(f"{facts.size} bytes, the manifest says {wanted.size}")
        elif facts.crc32 != wanted.crc32:
            found.append(f"checksum {facts.crc32:08x}, the manifest says {wanted.crc32:08x}")
    return found


def manifest_problems(place: DatasetPaths, manifest: Manifest, used: Sequence[int]) -> list[str]:
    """Return what does not fit in the manifest itself. used: largest index + 1 of each table, over all files."""
    rows = sum(manifest.rows(split) for split in manifest.files)
    found = []
    if rows != sum(manifest.rows_per_day):
        found.append(f"{place.manifest}: {sum(manifest.rows_per_day)} rows in all days, {rows} in the files")
    archive = manifest.archive
    if archive is not None and not place.archive.is_file():
        found.append(f"{place.archive}: no such file, though the manifest names it")
    elif archive is not None and file_crc32(place.archive) != archive.crc32:
        found.append(f"{place.archive}: not the archive that the manifest describes (checksum differs)")
    for table, count in enumerate(manifest.counts):
        if used[table] != count and not manifest.adopted:  # others may have counted more rows than they kept
            found.append(f"{place.manifest}: table {table} has {count} rows, the files use {used[table]}")
    return found


def is_full_data(prepared: PreparedData) -> bool:
    """Say whether this is meant to be the whole Terabyte data, with every row of it."""
    return prepared.train_rows > _FULL_DATA_ROWS and not prepared.sub_sample_rate


def compare_with_published(prepared: PreparedData) -> list[tuple[str, bool]]:
    """Return the published figures of the whole Terabyte data and whether each is met."""
    published = DLRM.data
    last_day = prepared.test_rows + prepared.val_rows
    published_last_day = published.eval_samples + published.held_out_samples
    lines = [
        (f"training rows {published.train_samples:,}", prepared.train_rows == published.train_samples),
        (f"rows in day 23 {published_last_day:,}", last_day == published_last_day),
        (f"test rows {published.eval_samples:,}", prepared.test_rows == published.eval_samples),
    ]
    if prepared.max_ind_range in (None, published.index_limit):
        sizes = "-".join(str(count) for count in published.table_rows)
        lines.append((f"rows per table {sizes}", prepared.counts == published.table_rows))
    return lines
