"""Move the finished files and the manifest into place without mixing them with an older result."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from mlperf.data.criteo.days import SPLITS, split_rows
from mlperf.data.prepare.state import PreparationState
from mlperf.data.prepare.work_folder import WorkFolder
from mlperf.data.prepared.file_facts import FileFacts
from mlperf.data.prepared.manifest import Manifest
from mlperf.data.prepared.npz import write_npz
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.data.schema import CRITEO
from mlperf.settings.dataset import PreparationSettings
from mlperf.util.crc32 import file_crc32
from mlperf.util.errors import RunError


def publish(
    settings: PreparationSettings,
    paths: DatasetPaths,
    inputs: Sequence[FileFacts],
    work: WorkFolder,
    state: PreparationState,
) -> Manifest:
    """Write the manifest and move the files into place.

    The manifest comes first, because files without a manifest count as those of another tool. Until all files are
    moved, the manifest does not match and the data is rejected. If the process is killed here, the next one
    repeats this call and compares files that are already in place with their checksums.
    """
    rows = {**split_rows(state.rows_per_day), "train": state.train_rows}
    if work.part("test").exists():  # contains the whole last day until now
        os.truncate(work.part("test"), rows["test"] * CRITEO.row_bytes)
    for split in SPLITS:
        path = work.part_or_moved(split)
        if path == paths.split(split) and file_crc32(path) != state.checksums[split]:
            raise RunError(f"{path}: was replaced during the preparation; start again")
    if settings.write_npz:
        write_npz(work.part_npz(), [work.part_or_moved(split) for split in SPLITS], state.ids[-1])
    work.sync()
    manifest = Manifest(
        flags=settings.flags(),
        inputs=list(inputs),
        rows_per_day=state.rows_per_day,
        counts=state.ids[-1],
        files=split_facts(work, paths, rows, state.checksums),
        bad_rows=state.bad,
        smallest_integer=min(state.smallest) if settings.traits.keeps_negative else None,
        archive=_archive_facts(paths, work) if settings.write_npz else None,
    )
    _remove_old_archive(paths)  # before the manifest is replaced, which identifies the archive as ours
    manifest.write(paths.manifest, work.path)
    work.publish(work.part_npz(), paths.archive)  # first, because the binary files mark the data as complete
    for split in SPLITS:
        work.publish(work.part(split), paths.split(split))
    work.remove()
    return manifest


def split_facts(
    work: WorkFolder, paths: DatasetPaths, rows: Mapping[str, int], checksums: Mapping[str, int]
) -> dict[str, FileFacts]:
    """Return the manifest entry of each split, whose file is in the work folder or in place."""
    return {
        split: FileFacts(
            name=paths.split(split).name,
            size=rows[split] * CRITEO.row_bytes,
            mtime_ns=work.part_or_moved(split).stat().st_mtime_ns,
            crc32=checksums[split],
        )
        for split in SPLITS
    }


def add_archive(paths: DatasetPaths, manifest: Manifest, work: WorkFolder) -> None:
    """Write X.npz for prepared data that has none."""
    work.clear()
    write_npz(work.part_npz(), [paths.split(split) for split in SPLITS], manifest.counts)
    work.sync()
    manifest.with_archive(_archive_facts(paths, work)).write(paths.manifest, work.path)
    work.publish(work.part_npz(), paths.archive)
    work.remove()


def _archive_facts(paths: DatasetPaths, work: WorkFolder) -> FileFacts:
    part = FileFacts.of(work.part_npz(), file_crc32(work.part_npz()))
    return FileFacts(paths.archive.name, part.size, part.mtime_ns, part.crc32)


def _remove_old_archive(paths: DatasetPaths) -> None:
    """Remove the X.npz of the preparation that is replaced, unless it was changed since."""
    old = Manifest.read(paths.manifest)
    if old is not None and old.archive is not None and paths.archive.is_file():
        found = FileFacts.of(paths.archive, old.archive.crc32)
        if (found.size, found.mtime_ns) == (old.archive.size, old.archive.mtime_ns):
            paths.archive.unlink()
