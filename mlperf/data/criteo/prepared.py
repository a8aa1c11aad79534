"""Prepared data as it is found: this program's, with a manifest, or another's, without."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlperf.data.criteo.manifest import SPLITS, Manifest, Place, read_counts
from mlperf.data.criteo.row_format import ROW_BYTES
from mlperf.data.criteo.work import WorkFolder
from mlperf.errors import RunError


@dataclass(frozen=True)
class PreparedData:
    """Prepared data that is whole. counts: rows per table. None: nobody wrote it down."""

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


def open_prepared(processed_data_file: Path, raw_data_file: Path | None = None) -> PreparedData | None:
    """Return the prepared data at a place, None if there is none or its preparation did not finish.

    Files of another program have no manifest: their counts come from `<raw_data_file>_fea_count.npz`, or from
    the one file of that ending in their folder. RunError if what is there is damaged.
    """
    place = Place.named(processed_data_file)
    manifest = Manifest.read(place.manifest)
    if manifest is None:
        return open_foreign(place, raw_data_file)
    if not manifest.is_finished(place) and WorkFolder(place).path.exists():
        return None
    manifest.verify(place)
    return described(place, manifest)


def described(place: Place, manifest: Manifest) -> PreparedData:
    """Return what a manifest says of the files at a place."""
    return PreparedData(
        train=place.split("train"),
        test=place.split("test"),
        val=place.split("val"),
        counts=tuple(manifest.counts),
        train_rows=manifest.rows("train"),
        test_rows=manifest.rows("test"),
        val_rows=manifest.rows("val"),
        data_set=str(manifest.flags["data_set"]),
        max_ind_range=int(manifest.flags["max_ind_range"]),
        sub_sample_rate=float(manifest.flags["data_sub_sample_rate"]),
        bad_rows=sum(sum(reasons.values()) for reasons in manifest.bad_rows.values()),
    )


def open_foreign(place: Place, raw_data_file: Path | None) -> PreparedData | None:
    """Return another program's files at a place, None if there are none."""
    paths = {split: place.split(split) for split in SPLITS}
    if not (paths["train"].is_file() and paths["test"].is_file()):
        return None
    rows = {}
    for split, path in paths.items():
        size = path.stat().st_size if path.is_file() else 0
        if size % ROW_BYTES or (size == 0 and split != "val"):
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


def _counts_file(place: Place, raw_data_file: Path | None) -> Path:
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
