"""Verify prepared files in one pass at disk speed: rows, labels, index ranges and checksums."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt

from mlperf.benchmarks import BENCHMARKS, DLRM, dashed
from mlperf.data.prepared.dataset import PreparedData
from mlperf.data.prepared.id_numbering import IdNumbering
from mlperf.data.prepared.manifest import Manifest
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.data.schema import Rows, RowSchema
from mlperf.data.watched_file import FileStatus, WatchedFile
from mlperf.util.crc32 import combine_crc32, file_crc32, parallel_crc32
from mlperf.util.errors import RunError
from mlperf.util.parallel import Stages, run_in_order
from mlperf.util.progress import Progress
from mlperf.util.threads import available_cores

_log = logging.getLogger(__name__)

IntArray = npt.NDArray[np.int64]

_CHUNK_BYTES = 10 << 20

_FULL_DATA_ROWS = 10**9  # data with more training rows is assumed to be the full Terabyte data
_INT32 = np.iinfo(np.int32)


@dataclass
class SplitFacts:
    """Contents of a binary file.

    size: size of the file in bytes. clicks: rows with label 1. bad_labels: rows whose label is neither 0 nor 1.
    infinite: number of infinite dense features, if they are stored as floats.
    column_min, column_max: range of each column, taken as integers, int64 [columns]. crc32: CRC-32 of all bytes.
    """

    path: Path
    size: int
    schema: RowSchema
    clicks: int = 0
    bad_labels: int = 0
    infinite: int = 0
    column_min: IntArray = field(init=False)
    column_max: IntArray = field(init=False)
    crc32: int = 0

    def __post_init__(self) -> None:
        self.column_min = np.full(self.schema.columns, _INT32.max, np.int64)
        self.column_max = np.full(self.schema.columns, _INT32.min, np.int64)

    @property
    def rows(self) -> int:
        """Number of whole rows."""
        return self.size // self.schema.row_bytes

    @property
    def smallest_integer(self) -> int:
        """The smallest dense feature; 0 if there is none."""
        return int(self.column_min[self.schema.dense_columns].min(initial=0))

    def id_range(self, table: int) -> tuple[int, int]:
        """Return the smallest and the largest index of a table."""
        first = self.schema.first_ids[table]
        columns = slice(first, first + self.schema.ids_per_table[table])
        return int(self.column_min[columns].min()), int(self.column_max[columns].max())


def scan(file: WatchedFile, schema: RowSchema, *, stores_floats: bool) -> SplitFacts:
    """Read a binary file with all cores. Bytes after the last whole row only enter the checksum.

    stores_floats: whether the dense features are float32 values. RunError if the file changes meanwhile.
    """
    path, size = file.path, file.size
    facts = SplitFacts(path, size, schema)
    progress = Progress(f"verifying {path.name}", size)
    chunk_rows = max(1, _CHUNK_BYTES // schema.row_bytes)

    def make_worker(stages: Stages) -> Callable[[int, int], None]:
        buffer = np.empty((chunk_rows, schema.columns), np.int32)

        def scan_chunk(number: int, offset: int) -> None:
            count = file.read_at(buffer.data, offset)
            checksum = zlib.crc32(buffer.data.cast("B")[:count])
            rows = buffer[: count // schema.row_bytes]
            column_min, column_max = (np.full(schema.columns, each, np.int32) for each in (_INT32.max, _INT32.min))
            clicks, bad_labels = _scan_rows(rows, column_min, column_max)
            infinite = 0
            if stores_floats:
                infinite = int(np.isinf(rows[:, schema.dense_columns].view(np.float32)).sum())
            with stages.turn(0, number):
                facts.crc32 = combine_crc32(facts.crc32, checksum, count)
                facts.clicks += clicks
                facts.bad_labels += bad_labels
                facts.infinite += infinite
                np.minimum(facts.column_min, column_min, out=facts.column_min)
                np.maximum(facts.column_max, column_max, out=facts.column_max)
                progress.add(count, len(rows))

        return scan_chunk

    try:
        offsets: Iterator[int] = iter(range(0, size, chunk_rows * schema.row_bytes))
        run_in_order(offsets, make_worker, threads=available_cores(), stages=1)
    finally:
        progress.close()
    return facts


@numba.njit(nogil=True, cache=True)
def _scan_rows(
    rows: Rows, column_min: npt.NDArray[np.int32], column_max: npt.NDArray[np.int32]
) -> tuple[int, int]:
    """Update the range of each column; return the number of labels that are 1 and that are neither 0 nor 1."""
    clicks = bad_labels = 0
    for row in range(len(rows)):
        label = rows[row, 0]
        clicks += label == 1
        bad_labels += (label < 0) | (label > 1)
        for column in range(rows.shape[1]):
            value = rows[row, column]
            column_min[column] = min(column_min[column], value)
            column_max[column] = max(column_max[column], value)
    return clicks, bad_labels


def verify_checksums(prepared: PreparedData, splits: Sequence[str], *, drop_cache: bool = False) -> None:
    """Compare all bytes of some splits with the checksums of the manifest. RunError at the first difference.

    drop_cache: remove the files from the page cache again, so that a run begins without them there.
    """
    files = list(_files(prepared, splits))
    for path, status, expected in files:
        file = WatchedFile(path, status)
        progress = Progress(f"verifying {file.path.name}", file.size)

        def report(offset: int, count: int, file: WatchedFile = file, progress: Progress = progress) -> None:
            progress.add(count, count // prepared.schema.row_bytes)
            if drop_cache:
                os.posix_fadvise(file.descriptor, offset, count, os.POSIX_FADV_DONTNEED)

        try:
            checksum = parallel_crc32(file.path, file.read_at, 0, file.size, report)
        finally:
            progress.close(finished=False)  # the line below says more
        if drop_cache:
            os.posix_fadvise(file.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # with what was read ahead
        if checksum != expected:
            raise RunError(
                f"{file.path}: damaged: its checksum is {checksum:08x}, its manifest says {expected:08x}; "
                "remove it and prepare the data again"
            )
        if prepared.reference is None:
            _log.info("%s: matches the checksum in its manifest", file.path)
    if prepared.reference is not None:  # up to 72 files
        _log.info("%s: %d files match the checksums in their manifest", prepared.train, len(files))


def _files(prepared: PreparedData, splits: Sequence[str]) -> Iterator[tuple[Path, FileStatus | None, int]]:
    """Yield the path, the status and the checksum of each file of some splits."""
    reference = prepared.reference
    if reference is None:
        for split in splits:
            yield prepared.split(split), prepared.statuses.get(split), prepared.checksums[split]
        return
    for path in dict.fromkeys(path for split in splits for path in reference.paths(split)):
        yield path, reference.statuses[path.name], prepared.checksums[path.name]


def file_problems(facts: SplitFacts, prepared: PreparedData, manifest: Manifest | None, split: str) -> list[str]:
    """Return the problems of a binary file, one line each."""
    problems = []
    schema, smallest = facts.schema, facts.smallest_integer
    if facts.size % schema.row_bytes:
        problems.append(f"{facts.size} bytes, which is not a multiple of {schema.row_bytes}")
    if facts.bad_labels:
        problems.append(f"{facts.bad_labels} labels are neither 0 nor 1")
    if prepared.columns.stores_floats:
        if facts.infinite:
            problems.append(f"{facts.infinite} dense features are infinite")
    elif facts.rows and prepared.smallest_integer is None and smallest < 0:
        problems.append("negative dense features; prepared files store 0")
    elif facts.rows and prepared.smallest_integer is not None and smallest < prepared.smallest_integer:
        problems.append(f"the dense feature {smallest}; the manifest says at least {prepared.smallest_integer}")
    for table in range(schema.tables if facts.rows else 0):
        low, high = facts.id_range(table)
        first, last = prepared.lowest_index, prepared.first_index + prepared.counts[table] - 1
        if low < first or high > last:
            problems.append(f"indices of table {table} are {low} to {high}; allowed is {first} to {last}")
    if manifest is not None:
        expected = manifest.files[split]
        if facts.size != expected.size:
            problems.append(f"{facts.size} bytes, the manifest says {expected.size}")
        elif facts.crc32 != expected.crc32:
            problems.append(f"checksum {facts.crc32:08x}, the manifest says {expected.crc32:08x}")
    return problems


def manifest_problems(
    paths: DatasetPaths, manifest: Manifest, prepared: PreparedData, scanned: Sequence[SplitFacts]
) -> list[str]:
    """Return the problems of the manifest, one line each. scanned: contents of all files with rows."""
    rows_used = used_rows(scanned)
    problems = []
    archive = manifest.archive
    if archive is not None and not paths.archive.is_file():
        problems.append(f"{paths.archive}: no such file, but the manifest lists it")
    elif archive is not None and file_crc32(paths.archive) != archive.crc32:
        problems.append(f"{paths.archive}: does not match the manifest (checksum differs)")
    for table, count in enumerate(manifest.counts):
        # Other tools may have counted ids of rows that they then dropped. An earlier numbering has further ids.
        used = rows_used[table] - prepared.first_index
        fits = used == count or (used < count and prepared.ids_from is not None)
        if not fits and not manifest.adopted:
            problems.append(f"{paths.manifest}: table {table} has {count} rows, the files use {used}")
    smallest = min(facts.smallest_integer for facts in scanned)
    if manifest.smallest_integer is not None and smallest > manifest.smallest_integer:
        problems.append(
            f"{paths.manifest}: the smallest dense feature is {manifest.smallest_integer}, "
            f"that of the files is {smallest}"
        )
    return problems + _ids_problems(paths, manifest)


def _ids_problems(paths: DatasetPaths, manifest: Manifest) -> list[str]:
    """Return the problems of X.ids, one line each. Data of earlier versions and of other tools has none."""
    if manifest.ids is None or manifest.numbering is None:
        return []
    if not paths.ids.is_file():
        return [f"{paths.ids}: no such file, but the manifest lists it"]
    if file_crc32(paths.ids) != manifest.ids.crc32:
        return [f"{paths.ids}: does not match the manifest (checksum differs)"]
    try:
        numbering = IdNumbering.read(paths.ids, manifest.numbering.fingerprint)
        counts = [len(numbering.keys(table)) for table in range(len(numbering.columns))]  # checks their checksums
    except RunError as error:
        return [str(error)]
    if counts != list(manifest.counts):
        return [f"{paths.ids}: has {dashed(counts)} ids, the manifest says {dashed(manifest.counts)}"]
    return []


def used_rows(scanned: Sequence[SplitFacts]) -> list[int]:
    """Return the largest index + 1 of each table, over all files."""
    tables = scanned[0].schema.tables
    return [1 + max(facts.id_range(table)[1] for facts in scanned) for table in range(tables)]


def is_full_data(prepared: PreparedData) -> bool:
    """Return whether the data seems to be the full Terabyte data, with no rows dropped."""
    return prepared.train_rows > _FULL_DATA_ROWS and not prepared.sub_sample_rate


def compare_with_published(prepared: PreparedData) -> list[tuple[str, bool]]:
    """Return each published number of the full Terabyte data and whether it matches."""
    with_data = (each.data for each in BENCHMARKS.values() if each.data.traits == prepared.traits)
    published = next(with_data, DLRM.data)  # data of other tools is that of DLRM
    last_day = prepared.test_rows + prepared.val_rows
    published_last_day = published.eval_samples + published.held_out_samples
    lines = [
        (f"training rows {published.train_samples:,}", prepared.train_rows == published.train_samples),
        (f"rows in day 23 {published_last_day:,}", last_day == published_last_day),
        (f"test rows {published.eval_samples:,}", prepared.test_rows == published.eval_samples),
    ]
    limits_rows = published.traits.limits_rows
    limit = -1 if limits_rows else published.index_limit
    if prepared.counts and prepared.max_ind_range in (None, limit):
        counts = prepared.counts
        if limits_rows:
            counts = tuple(min(count, published.index_limit or count) for count in counts)
        lines.append((f"rows per table {dashed(published.table_rows)}", counts == published.table_rows))
    return lines
