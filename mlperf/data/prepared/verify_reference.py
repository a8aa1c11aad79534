"""Verify the files of the DLRM-DCNv2 reference: what they contain, and the published checksums (MD5)."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlperf.benchmarks import DLRM_DCNV2, dashed
from mlperf.data.day_files import DayPart
from mlperf.data.npy import StoredArray, find_damage
from mlperf.data.prepared.reference_files import ReferenceFiles
from mlperf.data.schema import CRITEO
from mlperf.data.watched_file import WatchedFile
from mlperf.util.crc32 import file_crc32
from mlperf.util.errors import RunError
from mlperf.util.files import read_regular
from mlperf.util.parallel import Stages, run_in_order
from mlperf.util.printable import shown
from mlperf.util.progress import Progress
from mlperf.util.threads import Threads, available_cores, raise_if_set

IntArray = npt.NDArray[np.int64]

_CHUNK_ROWS = 1 << 14
_CHUNK_BYTES = 1 << 22
_MAX_LIST_BYTES = 1 << 20
_CHECKSUM_LINE = re.compile(r"([0-9a-fA-F]{32}) [ *](.+)")
_MAX_ID = np.iinfo(np.int32).max


@dataclass
class ReferenceFacts:
    """Contents of a split.

    clicks: rows with label 1. id_min, id_max: range of the ids of each table, int64 [T].
    invalid: number of invalid values and place of the first one, by array.
    """

    rows: int = 0
    clicks: int = 0
    id_min: IntArray = field(default_factory=lambda: np.full(CRITEO.tables, np.iinfo(np.int64).max))
    id_max: IntArray = field(default_factory=lambda: np.full(CRITEO.tables, np.iinfo(np.int64).min))
    invalid: dict[str, tuple[int, str]] = field(default_factory=dict)

    def note(
        self,
        array: StoredArray,
        start: int,
        values: npt.NDArray[Any],
        is_invalid: npt.NDArray[np.bool_],
        what: str,
    ) -> None:
        """Count invalid values of an array, which begin with row `start`; `what` says what is wrong with one."""
        if is_invalid.any():
            row, column = np.argwhere(is_invalid)[0]
            place = f"row {start + row + 1}, column {column + 1}: {what.format(values[row, column])}"
            self.invalid[array.name] = int(np.count_nonzero(is_invalid)), place

    def add(self, others: ReferenceFacts) -> None:
        """Add the contents of the rows that follow."""
        self.rows += others.rows
        self.clicks += others.clicks
        np.minimum(self.id_min, others.id_min, out=self.id_min)
        np.maximum(self.id_max, others.id_max, out=self.id_max)
        for name, (count, place) in others.invalid.items():
            before, first = self.invalid.get(name, (0, place))
            self.invalid[name] = before + count, first

    def problems(self) -> list[str]:
        """Return a line for each array with invalid values."""
        return [
            f"{name}: {first}" + (f", and {count - 1:,} more" if count > 1 else "")
            for name, (count, first) in self.invalid.items()
        ]


def scan_reference(files: ReferenceFiles, split: str) -> ReferenceFacts:
    """Read a split with all cores. RunError if a file changes meanwhile."""
    rows = files.open(split)
    facts = ReferenceFacts()
    row_bytes = sum(array.row_bytes for array in rows.parts[0].arrays) if rows.parts else 0
    progress = Progress(f"verifying {split}", rows.rows * row_bytes)
    chunks: Iterator[tuple[DayPart, int, int]] = (
        (part, start, min(_CHUNK_ROWS, part.first + part.rows - start))
        for part in rows.parts
        for start in range(part.first, part.first + part.rows, _CHUNK_ROWS)
    )

    def make_worker(stages: Stages) -> Callable[[int, tuple[DayPart, int, int]], None]:
        def scan_chunk(number: int, chunk: tuple[DayPart, int, int]) -> None:
            of_chunk = _scan_chunk(*chunk)
            with stages.turn(0, number):
                facts.add(of_chunk)
                progress.add(of_chunk.rows * row_bytes, of_chunk.rows)

        return scan_chunk

    try:
        run_in_order(chunks, make_worker, threads=available_cores(), stages=1)
    finally:
        progress.close()
    return facts


def _scan_chunk(part: DayPart, start: int, count: int) -> ReferenceFacts:
    """Return the contents of `count` rows of a part, from row `start` of its arrays on."""
    facts = ReferenceFacts(count)
    labels = _values(part.labels, start, count)
    facts.clicks = int(np.count_nonzero(labels == 1))
    facts.note(part.labels, start, labels, (labels != 0) & (labels != 1), "label {} is not 0 or 1")
    dense = _values(part.dense, start, count)
    facts.note(part.dense, start, dense, ~np.isfinite(dense), "{} is not a finite number")
    if part.sparse is not None:
        ids = _values(part.sparse, start, count)
        facts.id_min, facts.id_max = ids.min(axis=0).astype(np.int64), ids.max(axis=0).astype(np.int64)
        facts.note(part.sparse, start, ids, (ids < 0) | (ids > _MAX_ID), f"id {{}} is not from 0 to {_MAX_ID}")
    for table, array in enumerate(part.ids):
        ids = _values(array, start, count)
        facts.id_min[table], facts.id_max[table] = ids.min(), ids.max()
        facts.note(array, start, ids, ids < 0, "id {} is negative")
    return facts


def _values(array: StoredArray, start: int, count: int) -> npt.NDArray[Any]:
    values = np.empty((count, array.header.shape[1]), array.header.dtype)
    array.read(values, start)
    return values


def compare_ids_with_published(files: ReferenceFiles, facts: Sequence[ReferenceFacts]) -> list[tuple[str, bool]]:
    """Return each published number of the full data with several ids per table, and whether it matches."""
    published = DLRM_DCNV2.data
    if files.ids_per_table is None:
        return []
    largest = np.max([each.id_max for each in facts], axis=0)
    sizes, rows = dashed(published.ids_per_table or ()), dashed(published.table_rows)
    return [
        (f"ids per table {sizes}", files.ids_per_table == published.ids_per_table),
        (f"ids below the rows per table {rows}", bool((largest < np.array(published.table_rows)).all())),
    ]


def damaged_files(files: ReferenceFiles, checksums: Mapping[str, int]) -> list[str]:
    """Compare files with the checksums (CRC-32) in their manifest; return the differences, one line each."""
    paths = [files.prefix.with_name(name) for name in checksums]
    return [
        f"{path}: damaged: its checksum is {found:08x}, its manifest says {checksums[path.name]:08x}"
        for path in paths
        if (found := file_crc32(path)) != checksums[path.name]
    ]


def damaged_archives(files: ReferenceFiles, *, but: Collection[str]) -> list[str]:
    """Compare the archives with the checksums in them; return the differences, one line each.

    but: names of files that are compared with other checksums.
    """
    paths = [files.prefix.with_name(name) for name in files.statuses if name.endswith(".npz") and name not in but]
    found = ((path, find_damage(path, files.statuses[path.name])) for path in paths)
    return [f"{path}: damaged: {difference}" for path, difference in found if difference is not None]


def read_checksums(lists: Iterable[Path]) -> dict[str, str]:
    """Return the MD5 sums in lists, in hexadecimal by file name without a folder.

    A list is as md5sum writes it, and as MLCommons publishes it: a checksum and a name in each line. RunError if
    one cannot be read or contains anything else, or if there are two checksums of a file.
    """
    checksums: dict[str, str] = {}
    for path in lists:
        for number, name, checksum in _checksum_lines(path):
            if checksums.setdefault(name, checksum) != checksum:
                raise RunError(f"{path}: line {number}: another checksum of {shown(name)} than before")
    return checksums


def _checksum_lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield the number of each line with a checksum, the name in it and the checksum."""
    try:
        lines = read_regular(path, _MAX_LIST_BYTES, allow_pipes=True).decode(errors="replace").splitlines()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _CHECKSUM_LINE.fullmatch(line.strip())
        if match is None:
            raise RunError(
                f"{path}: line {number}: {shown(line)} is not an MD5 sum of 32 hexadecimal digits and a file name"
            )
        yield number, Path(match[2]).name, match[1].lower()


def checksum_problems(files: ReferenceFiles, checksums: Mapping[str, str]) -> list[str]:
    """Compare the files that have a checksum in a list with it; return the differences, one line each.

    All cores are used, one for each file: MD5 cannot be computed in parts.
    """
    paths = [files.prefix.with_name(name) for name in files.statuses if name in checksums]
    progress = Progress("comparing checksums", sum(files.statuses[path.name].size for path in paths))
    lock, stopped = threading.Lock(), threading.Event()

    def report(count: int) -> None:
        raise_if_set(stopped)  # after Ctrl-C, a large file is not read to its end
        with lock:
            progress.add(count, 0)

    def compare(path: Path) -> str | None:
        found = _md5(WatchedFile(path, files.statuses[path.name]), report)
        if found == checksums[path.name]:
            return None
        return f"{path}: its MD5 sum is {found}, the list says {checksums[path.name]}"

    with Threads(available_cores(), "md5") as pool:
        try:
            return [problem for problem in pool.map(compare, paths) if problem is not None]
        finally:
            stopped.set()
            progress.close(finished=False)


def _md5(file: WatchedFile, report: Callable[[int], None]) -> str:
    """Return the MD5 sum of a file in hexadecimal. RunError if it changes meanwhile or ends early."""
    checksum = hashlib.md5(usedforsecurity=False)
    buffer = memoryview(bytearray(min(_CHUNK_BYTES, file.size)))
    for offset in range(0, file.size, _CHUNK_BYTES):
        part = buffer[: file.size - offset]
        if file.read_at(part, offset) < len(part):
            raise RunError(f"{file.path}: ends before byte {file.size}")
        checksum.update(part)
        report(len(part))
    return checksum.hexdigest()
