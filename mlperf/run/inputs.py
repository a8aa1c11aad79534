"""What a run reads: prepared data, made from the raw text where it is missing, or data that is made up."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlperf.data.binary import BinaryFile
from mlperf.data.criteo.prepare.existing import open_prepared
from mlperf.data.criteo.prepared.dataset import PreparedData
from mlperf.data.source import BatchSource
from mlperf.data.synthetic.random_batches import Gaussian, RandomBatches, RandomDataSettings, random_data_samples
from mlperf.data.synthetic.stack_distances import StackDistances
from mlperf.data.synthetic.synthetic_batches import SyntheticBatches, SyntheticDataSettings
from mlperf.reporting.console import note
from mlperf.settings.settings import DataSettings, Settings
from mlperf.util.errors import RunError, UsageError


@dataclass(frozen=True)
class Splits:
    """The batches to train on and those to evaluate on (none for random data)."""

    train: BatchSource
    test: BatchSource | None


def prepared_data(data: DataSettings, seed: int) -> PreparedData:
    """Return the prepared data, making it from the raw data where it is missing."""
    place = data.processed_data_file
    if place is None:
        assert data.raw_data_file is not None
        names = {"kaggle": "kaggleAdDisplayChallenge_processed", "terabyte": "terabyte_processed"}
        place = data.raw_data_file.parent / names[data.data_set]
    found = open_prepared(place, raw_data_file=data.raw_data_file)
    if found is not None:
        _check_prepared_as_asked(found, data)
        if data.raw_data_file is not None:
            _note_changed_input(found, data.raw_data_file)
        return found
    if data.raw_data_file is None:
        raise RunError(f"{place}: no prepared data there, and no --raw-data-file to make it from")
    # These load, and the first time compile, what only a preparation needs.
    from mlperf.data.criteo.prepare.pipeline import prepare
    from mlperf.data.criteo.prepare.plan import PreparationSettings

    return prepare(
        PreparationSettings(
            data_set=data.data_set,
            raw_data_file=data.raw_data_file,
            processed_data_file=place,
            max_ind_range=data.max_ind_range,
            randomize=data.randomize,
            sub_sample_rate=data.sub_sample_rate,
            seed=seed,
            write_npz=data.write_npz,
        )
    )


def _check_prepared_as_asked(found: PreparedData, data: DataSettings) -> None:
    """Limit and sampling come before the numbering: data prepared otherwise cannot be brought to them any more."""
    for flag, asked, default, has in (
        ("--max-ind-range", data.max_ind_range, -1, found.max_ind_range),
        ("--data-sub-sample-rate", data.sub_sample_rate, 0.0, found.sub_sample_rate),
    ):
        if asked != default and has not in (None, asked):
            raise UsageError(
                f"{flag}={asked}: {found.train} was prepared with {has}; allowed is that, or leaving the flag "
                "out; to prepare anew, name another --processed-data-file"
            )


def _note_changed_input(found: PreparedData, raw_data_file: Path) -> None:
    """Copied or touched text is the same text: no reason to refuse what was prepared from it, nor to be silent."""
    changed = found.changed_input(raw_data_file)
    if changed is not None:
        note(
            f"{changed}: not as it was when {found.train} was prepared from it, which is used all the same; "
            "tools/prepare_criteo.py prepares anew"
        )


def table_rows(settings: Settings, prepared: PreparedData | None) -> tuple[int, ...]:
    """Return the rows of each table: those of the data, or for made-up data those of the flags."""
    max_ind_range = settings.data.max_ind_range
    if prepared is None:
        return settings.model.embedding_rows
    if max_ind_range < 0:
        return tuple(prepared.counts)
    return tuple(min(count, max_ind_range) for count in prepared.counts)


def open_split(settings: Settings, prepared: PreparedData, which: str) -> BinaryFile:
    """Return the train or the test split."""
    data = settings.data
    train = which == "train"
    return BinaryFile(
        path=prepared.train if train else prepared.test,
        rows=prepared.train_rows if train else prepared.test_rows,
        batch_size=data.batch_size if train else data.test_batch_size,
        rows_per_table=table_rows(settings, prepared),
        max_ind_range=data.max_ind_range,
        shuffle_seed=settings.seed if train and data.shuffle_batches else None,
        limit=data.num_batches if train else 0,
        readers=data.readers if train else data.test_readers,
        pin_memory=settings.use_gpu,
    )


def made_up_batches(settings: Settings, stream: np.random.RandomState) -> BatchSource:
    """Return batches that need no file; random ones are drawn from `stream`, which stands behind them then."""
    data = settings.data
    if data.generation == "synthetic":
        return _synthetic_batches(settings)
    return RandomBatches(
        RandomDataSettings(
            samples=random_data_samples(data.data_size, data.num_batches, data.batch_size),
            batch_size=data.batch_size,
            dense_features=settings.model.mlp_bot[0],
            rows_per_table=settings.model.embedding_rows,
            lookups=data.lookups,
            fixed=data.lookups_fixed,
            round_targets=data.round_targets,
            gaussian=None if data.gaussian is None else Gaussian(*data.gaussian),
        ),
        stream,
    )


def _synthetic_batches(settings: Settings) -> SyntheticBatches:
    data, tables = settings.data, settings.model.embedding_rows
    distances = [StackDistances.read(_trace_file(data.trace_file, number)) for number in range(len(tables))]
    for number, (given, rows) in enumerate(zip(distances, tables, strict=True)):
        largest = given.accesses.max()
        if largest >= rows:
            file = _trace_file(data.trace_file, number)
            note(
                f"{file}: accesses up to {largest} are taken modulo the {rows} rows of table {number}, which "
                "changes the distances"
            )
    return SyntheticBatches(
        SyntheticDataSettings(
            samples=random_data_samples(data.data_size, data.num_batches, data.batch_size),
            batch_size=data.batch_size,
            dense_features=settings.model.mlp_bot[0],
            rows_per_table=tables,
            lookups=data.lookups,
            fixed=data.lookups_fixed,
            round_targets=data.round_targets,
            distances=distances,
            padding=data.trace_padding,
            seed=settings.seed,
        )
    )


def _trace_file(pattern: Path, table: int) -> Path:
    """Return the file of a table: a "j" that stands alone in the name is its number."""
    return pattern.with_name(re.sub(r"(?<![A-Za-z0-9])j(?![A-Za-z0-9])", str(table), pattern.name))


def open_splits(settings: Settings, prepared: PreparedData | None, made_up: BatchSource | None) -> Splits:
    """Open the data: the timed part of a run has begun."""
    if prepared is None:
        assert made_up is not None
        return Splits(made_up, None)
    return Splits(open_split(settings, prepared, "train"), open_split(settings, prepared, "test"))
