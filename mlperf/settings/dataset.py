"""Settings of a data set and its preparation, shared by the trainer and `prepare_criteo.py`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mlperf.benchmarks.data_sets import DATA_SETS, KAGGLE_DAYS, TERABYTE_DAYS, DataSetTraits
from mlperf.settings.flags import flag
from mlperf.settings.kinds import (
    between,
    choice,
    file_name,
    file_prefix,
    number_ranges,
    prefix_or_folder,
    switch,
    whole_between,
)

MAX_SEED = 2**32 - 1  # of NumPy's legacy generator
DAYS = number_ranges(TERABYTE_DAYS, "DAYS")
_GROUP = "data set"


def _raw_data_file(*, required: bool) -> Any:
    help = (
        "raw data: train.txt, or the prefix of day_0 ... day_23 (plain or .gz); columns: a text or Parquet file, "
        "or the folder of the files that --columns names"
    )
    return flag("--raw-data-file", file_prefix, None, help, group=_GROUP, required=required)


def _processed_data_file(*, required: bool) -> Any:
    help = (
        "prefix X of the prepared files X_train.bin, X_test.bin, X_val.bin, X.json and X.ids; created from the "
        "raw data if missing"
    )
    if not required:  # the trainer also reads what it cannot prepare
        help += "; or the folder with the files day_0_dense.npy, ... of the DLRM-DCNv2 reference"
    return flag("--processed-data-file", prefix_or_folder, None, help, group=_GROUP, required=required)


@dataclass(frozen=True)
class DatasetSettings:
    """A data set and the settings that determine the contents of its prepared files.

    seed: seed of the run; preparation uses it for shuffling and for dropping rows.
    """

    data_set: str = flag(
        "--data-set",
        choice(*DATA_SETS),
        "kaggle",
        "data set to use; terabyte_dcnv2: Terabyte as DLRM-DCNv2 numbers and transforms it; columns: a click log "
        "of your own",
        group=_GROUP,
    )
    raw_data_file: Path | None = _raw_data_file(required=False)
    processed_data_file: Path | None = _processed_data_file(required=False)
    columns: Path | None = flag(
        "--columns",
        file_name,
        None,
        "--data-set=columns: TOML file that describes the columns; prepared data needs it no more",
        group=_GROUP,
    )
    ids_from: Path | None = flag(
        "--ids-from",
        file_prefix,
        None,
        "prefix X of prepared data whose numbering of the ids is used: known ids get their rows in the tables, "
        "others that of the empty id",
        group=_GROUP,
    )
    days: tuple[int, ...] | None = flag(
        "--days",
        DAYS,
        None,
        "Terabyte: days to prepare, such as 0-3,23; the last one is for evaluation, and one alone is divided into "
        f"{KAGGLE_DAYS} parts; by default all {TERABYTE_DAYS}",
        group=_GROUP,
    )
    max_ind_range: int = flag(
        "--max-ind-range",
        whole_between(1, 1 << 32, or_value=-1),
        -1,
        "ids are taken modulo N before they are numbered, or with terabyte_dcnv2 afterwards, modulo the at most N "
        "rows of their table; -1: no limit",
        group=_GROUP,
    )
    randomize: str = flag(
        "--data-randomize",
        choice("total", "day", "none"),
        "total",
        "shuffling of the training rows in preparation: over all days, within each day, or none",
        group=_GROUP,
    )
    sub_sample_rate: float = flag(
        "--data-sub-sample-rate",
        between(0, 1, below=True),
        0.0,
        "fraction in [0, 1) of the rows with label 0 that preparation drops",
        group=_GROUP,
    )
    seed: int = flag("--numpy-rand-seed", whole_between(0, MAX_SEED), 123, "random seed")
    bin_loader: bool = flag(
        "--mlperf-bin-loader",
        switch,
        False,
        "Kaggle: do not write X.npz in preparation; training always reads the binary file",
        group=_GROUP,
    )

    @property
    def traits(self) -> DataSetTraits:
        """The data set, with what distinguishes it from the others."""
        return DATA_SETS[self.data_set]

    @property
    def day_numbers(self) -> tuple[int, ...]:
        """The numbers of the days that are prepared, if the text has a file for each day."""
        return tuple(range(TERABYTE_DAYS)) if self.days is None else self.days

    @property
    def write_npz(self) -> bool:
        """Whether preparation also writes X.npz, the format of the original implementation."""
        return self.traits.has_archive and not self.bin_loader


@dataclass(frozen=True)
class PreparationSettings(DatasetSettings):
    """Inputs and outputs of a preparation. checkpoint_seconds: interval between states saved for resuming."""

    raw_data_file: Path = _raw_data_file(required=True)
    processed_data_file: Path = _processed_data_file(required=True)
    bad_rows: str = flag(
        "--bad-rows",
        choice("stop", "skip"),
        "stop",
        "stop at the first bad row, or skip and count bad rows",
    )
    max_bad_rows: float = flag(
        "--max-bad-rows",
        between(0, 1),
        0.001,
        "with --bad-rows=skip: maximum fraction of bad rows",
    )
    reference_files: bool = flag(
        "--reference-files",
        switch,
        False,
        "terabyte_dcnv2: write day_0_dense.npy, day_0_sparse.npy, day_0_labels.npy ... as the reference does, "
        "byte for byte, to the new folder --processed-data-file",
    )
    force: bool = flag("--force", switch, False, "start even if there seems to be too little disk space")
    checkpoint_seconds: float = 120.0

    @classmethod
    def of(cls, dataset: DatasetSettings, processed_data_file: Path) -> PreparationSettings:
        """Return the settings that prepare `dataset` at `processed_data_file`."""
        shared = {each.name: getattr(dataset, each.name) for each in fields(DatasetSettings)}
        if dataset.traits.limits_rows:
            shared["max_ind_range"] = -1  # a limit of the tables, not of the ids
        return cls(**{**shared, "processed_data_file": processed_data_file})

    def flags(self) -> dict[str, str | int | float]:
        """Return the entry of the manifest: the settings that determine the output, besides the inputs."""
        if self.reference_files:
            return {"data_set": self.data_set, "reference_files": True, "bad_rows": self.bad_rows}
        days = {} if self.days is None else {"days": DAYS.show(self.days)}
        return {
            "data_set": self.data_set,
            "max_ind_range": self.max_ind_range,
            "data_randomize": self.randomize,
            "data_sub_sample_rate": self.sub_sample_rate,
            "numpy_rand_seed": self.seed,
            "bad_rows": self.bad_rows,
            **days,
        }
