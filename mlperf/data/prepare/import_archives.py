"""Convert NumPy archives that other tools prepared to binary files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mlperf.benchmarks.data_sets import KAGGLE_DAYS
from mlperf.data.criteo.days import SPLITS, divide, split_rows
from mlperf.data.prepare.outputs import require_writable_files
from mlperf.data.prepare.plan import require_disk
from mlperf.data.prepare.publish import split_facts
from mlperf.data.prepare.row_file import RowFile
from mlperf.data.prepare.work_folder import WorkFolder, locked
from mlperf.data.prepared.file_facts import FileFacts
from mlperf.data.prepared.manifest import Manifest
from mlperf.data.prepared.npz import Archive, read_counts
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.data.schema import CRITEO, Rows
from mlperf.util.errors import RunError


def import_archives(paths: DatasetPaths, archive_files: Sequence[Path], raw_data_file: Path | None) -> Manifest:
    """Write the binary files and a manifest from archives. RunError if the archives cannot be used.

    The rows keep their order. A single archive is divided into days like the Kaggle text; with several archives,
    each one is a day. The last day is divided between test and val.
    """
    archives = [Archive.open(path) for path in archive_files]
    counts = _counts(archives, raw_data_file)
    rows_per_day = [archive.rows for archive in archives]
    if len(archives) == 1:
        rows_per_day = divide(archives[0].rows, KAGGLE_DAYS)
    if min(rows_per_day) == 0:
        raise RunError(
            f"{archive_files[0]}: contains a day without rows; each of the {len(rows_per_day)} days needs rows"
        )
    rows = split_rows(rows_per_day)
    require_writable_files(paths, archive=False)
    paths.prefix.parent.mkdir(parents=True, exist_ok=True)
    # An archive may be compressed a thousandfold.
    require_disk(paths.prefix.parent, sum(rows_per_day) * CRITEO.row_bytes, "for the rows of the archives")
    work = WorkFolder(paths)
    with locked(paths):
        work.clear()
        try:
            sizes = {split: count * CRITEO.row_bytes for split, count in rows.items()}
            checksums = _write(work, _checked_blocks(archives, counts), rows)
            work.sync()
            manifest = Manifest(
                flags={"adopted": "kaggle" if len(archives) == 1 else "terabyte"},
                inputs=[_facts(archive) for archive in archives],
                rows_per_day=rows_per_day,
                counts=list(counts),
                files=split_facts(work, paths, sizes, checksums),
            )
            manifest.write(paths.manifest, work.path)
            for split in SPLITS:
                work.publish(work.part(split), paths.split(split))
        finally:
            work.remove()
    return manifest


def _facts(archive: Archive) -> FileFacts:
    return FileFacts(archive.path.name, archive.status.size, archive.status.modified_ns)


def _counts(archives: Sequence[Archive], raw_data_file: Path | None) -> tuple[int, ...]:
    """Return the rows of each table, from the only archive or from `*_fea_count.npz` beside the archives."""
    archive = archives[0]
    if len(archives) == 1 and archive.counts is not None:
        return archive.counts
    name = "day" if raw_data_file is None else raw_data_file.name
    return read_counts(archive.path.with_name(f"{name.removesuffix('.txt')}_fea_count.npz"))


def _checked_blocks(archives: Sequence[Archive], counts: Sequence[int]) -> Iterator[Rows]:
    """Yield the rows of all archives. RunError for an index that is not in its table."""
    limits = np.array(counts)
    for archive in archives:
        done = 0
        for rows in archive.blocks():
            out_of_range = rows[:, CRITEO.id_columns] >= limits
            if out_of_range.any():
                row, table = np.argwhere(out_of_range)[0]
                raise RunError(
                    f"{archive.path}: row {done + row + 1}: index {rows[row, CRITEO.first_id + table]} is not in "
                    f"table {table}, which has {limits[table]} rows"
                )
            yield rows
            done += len(rows)


def _write(work: WorkFolder, blocks: Iterator[Rows], rows: dict[str, int]) -> dict[str, int]:
    """Divide the rows among the splits, in the order of SPLITS; return the CRC-32 of each file."""
    checksums = {}
    rest: Rows | None = None
    for split in SPLITS:
        file, missing = RowFile(work.part(split)), rows[split]
        try:
            while missing:
                block = next(blocks) if rest is None or not len(rest) else rest
                part, rest = block[:missing], block[missing:]
                file.append(np.ascontiguousarray(part))
                missing -= len(part)
        finally:
            file.close()
        checksums[split] = file.checksum
    return checksums
