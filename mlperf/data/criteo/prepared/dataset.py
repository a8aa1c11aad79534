"""Prepared data as it is found: this program's, with a manifest, or another's, without."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mlperf.data.criteo.prepared.manifest import FileFacts, Manifest, read_counts
from mlperf.data.criteo.prepared.paths import SPLITS, DatasetPaths
from mlperf.data.schema import ROW_BYTES
from mlperf.util.errors import RunError
from mlperf.util.failures import system_failures


@dataclass(frozen=True)
class PreparedData:
    """Prepared data that is whole. counts: rows per table. None: nobody wrote it down.

    inputs: the text it was prepared from, nothing if another program did it.
    """

    train: Path
    test: Path
    val: Path
    counts: tuple[int, ...]
    train_rows: int
    test_rows: int
    val_rows: int
    data_set: str | None = None
    max_ind_range: int | None = None
    sub_sample_rate: float | None = None
    bad_rows: int = 0
    inputs: tuple[FileFacts, ...] = ()

    def changed_input(self, raw_data_file: Path) -> Path | None:
        """Return an input that is there, but not as it was when this was prepared from it."""
        for facts in self.inputs:
            path = raw_data_file.with_name(facts.name)
            if facts.name.startswith(raw_data_file.name) and os.path.isfile(path) and FileFacts.of(path) != facts:
                return path
        return None


def open_prepared(processed_data_file: Path, raw_data_file: Path | None = None) -> PreparedData | None:
    """Return the prepared data at a place, None if there is none or its preparation did not finish.

    RunError if what is there is damaged.
    """
    place = DatasetPaths.named(processed_data_file)
    with system_failures(place.prefix, "the prepared data cannot be opened"):
        manifest = Manifest.read(place.manifest)
        if manifest is None or manifest.adopted:
            return open_other_programs(place, raw_data_file)
        problem = manifest.problem(place)
        if problem is None:
            return described(place, manifest)
        if place.preparation.exists():
            return None
        raise RunError(problem)


def open_other_programs(place: DatasetPaths, raw_data_file: Path | None) -> PreparedData | None:
    """Return the data that another program left at a place, None if there is none, or this one's.

    Binary files are taken as they are: their counts come from `<raw_data_file>_fea_count.npz`, or from the one
    file of that ending in their folder. The rows of archives are copied into binary files, once.
    """
    # First the files: a preparation that ends in this moment writes its manifest before it moves them.
    files = any(place.split(split).is_file() for split in SPLITS)
    manifest = Manifest.read(place.manifest)
    if manifest is None and files:
        return _open_foreign(place, raw_data_file)
    if manifest is not None and not manifest.adopted:
        return None
    from mlperf.data.criteo.prepare.adopt import adopt, find_archives  # loads compiled parts: not for whole data

    archives = find_archives(place, raw_data_file)
    facts = [FileFacts.of(path) for path in archives]
    if manifest is not None and manifest.is_finished(place) and (not archives or manifest.inputs == facts):
        problem = manifest.problem(place)
        if problem is None:
            return described(place, manifest)
        if not (archives and place.preparation.exists()):  # else it was killed among the last moves
            raise RunError(problem)
    return described(place, adopt(place, archives, raw_data_file)) if archives else None


def find_prepared(place: DatasetPaths, raw_data_file: Path | None) -> PreparedData:
    """Return what a manifest or, without one, the sizes of another program's files say, unverified.

    RunError if there is neither.
    """
    manifest = Manifest.read(place.manifest)
    if manifest is not None:
        return described(place, manifest)
    if not place.split("train").is_file():
        raise RunError(f"{place.prefix}: neither {place.manifest.name} nor {place.split('train').name} is there")
    return _open_foreign(place, raw_data_file, whole=False)


def described(place: DatasetPaths, manifest: Manifest) -> PreparedData:
    """Return what a manifest says of the files at a place."""
    flags = manifest.flags
    return PreparedData(
        train=place.split("train"),
        test=place.split("test"),
        val=place.split("val"),
        counts=tuple(manifest.counts),
        train_rows=manifest.rows("train"),
        test_rows=manifest.rows("test"),
        val_rows=manifest.rows("val"),
        data_set=None if manifest.adopted else str(flags["data_set"]),
        max_ind_range=None if manifest.adopted else int(flags["max_ind_range"]),
        sub_sample_rate=None if manifest.adopted else float(flags["data_sub_sample_rate"]),
        bad_rows=sum(sum(reasons.values()) for reasons in manifest.bad_rows.values()),
        inputs=() if manifest.adopted else tuple(manifest.inputs),
    )


def _open_foreign(place: DatasetPaths, raw_data_file: Path | None, *, whole: bool = True) -> PreparedData:
    paths = {split: place.split(split) for split in SPLITS}
    rows = {}
    for split, path in paths.items():
        found = path.is_file()
        if whole and not found and split != "val":
            others = ", ".join(other.name for other in paths.values() if other.is_file())
            raise RunError(
                f"{path}: no such file, though {others} is there without a manifest, of another program then, "
                "and not overwritten: move it away to prepare the data"
            )
        size = path.stat().st_size if found else 0
        if whole and (size % ROW_BYTES or (size == 0 and split != "val")):
            raise RunError(f"{path}: {size} bytes; allowed is a multiple of {ROW_BYTES}, and not 0")
        rows[split] = size // ROW_BYTES
    return PreparedData(
        train=paths["train"],
        test=paths["test"],
        val=paths["val"],
        counts=read_counts(_counts_file(place, raw_data_file)),
        train_rows=rows["train"],
        test_rows=rows["test"],
        val_rows=rows["val"],
    )


def _counts_file(place: DatasetPaths, raw_data_file: Path | None) -> Path:
    if raw_data_file is not None:
        named = raw_data_file.with_name(raw_data_file.name.removesuffix(".txt") + "_fea_count.npz")
        if named.is_file():
            return named
    found = sorted(place.prefix.parent.glob("*_fea_count.npz"))
    if len(found) != 1:
        raise RunError(
            f"{place.split('train')}: has no manifest {place.manifest.name}, and its folder holds {len(found)} "
            "files *_fea_count.npz with the rows per table; exactly one is needed, or --raw-data-file=<prefix>"
        )
    return found[0]
