"""The data of a run: a prepared data set, made from the raw text where it is missing, or generated batches."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlperf.data.binary import BinaryFile
from mlperf.data.criteo.prepare.open_prepared import open_prepared
from mlperf.data.criteo.prepared.dataset import PreparedData
from mlperf.data.source import BatchSource
from mlperf.data.synthetic.random_batches import RandomBatches
from mlperf.data.synthetic.stack_distances import StackDistances
from mlperf.data.synthetic.synthetic_batches import SyntheticBatches
from mlperf.settings.data import DataSettings
from mlperf.settings.dataset import PreparationSettings
from mlperf.settings.settings import Settings
from mlperf.util.errors import RunError, UsageError

_log = logging.getLogger(__name__)

# What the prepared data is called if only the raw data is named.
_DEFAULT_NAMES = {"kaggle": "kaggleAdDisplayChallenge_processed", "terabyte": "terabyte_processed"}


@dataclass(frozen=True)
class Splits:
    """The batches to train on and those to evaluate on; random and synthetic data have no test split."""

    train: BatchSource
    test: BatchSource | None


def prepared_data(data: DataSettings) -> PreparedData:
    """Return the prepared data, making it from the raw data where it is missing."""
    place = data.processed_data_file
    if place is None:
        assert data.raw_data_file is not None
        place = data.raw_data_file.parent / _DEFAULT_NAMES[data.data_set]
    found = open_prepared(place, raw_data_file=data.raw_data_file)
    if found is not None:
        _check_preparation(found, data)
        if data.raw_data_file is not None:
            _warn_of_changed_input(found, data.raw_data_file)
        return found
    if data.raw_data_file is None:
        raise RunError(f"{place}: no prepared data there, and no --raw-data-file to make it from")
    from mlperf.data.criteo.prepare.pipeline import prepare  # slow to import: it compiles what only it needs

    return prepare(PreparationSettings.of(data, place))


def _check_preparation(found: PreparedData, data: DataSettings) -> None:
    """Raise UsageError if the data was prepared with another limit or sampling.

    Both act before ids are numbered, so that prepared data cannot be changed to them.
    """
    for flag, asked, default, has in (
        ("--max-ind-range", data.max_ind_range, -1, found.max_ind_range),
        ("--data-sub-sample-rate", data.sub_sample_rate, 0.0, found.sub_sample_rate),
    ):
        if asked != default and has not in (None, asked):
            raise UsageError(
                f"{flag}={asked}: {found.train} was prepared with {has}; allowed is that, or leaving the flag "
                "out; to prepare anew, name another --processed-data-file"
            )


def _warn_of_changed_input(found: PreparedData, raw_data_file: Path) -> None:
    """Warn, and do no more: an input that was copied or touched still holds the same text."""
    changed = found.changed_input(raw_data_file)
    if changed is not None:
        _log.warning(
            "%s: not as it was when %s was prepared from it; the prepared data is used all the same, and "
            "tools/prepare_criteo.py prepares it again",
            *(changed, found.train),
        )


def table_rows(settings: Settings, prepared: PreparedData | None) -> tuple[int, ...]:
    """Return the rows of each table: those of the data set, or for generated data those of the flags."""
    max_ind_range = settings.data.max_ind_range
    if prepared is None:
        return settings.model.architecture.rows_per_table
    if max_ind_range < 0:
        return tuple(prepared.counts)
    return tuple(min(count, max_ind_range) for count in prepared.counts)


def open_split(settings: Settings, prepared: PreparedData, split: str) -> BinaryFile:
    """Return the batches of a split, "train" or "test"."""
    data = settings.data
    train = split == "train"
    return BinaryFile(
        path=prepared.train if train else prepared.test,
        rows=prepared.train_rows if train else prepared.test_rows,
        batch_size=data.batch_size if train else data.test_batch_size,
        rows_per_table=table_rows(settings, prepared),
        max_ind_range=data.max_ind_range,
        shuffle_seed=settings.seed if train and data.shuffle_batches else None,
        limit=data.num_batches if train else 0,
        readers=settings.readers if train else settings.test_readers,
        pin_memory=settings.use_gpu,
    )


def generated_batches(settings: Settings, stream: np.random.RandomState) -> BatchSource:
    """Return random or synthetic batches. Random ones draw from `stream` and leave it behind the last target."""
    data, architecture = settings.data, settings.model.architecture
    dense_features, rows = architecture.mlp_bot[0], architecture.rows_per_table
    if data.generation == "random":
        return RandomBatches(data, dense_features=dense_features, rows_per_table=rows, stream=stream)
    distances = _stack_distances(data.generated.trace_file, rows)
    return SyntheticBatches(data, dense_features=dense_features, rows_per_table=rows, distances=distances)


def _stack_distances(trace_file: Path, rows_per_table: Sequence[int]) -> list[StackDistances]:
    """Return the distribution of each table; warn if it names more ids than the table has rows."""
    found = []
    for table, rows in enumerate(rows_per_table):
        file = _trace_file(trace_file, table)
        distances = StackDistances.read(file)
        largest = distances.accesses.max()
        if largest >= rows:
            _log.warning(
                "%s: accesses up to %d are taken modulo the %d rows of table %d, which changes the distances",
                *(file, largest, rows, table),
            )
        found.append(distances)
    return found


def _trace_file(pattern: Path, table: int) -> Path:
    """Return the file of a table: a "j" that stands alone in the name is replaced by the table's number."""
    return pattern.with_name(re.sub(r"(?<![A-Za-z0-9])j(?![A-Za-z0-9])", str(table), pattern.name))


def open_splits(settings: Settings, prepared: PreparedData) -> Splits:
    """Open both splits of a data set; in a timed run the clock is running."""
    return Splits(open_split(settings, prepared, "train"), open_split(settings, prepared, "test"))
