"""Move the finished files and the manifest into place without mixing them with an older result."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mlperf.data.columns.description import IdKind, Transform
from mlperf.data.criteo.days import SPLITS
from mlperf.data.prepare.moments import Moments
from mlperf.data.prepare.request import Request
from mlperf.data.prepare.state import PreparationState
from mlperf.data.prepare.work_folder import WorkFolder
from mlperf.data.prepared.file_facts import FileFacts
from mlperf.data.prepared.id_numbering import IdNumbering
from mlperf.data.prepared.manifest import Manifest, Numbering
from mlperf.data.prepared.npz import write_npz
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.util.crc32 import file_crc32
from mlperf.util.errors import RunError


def publish(
    request: Request,
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
    settings, layout = request.settings, work.layout
    rows = {**layout.rows(state.rows_per_day), "train": state.train_rows}
    sizes = {split: count * layout.schema.row_bytes for split, count in rows.items()}
    if work.part("test").exists():  # of days, it contains the whole last one until now
        os.truncate(work.part("test"), sizes["test"])
    ids = work.part_or(work.part_ids(), paths.ids)
    moved = {"ids": ids} | {split: work.part_or_moved(split) for split in SPLITS}
    for name, path in moved.items():
        if path.parent != work.path and file_crc32(path) != state.checksums[name]:
            raise RunError(f"{path}: was replaced during the preparation; start again")
    if settings.write_npz:
        write_npz(work.part_npz(), [work.part_or_moved(split) for split in SPLITS], state.ids[-1])
    work.sync()
    moments = _moments(request, state)
    manifest = Manifest(
        flags=settings.flags(),
        inputs=list(inputs),
        rows_per_day=state.rows_per_day,
        counts=state.ids[-1],
        files=split_facts(work, paths, sizes, state.checksums),
        bad_rows=state.bad,
        smallest_integer=min(state.smallest) if settings.traits.keeps_negative else None,
        archive=_archive_facts(paths, work) if settings.write_npz else None,
        columns=request.columns,
        ids=replace(FileFacts.of(ids, state.checksums["ids"]), name=paths.ids.name),
        numbering=_numbering(request, ids, state),
        means=moments[0],
        deviations=moments[1],
        cut_fields=tuple(state.cut) if any(state.cut) else (),
        collision_chances=_collision_chances(request, state.ids[-1]),
    )
    _remove_old_archive(paths)  # before the manifest is replaced, which identifies the archive as ours
    manifest.write(paths.manifest, work.path)
    work.publish(work.part_npz(), paths.archive)  # first, because the binary files mark the data as complete
    work.publish(work.part_ids(), paths.ids)
    for split in SPLITS:
        work.publish(work.part(split), paths.split(split))
    work.remove()
    return manifest


def _numbering(request: Request, ids: Path, state: PreparationState) -> Numbering:
    fingerprint, earlier = IdNumbering.read(ids).fingerprint, request.earlier
    if earlier is None:
        return Numbering(fingerprint)
    return Numbering(fingerprint, earlier.name, tuple(state.unknown))


def _moments(request: Request, state: PreparationState) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation of each dense column; empty if none is standardized."""
    if request.earlier is not None:
        return request.earlier.means, request.earlier.deviations
    standardized = iter(Moments(range(len(state.sums)), state.sums).results())
    results = [
        next(standardized) if column.transform is Transform.STANDARDIZE else (0.0, 1.0)
        for column in request.description.dense
    ]
    means, deviations = zip(*results, strict=True) if state.sums else ((), ())
    return means, deviations


def _collision_chances(request: Request, counts: Sequence[int]) -> tuple[float, ...]:
    """Return the probability for each column that two of its words have the same 64-bit key."""
    columns = request.description.categorical
    if not any(column.kind is IdKind.WORD for column in columns):
        return ()
    return tuple(
        count * (count - 1) / 2.0**65 if column.kind is IdKind.WORD else 0.0
        for column, count in zip(columns, counts, strict=True)
    )


def split_facts(
    work: WorkFolder, paths: DatasetPaths, sizes: Mapping[str, int], checksums: Mapping[str, int]
) -> dict[str, FileFacts]:
    """Return the manifest entry of each split, whose file is in the work folder or in place. sizes: in bytes."""
    return {
        split: FileFacts(
            name=paths.split(split).name,
            size=sizes[split],
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
    return replace(FileFacts.of(work.part_npz(), file_crc32(work.part_npz())), name=paths.archive.name)


def _remove_old_archive(paths: DatasetPaths) -> None:
    """Remove the X.npz of the preparation that is replaced, unless it was changed since."""
    old = Manifest.read(paths.manifest)
    if old is not None and old.archive is not None and paths.archive.is_file():
        found = FileFacts.of(paths.archive, old.archive.crc32)
        if (found.size, found.mtime_ns) == (old.archive.size, old.archive.mtime_ns):
            paths.archive.unlink()
