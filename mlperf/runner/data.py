"""Data of a run: a prepared data set (prepared from raw text if missing) or generated batches."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mlperf.benchmarks import dashed
from mlperf.benchmarks.data_sets import TERABYTE_DCNV2
from mlperf.data.binary import BinaryFile
from mlperf.data.columns.description_file import read_description
from mlperf.data.day_files import DayFiles
from mlperf.data.multi_hot import MultiHotShape, MultiHotTables
from mlperf.data.multi_hot_file import multi_hot_tables, verify_tables
from mlperf.data.prepare.open_prepared import open_prepared
from mlperf.data.prepared.dataset import PreparedData, describe_reference
from mlperf.data.prepared.manifest import Manifest
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.data.prepared.reference_files import ReferenceFiles
from mlperf.data.prepared.reference_paths import reference_prefix
from mlperf.data.prepared.verify import verify_checksums
from mlperf.data.row_batches import RowBatches
from mlperf.data.shares import SharedBatches
from mlperf.data.source import BatchSource
from mlperf.data.synthetic.random_batches import RandomBatches
from mlperf.data.synthetic.stack_distances import StackDistances
from mlperf.data.synthetic.synthetic_batches import SyntheticBatches
from mlperf.distributed.agreement import decided_by_first
from mlperf.distributed.processes import current
from mlperf.distributed.turns import first_then_others, once_for_each
from mlperf.runner.data_shape import require_fitting_model, row_source, table_rows
from mlperf.runner.preparation_flags import check_preparation
from mlperf.runner.shared_data import copy_of, copy_of_splits, require_equal_data, same_copy
from mlperf.settings.data import DataSettings
from mlperf.settings.dataset import PreparationSettings
from mlperf.settings.flags import changed_flags
from mlperf.settings.settings import Settings
from mlperf.util.errors import RunError, UsageError
from mlperf.util.threads import available_cores

_GPU_READERS = 4

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Splits:
    """Training and test batches. Generated data has no test split."""

    train: BatchSource
    test: BatchSource | None


def verified_data(
    settings: Settings, splits: Sequence[str], *, before_drawing: Callable[[PreparedData], None] = lambda _: None
) -> PreparedData:
    """Return the prepared data as `prepared_data` does, with `splits` verified if --verify-data asks for that.

    Every process must call it. Data is prepared, and ids are drawn, once on each node, or once in all if the nodes
    share the folder. One of the processes that read the same copy of the data opens and verifies it.

    before_drawing: called before ids are drawn (--multi-hot-sizes), which can take minutes and much of a disk.

    RunError if a split is damaged. UsageError if there are no checksums to compare with, or if the processes have
    different data.
    """
    decided_by_first(lambda: _check_description(settings))
    prepared = first_then_others(lambda: prepared_data(settings.data, settings.given), same_copy)
    require_equal_data(prepared)
    require_fitting_model(settings, prepared.columns, prepared.train)
    if settings.data.verify:
        if not prepared.checksums:
            raise UsageError(
                f"--verify-data: {prepared.train} was prepared by another tool and has no manifest with checksums"
            )
        # The log of a run may say that the page cache was dropped: what is read here must not be in it.
        drop_cache = settings.compliance.cache_cleared
        once_for_each(
            copy_of_splits(prepared, splits), lambda: verify_checksums(prepared, splits, drop_cache=drop_cache)
        )
    before_drawing(prepared)
    return replace(prepared, multi_hot=_multi_hot(settings, prepared))


def _check_description(settings: Settings) -> None:
    """Raise UsageError if the model cannot take rows with the columns of --columns, before these are prepared."""
    path = settings.data.columns
    if path is not None:
        require_fitting_model(settings, read_description(path), path)


def _multi_hot(settings: Settings, prepared: PreparedData) -> MultiHotTables | None:
    """Return the tables that expand the ids (--multi-hot-sizes), drawing them if they are missing.

    None if the ids are used as they are. UsageError if the data has several ids per table already, and other ones.
    """
    multi_hot, reference = settings.data.multi_hot, prepared.reference
    if reference is not None and reference.ids_per_table is not None:
        if multi_hot.sizes != reference.ids_per_table:
            raise UsageError(
                f"{prepared.train}: its rows have several ids per table; pass --multi-hot-sizes="
                f"{dashed(reference.ids_per_table)}"
            )
        for flag, value in changed_flags(multi_hot):
            if flag.name != "--multi-hot-sizes":
                raise UsageError(
                    f"{flag.name}={flag.kind.show(value)}: the rows of {prepared.train} already have several ids "
                    "per table"
                )
        return None
    if multi_hot.sizes is None:
        return None
    shape = MultiHotShape(table_rows(settings, prepared), multi_hot.sizes, multi_hot.distribution)
    prefix = (
        DatasetPaths.from_name(prepared_prefix(settings.data)).prefix if reference is None else reference.prefix
    )
    tables = first_then_others(lambda: multi_hot_tables(shape, prefix, multi_hot.tables_file))
    if settings.data.verify and (file := tables.file) is not None:
        once_for_each(copy_of([file.status]), lambda: verify_tables(file.path))
    return tables


def prepared_prefix(data: DataSettings) -> Path:
    """Return the prefix of the prepared data, which may not exist yet."""
    if data.processed_data_file is not None:
        return data.processed_data_file
    assert data.raw_data_file is not None
    return data.raw_data_file.parent / data.traits.prepared_name


def prepared_data(data: DataSettings, given: Collection[str] = ()) -> PreparedData:
    """Return the prepared data, preparing it from the raw data if it is missing. Errors as of `existing_data`."""
    prepared = existing_data(data, given)
    if prepared is not None:
        return prepared
    # Imported late: importing compiles its numba functions.
    from mlperf.data.prepare.pipeline import prepare

    return prepare(PreparationSettings.of(data, prepared_prefix(data)))


def existing_data(data: DataSettings, given: Collection[str] = ()) -> PreparedData | None:
    """Return the prepared data, None if it is missing. RunError if there is no raw data either.

    given: keys of the flags that were given, which may be those with default values. UsageError if flags of the
    preparation or the raw data contradict the prepared data.
    """
    path = prepared_prefix(data)
    reference = reference_prefix(path)
    if reference is not None:
        prepared: PreparedData | None = describe_reference(ReferenceFiles.read(reference))
    else:
        prepared = open_prepared(path, raw_data_file=data.raw_data_file)
    if prepared is not None:
        check_preparation(prepared, data, given)
        return prepared
    if data.raw_data_file is None:
        raise RunError(f"{path}: no prepared data found, and no --raw-data-file to prepare it from")
    return None


def reading_threads(settings: Settings, *, train: bool) -> int:
    """Return the number of threads with which this process reads ahead, training or test batches.

    One thread is too slow for a GPU. Processes of one node share its cores.
    """
    processes, default = current().local_size, _GPU_READERS if settings.use_gpu else 1
    if processes > 1:
        default = max(1, min(default, available_cores() // processes))
    return settings.data.readers(default) if train else settings.data.test_readers(default)


def open_split(
    settings: Settings, prepared: PreparedData, split: str, *, is_evaluated: bool = False
) -> RowBatches:
    """Return the batches of a split: "train", "test" or "val". RunError if a file has changed or has no rows.

    is_evaluated: whether training rows are also read like test rows: all, in the order of the file, in test
    batches.
    """
    data = settings.data
    train = split == "train" and not is_evaluated
    if not prepared.rows(split):
        raise RunError(f"{prepared.split(split)}: the split {split} has no rows")
    batch_size = data.batch_size if train else data.test_batch_size
    shuffle_seed = settings.seed if train and data.shuffle_batches else None
    limit = data.num_batches if train else 0
    readers = reading_threads(settings, train=train)
    if prepared.reference is not None:
        return DayFiles(
            folder=prepared.split(split),
            reader=prepared.reference.open(split),
            batch_size=batch_size,
            rows_per_table=table_rows(settings, prepared),
            shuffle_seed=shuffle_seed,
            limit=limit,
            readers=readers,
            pin_memory=settings.use_gpu,
            multi_hot=prepared.multi_hot,
            processes=current(),
        )
    source = row_source(settings, prepared, prepared.split(split))
    return BinaryFile(
        path=source.path,
        rows=prepared.rows(split),
        batch_size=batch_size,
        rows_per_table=source.rows_per_table,
        max_ind_range=source.max_ind_range,
        shuffle_seed=shuffle_seed,
        limit=limit,
        readers=readers,
        pin_memory=settings.use_gpu,
        schema=source.schema,
        expected=prepared.statuses.get(split),
        dense=source.dense,
        modulo_rows=source.modulo_rows,
        multi_hot=prepared.multi_hot,
        processes=current(),
    )


def data_set_of(processed_data_file: Path) -> str | None:
    """Return the value of --data-set with which data was prepared, None if another tool did it.

    RunError if its manifest is damaged.
    """
    if reference_prefix(processed_data_file) is not None:
        return TERABYTE_DCNV2.name
    manifest = Manifest.read(DatasetPaths.from_name(processed_data_file).manifest)
    return None if manifest is None or manifest.adopted else str(manifest.flags["data_set"])


def generated_batches(settings: Settings, stream: np.random.RandomState) -> BatchSource:
    """Return random or synthetic batches. Random batches advance `stream` past the last target."""
    data, architecture = settings.data, settings.model.architecture
    dense_features, rows = architecture.mlp_bot[0], architecture.rows_per_table
    if data.generated.fixed_lookups and data.generated.lookups > 1:
        _log.info(
            "--num-indices-per-lookup-fixed: %d ids are drawn per table and sample; equal ids count once, so that "
            "a sample can have fewer",
            data.generated.lookups,
        )
    whole: RandomBatches | SyntheticBatches
    if data.generation == "random":
        whole = RandomBatches(data, dense_features=dense_features, rows_per_table=rows, stream=stream)
    else:
        distances = _stack_distances(data.generated.trace_file, rows)
        whole = SyntheticBatches(data, dense_features=dense_features, rows_per_table=rows, distances=distances)
    return SharedBatches(whole, current()) if current().size > 1 else whole


def _stack_distances(trace_file: Path, rows_per_table: Sequence[int]) -> list[StackDistances]:
    """Return the distribution of each table; warn if it has more ids than the table has rows."""
    distributions = []
    for table, rows in enumerate(rows_per_table):
        file = _trace_file(trace_file, table)
        distances = StackDistances.read(file)
        largest = distances.accesses.max()
        if largest >= rows:
            _log.warning(
                "%s: accesses up to %d are taken modulo the %d rows of table %d, which changes the distances",
                *(file, largest, rows, table),
            )
        distributions.append(distances)
    return distributions


def trace_files(settings: Settings) -> list[Path]:
    """Return the files with the stack distances of all tables (--data-trace-file)."""
    tables = len(settings.model.architecture.rows_per_table)
    return [_trace_file(settings.data.generated.trace_file, table) for table in range(tables)]


def _trace_file(pattern: Path, table: int) -> Path:
    """Return the file of a table: a standalone "j" in the file name is replaced by the table number."""
    return pattern.with_name(re.sub(r"(?<![A-Za-z0-9])j(?![A-Za-z0-9])", str(table), pattern.name))


def open_splits(settings: Settings, prepared: PreparedData) -> Splits:
    """Open both splits of a data set. This is part of the timed run."""
    return Splits(open_split(settings, prepared, "train"), open_split(settings, prepared, "test"))
