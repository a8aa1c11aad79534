"""Convert columns of Parquet files to rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlperf.data.columns.arrow_strings import convert_lists, convert_strings
from mlperf.data.columns.arrow_types import as_text, decoded, family, is_list, value_type
from mlperf.data.columns.description import (
    CategoricalColumn,
    ColumnsDescription,
    DenseColumn,
    IdKind,
    LabelColumn,
    SplitByValue,
)
from mlperf.data.columns.fields import NAN_BITS
from mlperf.data.columns.header import LogLayout
from mlperf.data.columns.parse import ParsedColumns
from mlperf.data.columns.plan import TARGET, Column, Texts, all_columns, make_actions
from mlperf.data.text.faults import NOT_INTEGER, OK, OUT_OF_RANGE
from mlperf.util.errors import RunError

_INT32 = np.iinfo(np.int32)


def check_types(path: Path, description: ColumnsDescription, layout: LogLayout, schema: Any) -> None:
    """Raise RunError if a column of a Parquet file has a type that the description does not allow."""
    for (_, column), position in zip(all_columns(description), layout.positions, strict=True):
        if position is None:
            continue
        kind = value_type(schema.field(position).type)
        what, allowed = _allowed(column)
        has_lists = is_list(schema.field(position).type)
        may_be_missing = isinstance(column, DenseColumn | CategoricalColumn)
        is_allowed = family(kind) in allowed or (may_be_missing and family(kind) == "nulls")
        if not is_allowed or (has_lists and not isinstance(column, CategoricalColumn)):
            raise RunError(
                f"{path}: {layout.name(position)} has the type {schema.field(position).type}; {what} must be "
                f"{' or '.join(allowed)}"
            )


def _allowed(column: Column) -> tuple[str, tuple[str, ...]]:
    """Return how messages call a column, and the families of its allowed types."""
    match column:
        case LabelColumn():
            return "a label", ("integers", "text", "booleans")
        case DenseColumn():
            return "a dense column", ("integers", "floats", "decimals", "text", "booleans")
        case CategoricalColumn(kind=IdKind.HEXADECIMAL):
            return "hexadecimal ids", ("text",)
        case CategoricalColumn(kind=IdKind.INTEGER):
            return "integer ids", ("integers", "text")
        case CategoricalColumn():
            return "words", ("text", "integers", "booleans", "dates")
        case SplitByValue():
            return "the column of the split", ("text", "integers", "booleans", "dates")


class ParquetParser:
    """Converts blocks of a Parquet file. Equal values give the rows of a text with these values."""

    def __init__(self, description: ColumnsDescription, layout: LogLayout, *, keeps_negative: bool) -> None:
        self._description = description
        self._layout = layout
        self._keeps_negative = keeps_negative
        self._schema = description.schema
        self._texts = Texts.of(description)
        self._actions = make_actions(description, layout.positions, layout.columns)
        self._missing_numbers = np.array([each for each in map(_number, description.missing) if each is not None])

    def parse(self, block: Any) -> ParsedColumns:
        """Convert the rows of a `ParquetBlock`."""
        batch = block.batch
        count, schema = batch.num_rows, self._schema
        rows = np.zeros((count, schema.columns), np.int32)
        rows[:, 0] = -1
        keys = np.zeros((count, schema.columns - schema.first_id), np.uint64)
        splits = np.zeros(count, np.uint8)
        cut = np.zeros((count, schema.tables), np.bool_)
        by_value = isinstance(self._description.split, SplitByValue)
        reasons: dict[int, npt.NDArray[np.int64]] = {}
        for (_, column), position in zip(all_columns(self._description), self._layout.positions, strict=True):
            if position is None:
                continue
            assert self._layout.names is not None
            values = decoded(batch.column(self._layout.names[position]))
            action = self._actions[position]
            numeric = family(values.type) in ("integers", "floats", "booleans")
            if isinstance(column, DenseColumn) and numeric:
                found, rows[:, action[TARGET]] = self._dense(values, column)
            elif self._is_integer_id(column, values):
                found = np.zeros(count, np.int64)
                self._integer_ids(values, rows[:, action[TARGET]], keys[:, action[TARGET] - schema.first_id])
            elif is_list(values.type):
                found = convert_lists(values, action, self._texts, rows, keys, cut, schema.first_id)
            else:
                found = convert_strings(
                    as_text(values, column),
                    action,
                    self._texts,
                    *(rows, keys, splits, cut, schema.first_id),
                    stores_floats=self._description.stores_floats,
                    keeps_negative=self._keeps_negative,
                )
            if (found != OK).any():
                reasons[position] = found
        kept, faults = _bad_rows(count, reasons)
        return ParsedColumns(
            rows[kept],
            keys[kept],
            splits[kept] if by_value else None,
            np.count_nonzero(cut[kept], axis=0),
            count,
            faults,
        )

    def _is_integer_id(self, column: Column, values: Any) -> bool:
        """Return whether ids are integers that need not be compared with texts of a missing value."""
        return (
            isinstance(column, CategoricalColumn)
            and column.kind is IdKind.INTEGER
            and column.separator is None
            and family(values.type) == "integers"
            and not self._description.missing
        )

    def _integer_ids(self, values: Any, is_id: npt.NDArray[Any], keys: npt.NDArray[Any]) -> None:
        import pyarrow as pa

        wide = pa.uint64() if pa.types.is_unsigned_integer(values.type) else pa.int64()
        is_id[:] = values.is_valid().to_numpy(zero_copy_only=False)
        keys[:] = values.cast(wide).fill_null(0).to_numpy(zero_copy_only=False).view(np.uint64)

    def _dense(self, values: Any, column: DenseColumn) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        """Return the reasons and the stored bits of numbers."""
        import pyarrow as pa

        if pa.types.is_boolean(values.type):
            values = values.cast(pa.int8())
        numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
        missing = np.isnan(numbers) | np.isin(numbers, self._missing_numbers)
        numbers = np.where(missing, 0, numbers)
        reasons = np.zeros(len(numbers), np.int64)
        if column.is_integer:
            reasons[numbers != np.floor(numbers)] = NOT_INTEGER
            reasons[(numbers < _INT32.min) | (numbers > _INT32.max)] = OUT_OF_RANGE
            numbers[reasons != OK] = 0
        if self._description.stores_floats:
            with np.errstate(over="ignore"):
                floats = numbers.astype(np.float32)
            reasons[~np.isfinite(floats)] = OUT_OF_RANGE
            bits = floats.view(np.int32)
            return reasons, np.where(missing, np.int32(NAN_BITS), bits)
        return reasons, (numbers if self._keeps_negative else np.maximum(numbers, 0)).astype(np.int32)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _bad_rows(
    count: int, reasons: dict[int, npt.NDArray[np.int64]]
) -> tuple[slice | npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the numbers of the good rows, and of each of the others the fault in its first column."""
    if not reasons:
        return slice(None), np.empty((0, 4), np.int64)
    first, column = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for position in sorted(reasons, reverse=True):
        bad = reasons[position] != OK
        first[bad], column[bad] = reasons[position][bad], position
    bad = np.flatnonzero(first)
    faults = np.stack([bad, first[bad], column[bad], np.zeros_like(bad)], axis=1)
    return np.flatnonzero(first == OK), faults
