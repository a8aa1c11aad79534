"""The end of a preparation: its files move to their places, with their manifest; old and new are never mixed."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mlperf.data.criteo.prepare.plan import PreparationSettings
from mlperf.data.criteo.prepare.work_folder import State, WorkFolder
from mlperf.data.criteo.prepared.manifest import FileFacts, Manifest
from mlperf.data.criteo.prepared.npz import write_npz
from mlperf.data.criteo.prepared.paths import SPLITS, DatasetPaths
from mlperf.data.schema import ROW_BYTES
from mlperf.util.crc32 import file_crc32
from mlperf.util.errors import RunError


def publish(
    settings: PreparationSettings, place: DatasetPaths, inputs: Sequence[FileFacts], work: WorkFolder, state: State
) -> Manifest:
    """Move the files to their places, the manifest first: without one they would count as another program's.

    Until the last is there the manifest does not match what stands at the place, and nobody trains on that. A
    killed call is repeated by the next process: what has arrived already is compared with its checksum.
    """
    half = (state.rows_per_day[-1] + 1) // 2
    rows = {"train": state.train_rows, "test": half, "val": state.rows_per_day[-1] - half}
    if work.part("test").exists():
        os.truncate(work.part("test"), half * ROW_BYTES)
    here = {split: work.part_or_moved(split) for split in SPLITS}
    for split in SPLITS:
        arrived = here[split] == place.split(split)
        if arrived and file_crc32(here[split]) != state.checksums[split]:
            raise RunError(f"{here[split]}: replaced while it was being prepared; begin again")
    if settings.write_npz:
        write_npz(work.part_npz(), [here[split] for split in SPLITS], state.ids[-1])
    work.sync()
    files = {
        split: FileFacts(
            *(place.split(split).name, rows[split] * ROW_BYTES, here[split].stat().st_mtime_ns),
            crc32=state.checksums[split],
        )
        for split in SPLITS
    }
    manifest = Manifest(
        flags=settings.flags(),
        inputs=list(inputs),
        rows_per_day=state.rows_per_day,
        counts=state.ids[-1],
        files=files,
        bad_rows=state.bad,
        archive=_archive_facts(place, work) if settings.write_npz else None,
    )
    _remove_old_archive(place)  # as long as its manifest is there to tell it from another program's
    manifest.write(place.manifest, work.path)
    work.publish(work.part_npz(), place.archive)  # not last: whether the others have arrived can be seen
    for split in SPLITS:
        work.publish(work.part(split), place.split(split))
    work.remove()
    return manifest


def add_archive(place: DatasetPaths, manifest: Manifest, work: WorkFolder) -> None:
    """Write X.npz to prepared data that lacks it."""
    work.clear()
    write_npz(work.part_npz(), [place.split(split) for split in SPLITS], manifest.counts)
    work.sync()
    with_archive = manifest.with_archive(_archive_facts(place, work))
    with_archive.write(place.manifest, work.path)
    work.publish(work.part_npz(), place.archive)
    work.remove()


def _archive_facts(place: DatasetPaths, work: WorkFolder) -> FileFacts:
    part = FileFacts.of(work.part_npz(), file_crc32(work.part_npz()))
    return FileFacts(place.archive.name, part.size, part.mtime_ns, part.crc32)


def _remove_old_archive(place: DatasetPaths) -> None:
    """Remove the X.npz of the preparation that is replaced, as far as it is the one that was written then."""
    old = Manifest.read(place.manifest)
    if old is not None and old.archive is not None and place.archive.is_file():
        found = FileFacts.of(place.archive, old.archive.crc32)
        if (found.size, found.mtime_ns) == (old.archive.size, old.archive.mtime_ns):
            place.archive.unlink()
