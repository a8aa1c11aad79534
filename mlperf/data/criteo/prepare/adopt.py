"""Rows another program prepared and keeps in NumPy archives: brought into the binary format, not prepared anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mlperf.data.criteo.prepare.ingest import RowFile
from mlperf.data.criteo.prepare.parse import Rows
from mlperf.data.criteo.prepare.work_folder import WorkFolder, locked
from mlperf.data.criteo.prepared.manifest import FileFacts, Manifest, read_counts
from mlperf.data.criteo.prepared.npz import Archive
from mlperf.data.criteo.prepared.paths import SPLITS, DatasetPaths
from mlperf.data.schema import FIRST_ID, KAGGLE_DAYS, ROW_BYTES, TABLES, TERABYTE_DAYS
from mlperf.util.errors import RunError


def find_archives(place: DatasetPaths, raw_data_file: Path | None) -> list[Path]:
    """Return X.npz, or day_0_reordered.npz ... of the raw data's prefix; nothing if there is neither."""
    if place.beside(".npz").is_file():
        return [place.beside(".npz")]
    if raw_data_file is None:
        return []
    days = [raw_data_file.with_name(f"{raw_data_file.name}_{day}_reordered.npz") for day in range(TERABYTE_DAYS)]
    if not days[0].is_file():
        return []
    for day in days:
        if not day.is_file():
            raise RunError(f"{day}: no such file, though {days[0].name} is there; all {TERABYTE_DAYS} are needed")
    return days


def adopt(place: DatasetPaths, archives: Sequence[Path], raw_data_file: Path | None) -> Manifest:
    """Write the binary files and a manifest from archives of other programs; RunError if they cannot be used.

    One archive is cut into seven days as Kaggle's text is; otherwise each is a day. The last day is split between
    test and val, and the rows keep their order.
    """
    opened = [Archive.open(path) for path in archives]
    counts = _counts(opened, raw_data_file)
    days = [archive.rows for archive in opened]
    if len(opened) == 1:
        share, longer = divmod(opened[0].rows, KAGGLE_DAYS)
        days = [share + (day < longer) for day in range(KAGGLE_DAYS)]
    if min(days) == 0:
        raise RunError(f"{archives[0]}: a day without rows; {len(days)} days are needed")
    test = (days[-1] + 1) // 2
    rows = {"train": sum(days[:-1]), "test": test, "val": days[-1] - test}
    work = WorkFolder(place)
    with locked(place):
        work.clear()
        try:
            blocks = _checked(opened, counts)
            checksums = _write(work, blocks, rows)
            work.sync()
            files = {
                split: FileFacts(
                    place.split(split).name,
                    rows[split] * ROW_BYTES,
                    work.part(split).stat().st_mtime_ns,
                    checksums[split],
                )
                for split in SPLITS
            }
            flags = {"adopted": "kaggle" if len(archives) == 1 else "terabyte"}
            facts = [FileFacts.of(path) for path in archives]
            manifest = Manifest(flags=flags, inputs=facts, rows_per_day=days, counts=list(counts), files=files)
            manifest.write(place.manifest, work.path)
            for split in SPLITS:
                work.publish(work.part(split), place.split(split))
        finally:
            work.remove()
    return manifest


def _counts(archives: Sequence[Archive], raw_data_file: Path | None) -> tuple[int, ...]:
    counts = archives[0].counts if len(archives) == 1 else None
    if counts is None:
        folder, name = archives[0].path.parent, "day" if raw_data_file is None else raw_data_file.name
        return read_counts(folder / f"{name.removesuffix('.txt')}_fea_count.npz")
    if len(counts) != TABLES or min(counts) < 1:
        raise RunError(f"{archives[0].path}: expected {TABLES} counts of at least 1, found {list(counts)}")
    return counts


def _checked(archives: Sequence[Archive], counts: Sequence[int]) -> Iterator[Rows]:
    limits = np.array(counts)
    for archive in archives:
        done = 0
        for rows in archive.blocks():
            beyond = rows[:, FIRST_ID:] >= limits
            if beyond.any():
                row, table = np.argwhere(beyond)[0]
                raise RunError(
                    f"{archive.path}: row {done + row + 1}: index {rows[row, FIRST_ID + table]} is not in table "
                    f"{table}, which has {limits[table]} rows"
                )
            yield rows
            done += len(rows)


def _write(work: WorkFolder, blocks: Iterator[Rows], rows: dict[str, int]) -> dict[str, int]:
    checksums = {}
    rest: Rows | None = None
    for split in SPLITS:
        file, left = RowFile(work.part(split)), rows[split]
        try:
            while left:
                block = next(blocks) if rest is None or not len(rest) else rest
                part, rest = block[:left], block[left:]
                file.add(np.ascontiguousarray(part))
                left -= len(part)
        finally:
            file.close()
        checksums[split] = file.checksum
    return checksums
