"""A prepared data set: written by this program, with a manifest, or by another tool, without one."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlperf.benchmarks.data_sets import DATA_SETS, TERABYTE_DCNV2, DataSetTraits
from mlperf.data.columns.description import CRITEO_COLUMNS, ColumnsDescription
from mlperf.data.criteo.days import SPLITS
from mlperf.data.prepared.file_facts import FileFacts
from mlperf.data.prepared.manifest import Manifest
from mlperf.data.prepared.npz import read_counts
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.data.prepared.reference_manifest import ReferenceManifest
from mlperf.data.schema import CRITEO, RowSchema
from mlperf.data.watched_file import FileStatus
from mlperf.settings.dataset import DAYS
from mlperf.util.errors import RunError

if TYPE_CHECKING:  # they import PyTorch, which the preparation does without
    from mlperf.data.multi_hot import MultiHotTables
    from mlperf.data.prepared.reference_files import ReferenceFiles

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedData:
    """A complete prepared data set.

    train, test, val: binary files, or the folder of the files of the DLRM-DCNv2 reference. train_rows, test_rows,
    val_rows: their numbers of rows.
    counts: number of distinct ids of each embedding table; empty if that is not known.
    data_set, max_ind_range, sub_sample_rate, randomize, seed: flags of the preparation; None if prepared by
    another tool. The seed is None, too, if the preparation drew no random numbers.
    days: days of the text that were prepared; None: all, or the text has no files for days.
    bad_rows: number of bad rows left out.
    inputs: raw text files; empty if prepared by another tool.
    statuses: status of the file of each split when it was found.
    checksums: CRC-32 of each split or, by name, of each file of the reference; empty if prepared by another tool.
    smallest_integer: the smallest dense feature in the files if negative ones are kept; None if they are 0.
    reference: the files of the DLRM-DCNv2 reference, if the data consists of them.
    multi_hot: tables that expand the ids in a run; None: the ids are used as they are.
    columns: description of the columns from which the data was prepared.
    numbering: fingerprint of the numbers of the ids; None if it is not known.
    ids_from: name of the data set whose numbering was used; None: its own.
    means, deviations: mean and standard deviation of each dense column in the training rows, 0 and 1 if it is not
        standardized; empty if none is.
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
    randomize: str | None = None
    seed: int | None = None
    days: tuple[int, ...] | None = None
    bad_rows: int = 0
    inputs: tuple[FileFacts, ...] = ()
    statuses: Mapping[str, FileStatus] = field(default_factory=dict)
    checksums: Mapping[str, int] = field(default_factory=dict)
    smallest_integer: int | None = None
    reference: ReferenceFiles | None = None
    multi_hot: MultiHotTables | None = None
    columns: ColumnsDescription = CRITEO_COLUMNS
    numbering: str | None = None
    ids_from: str | None = None
    means: tuple[float, ...] = ()
    deviations: tuple[float, ...] = ()

    @property
    def schema(self) -> RowSchema:
        """The layout of the rows."""
        return self.columns.schema

    @property
    def traits(self) -> DataSetTraits | None:
        """What distinguishes the data set from others; None if prepared by another tool."""
        return None if self.data_set is None else DATA_SETS[self.data_set]

    @property
    def first_index(self) -> int:
        """The number of the first id of each column."""
        return 0 if self.traits is None else self.traits.first_index

    @property
    def lowest_index(self) -> int:
        """The lowest index of a column: if ids can be empty or unknown, that of their row."""
        has_empty_row = self.traits is None or self.traits.has_columns_file or self.ids_from is not None
        return 0 if has_empty_row else self.first_index

    @property
    def table_rows(self) -> tuple[int, ...]:
        """The rows of each table without a limit: one for each id and, for own columns, that of the empty id.

        The reserved rows of terabyte_dcnv2 are among those that a training takes the ids modulo.
        """
        reserved = self.first_index if self.traits is not None and self.traits.has_columns_file else 0
        return tuple(reserved + count for count in self.counts)

    def rows(self, split: str) -> int:
        """Return the number of rows of a split: train, test or val."""
        return {"train": self.train_rows, "test": self.test_rows, "val": self.val_rows}[split]

    def split(self, name: str) -> Path:
        """Return the binary file of a split, train, test or val, or the folder of the files."""
        return {"train": self.train, "test": self.test, "val": self.val}[name]


def describe(paths: DatasetPaths, manifest: Manifest) -> PreparedData:
    """Return the data set as its manifest describes it, unverified."""
    flags = manifest.flags
    return PreparedData(
        train=paths.split("train"),
        test=paths.split("test"),
        val=paths.split("val"),
        counts=tuple(manifest.counts),
        train_rows=manifest.rows("train"),
        test_rows=manifest.rows("test"),
        val_rows=manifest.rows("val"),
        data_set=None if manifest.adopted else str(flags["data_set"]),
        max_ind_range=None if manifest.adopted else int(flags["max_ind_range"]),
        sub_sample_rate=None if manifest.adopted else float(flags["data_sub_sample_rate"]),
        randomize=None if manifest.adopted else str(flags["data_randomize"]),
        seed=None if manifest.adopted else _seed(flags),
        days=DAYS(flags["days"]) if "days" in flags else None,
        bad_rows=sum(sum(reasons.values()) for reasons in manifest.bad_rows.values()),
        inputs=() if manifest.adopted else tuple(manifest.inputs),
        statuses=_statuses(paths),
        checksums=manifest.checksums,
        smallest_integer=manifest.smallest_integer,
        columns=manifest.columns or CRITEO_COLUMNS,
        numbering=None if manifest.numbering is None else manifest.numbering.fingerprint,
        ids_from=None if manifest.numbering is None else manifest.numbering.ids_from,
        means=manifest.means,
        deviations=manifest.deviations,
    )


def describe_reference(files: ReferenceFiles) -> PreparedData:
    """Return the data set that consists of files of the DLRM-DCNv2 reference.

    The counts and checksums are known if this program wrote them. RunError if they then do not match their
    manifest.
    """
    folder = files.prefix.parent
    manifest = ReferenceManifest.read(folder)
    if manifest is not None and (problem := manifest.find_problem(folder)):
        raise RunError(problem)
    return PreparedData(
        *(folder, folder, folder),
        counts=() if manifest is None else tuple(manifest.counts),
        train_rows=files.rows("train"),
        test_rows=files.rows("test"),
        val_rows=files.rows("val"),
        data_set=TERABYTE_DCNV2.name,
        inputs=() if manifest is None else tuple(manifest.inputs),
        checksums={} if manifest is None else {each.name: each.crc32 or 0 for each in manifest.files},
        reference=files,
    )


def _statuses(paths: DatasetPaths) -> dict[str, FileStatus]:
    files = {split: paths.split(split) for split in SPLITS}
    return {split: FileStatus.of(path) for split, path in files.items() if path.is_file()}


def _seed(flags: dict[str, Any]) -> int | None:
    is_random = flags["data_randomize"] != "none" or flags["data_sub_sample_rate"]
    return int(flags["numpy_rand_seed"]) if is_random else None


def find_prepared(paths: DatasetPaths, raw_data_file: Path | None) -> tuple[PreparedData, Manifest | None]:
    """Return the data set described by its manifest or, without one, by the sizes of its files, unverified.

    Raises RunError if there is neither.
    """
    manifest = Manifest.read(paths.manifest)
    if manifest is not None:
        return describe(paths, manifest), manifest
    if not paths.split("train").is_file():
        raise RunError(f"{paths.prefix}: neither {paths.manifest.name} nor {paths.split('train').name} exists")
    return describe_foreign(paths, raw_data_file), None


def open_foreign(paths: DatasetPaths, raw_data_file: Path | None) -> PreparedData:
    """Return a data set of another tool. RunError if its files are incomplete or have no counts."""
    for split in SPLITS:
        path = paths.split(split)
        if not path.is_file():
            if split == "val":
                continue  # not every tool writes it
            others = ", ".join(paths.split(other).name for other in SPLITS if paths.split(other).is_file())
            raise RunError(
                f"{path}: no such file, but {others} exists without a manifest; it seems to come from "
                "another program and is not overwritten; move it to prepare the data"
            )
        size = path.stat().st_size
        if size % CRITEO.row_bytes or (size == 0 and split != "val"):
            raise RunError(f"{path}: {size} bytes; allowed is a multiple of {CRITEO.row_bytes} and not 0")
    return describe_foreign(paths, raw_data_file)


def describe_foreign(paths: DatasetPaths, raw_data_file: Path | None) -> PreparedData:
    """Return a data set of another tool, with rows from the sizes of its files; missing files have no rows.

    The counts come from `<raw_data_file>_fea_count.npz` or from the only file `*_fea_count.npz` in the folder.
    """
    statuses = _statuses(paths)
    rows = {split: statuses[split].size // CRITEO.row_bytes if split in statuses else 0 for split in SPLITS}
    return PreparedData(
        train=paths.split("train"),
        test=paths.split("test"),
        val=paths.split("val"),
        counts=read_counts(_counts_file(paths, raw_data_file)),
        train_rows=rows["train"],
        test_rows=rows["test"],
        val_rows=rows["val"],
        statuses=statuses,
    )


def _counts_file(paths: DatasetPaths, raw_data_file: Path | None) -> Path:
    named = None
    if raw_data_file is not None:
        named = raw_data_file.with_name(raw_data_file.name.removesuffix(".txt") + "_fea_count.npz")
        if named.is_file():
            return named
    found = sorted(paths.prefix.parent.glob("*_fea_count.npz"))
    if named is not None and len(found) == 1 and not os.path.isdir(raw_data_file or ""):  # a folder is refused
        _log.warning("%s: no such file; the rows per table are those of %s", named, found[0])
    if len(found) != 1:
        raise RunError(
            f"{paths.split('train')}: has no manifest {paths.manifest.name}, and its folder contains {len(found)} "
            "files *_fea_count.npz with the rows per table; exactly one is needed, or --raw-data-file=<prefix>"
        )
    return found[0]
