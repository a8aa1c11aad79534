"""What a model must fit in a data set: its tables, its ids and its dense features."""

from __future__ import annotations

from pathlib import Path

from mlperf.benchmarks.data_sets import DataSetTraits
from mlperf.data.batch import RowSource
from mlperf.data.columns.description import ColumnsDescription, DenseColumn, Transform
from mlperf.data.prepared.dataset import PreparedData
from mlperf.data.schema import CRITEO, LOG1P, MAX_TABLE_ROWS, DenseFormat, DenseTransform
from mlperf.settings.settings import Settings
from mlperf.util.errors import UsageError
from mlperf.util.plural import counted


def require_fitting_model(settings: Settings, columns: ColumnsDescription, where: Path) -> None:
    """Raise UsageError if the model of the flags cannot take rows with these columns. where: for the message."""
    first, features = settings.model.architecture.mlp_bot[0], len(columns.dense)
    if first != features:
        raise UsageError(
            f"--arch-mlp-bot starts with {first}, but {where} has {counted(features, 'dense feature')}: it must "
            f"start with {features}"
        )
    if not columns.categorical:
        raise UsageError(f"{where}: has no categorical column; the model needs at least one")


def ids_per_table(settings: Settings, prepared: PreparedData | None) -> tuple[int, ...] | None:
    """Return the number of ids of each table in a sample; None if it is one, or for generated data."""
    if prepared is None or settings.data.multi_hot.sizes is not None:
        return settings.data.multi_hot.sizes
    return None if prepared.schema.is_one_hot else prepared.schema.ids_per_table


def table_rows(settings: Settings, prepared: PreparedData | None) -> tuple[int, ...]:
    """Return the rows of each table: from the data set or, for generated data, from the flags.

    If the ids are taken modulo the rows when they are read, the flags may give them. UsageError if they must,
    because the data does not say how many ids there are, or if two flags do.
    """
    max_ind_range, given = settings.data.max_ind_range, settings.model.architecture.rows_per_table
    if prepared is None:
        return given
    if settings.data.traits.limits_rows and "arch_embedding_size" in settings.given:
        if len(given) != CRITEO.tables:
            raise UsageError(
                f"--arch-embedding-size has {len(given)} numbers, but Criteo data has {CRITEO.tables} tables"
            )
        if max(given) > MAX_TABLE_ROWS:
            raise UsageError(
                f"--arch-embedding-size has {max(given)} rows, but ids of a data set have 32 bits: allowed are up "
                f"to {MAX_TABLE_ROWS} for a table"
            )
        if max_ind_range > 0:
            raise UsageError(
                f"--max-ind-range={max_ind_range} cannot be combined with --arch-embedding-size, which gives the "
                "rows of each table"
            )
        return given
    if not prepared.counts:
        raise UsageError(
            f"{prepared.train}: does not say how many ids each table has; pass --arch-embedding-size with "
            f"{CRITEO.tables} numbers of rows"
        )
    if max_ind_range < 0:
        return prepared.table_rows
    return tuple(min(rows, max_ind_range) for rows in prepared.table_rows)


def row_source(settings: Settings, prepared: PreparedData, path: Path) -> RowSource:
    """Return what is valid in rows with the layout of the prepared files, and how they are decoded.

    path: what they come from, for messages.
    """
    traits, is_reference = settings.data.traits, prepared.reference is not None
    return RowSource(
        path,
        table_rows(settings, prepared),
        -1 if traits.limits_rows else settings.data.max_ind_range,
        prepared.schema,
        dense=DenseFormat(is_float=True) if is_reference else _dense_format(prepared, traits),
        modulo_rows=traits.limits_rows,
    )


def _dense_format(prepared: PreparedData, traits: DataSetTraits) -> DenseFormat:
    """Return the format of the dense features of prepared data. traits: of --data-set.

    With negative integers, of which m is the smallest: ln(x - m + 2). TorchRec's is the same. Criteo's smallest
    integer is -1: without a manifest, that is assumed.
    """
    columns = prepared.columns
    if columns.stores_floats:
        count = len(columns.dense)
        values = zip(prepared.means or (0.0,) * count, prepared.deviations or (1.0,) * count, strict=True)
        return DenseFormat(
            is_float=True,
            transforms=tuple(
                _transform(column, mean, deviation)
                for column, (mean, deviation) in zip(columns.dense, values, strict=True)
            ),
        )
    if not traits.keeps_negative:
        return LOG1P
    smallest = min(-1, prepared.smallest_integer or 0)
    return DenseFormat(smallest, 2 - smallest)


def _transform(column: DenseColumn, mean: float, deviation: float) -> DenseTransform:
    if column.transform is Transform.STANDARDIZE:
        return DenseTransform(mean=mean, deviation=deviation or 1.0)
    return DenseTransform(is_log=column.transform is Transform.LOG1P)
