"""The layout of a row."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from mlperf.data.batch import Batch
from mlperf.data.binary import BinaryFile
from mlperf.data.schema import CRITEO, DenseFormat, DenseTransform, RowSchema
from mlperf.util.errors import RunError


def test_criteo_rows_have_a_label_13_integers_and_26_ids_of_4_bytes_each() -> None:
    assert (CRITEO.dense_features, CRITEO.tables, CRITEO.columns, CRITEO.row_bytes) == (13, 26, 40, 160)
    assert (CRITEO.first_id, CRITEO.dense_columns, CRITEO.id_columns) == (14, slice(1, 14), slice(14, 40))
    assert CRITEO.is_one_hot


def test_row_has_all_ids_of_a_table_one_after_the_other() -> None:
    schema = RowSchema(dense_features=2, ids_per_table=(3, 1, 5))
    assert (schema.tables, schema.first_id, schema.columns, schema.row_bytes) == (3, 3, 12, 48)
    assert not schema.is_one_hot


@pytest.mark.parametrize(("dense_features", "ids_per_table"), [(-1, (1,)), (2, (1, 0))])
def test_invalid_layout_is_refused(dense_features: int, ids_per_table: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        RowSchema(dense_features, ids_per_table)


def test_binary_file_of_another_layout_is_read(tmp_path: Path) -> None:
    rows = np.array([[1, 5, 0, 1, 2], [0, -3, 7, 0, 0], [1, 0, 0, 2, 1]], "<i4")
    rows.tofile(tmp_path / "x.bin")
    source = BinaryFile(tmp_path / "x.bin", 3, 2, (3, 3), schema=RowSchema(2, (1, 1)))
    first, last = source.batches(0)
    assert torch.equal(torch.cat((first.labels, last.labels))[:, 0], torch.tensor([1.0, 0.0, 1.0]))
    assert torch.equal(torch.cat((first.indices, last.indices), 1), torch.tensor([[1, 0, 2], [2, 0, 1]]))
    torch.testing.assert_close(
        torch.cat((first.dense, last.dense)), torch.tensor(np.log1p(rows[:, 1:3].clip(0))).float()
    )


def write_rows(path: Path, *columns: list[float] | list[int]) -> int:
    """Write rows of int32 and float32 columns, in the order of the columns, and return their number."""
    parts = [np.array(each, "<f4" if isinstance(each[0], float) else "<i4").view("<i4") for each in columns]
    np.stack(parts, 1).tofile(path)
    return len(parts[0])


def test_float_columns_are_transformed_each_in_its_own_way(tmp_path: Path) -> None:
    values = [[0.5, -2.0, 1e-9, math.nan], [1.0, 3.0, math.nan, 5.0], [-7.25, math.nan, 0.0, 1e30]]
    rows = write_rows(tmp_path / "x.bin", [0, 1, 0, 1], *values, [0, 0, 0, 0])
    transforms = (DenseTransform(is_log=True), DenseTransform(mean=2.0, deviation=0.5), DenseTransform())
    form = DenseFormat(is_float=True, transforms=transforms)
    source = BinaryFile(tmp_path / "x.bin", rows, 3, (1,), schema=RowSchema(3, (1,)), dense=form)
    dense = torch.cat([batch.dense for batch in source.batches(0)])
    expected = [[math.log(1.5), -2.0, -7.25], [0, 2, 0], [math.log1p(1e-9), 0, 0], [0, 6, 1e30]]
    torch.testing.assert_close(dense, torch.tensor(expected), rtol=1e-6, atol=0)


@pytest.mark.parametrize("readers", ["batches", "raw_batches"])
def test_several_ids_of_a_row_are_ordered_by_table(tmp_path: Path, readers: str) -> None:
    columns = ([0, 1, 1], [5, 6, 7], [1, 2, 3], [4, 0, 4], [0, 1, 0], [2, 0, 1])
    rows = write_rows(tmp_path / "x.bin", *columns)
    source = BinaryFile(tmp_path / "x.bin", rows, 2, (5, 2, 3), schema=RowSchema(1, (2, 1, 1)))
    assert source.ids_per_table == (2, 1, 1)
    first, last = getattr(source, readers)(0)
    if isinstance(first, Batch):
        assert first.indices.tolist() == [1, 4, 2, 0, 0, 1, 2, 0]
        assert first.offsets is not None
        assert (first.offsets.tolist(), first.ids_per_table) == ([[0, 2], [4, 5], [6, 7]], (2, 1, 1))
        assert last.indices.tolist() == [3, 4, 0, 1]
        assert first.dense[:, 0].tolist() == pytest.approx([math.log(6), math.log(7)])
    else:
        assert (first.ids.tolist(), last.ids.tolist()) == ([1, 4, 2, 0, 0, 1, 2, 0], [3, 4, 0, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((2, 5, 2), "row 3, column 6: index 2 is not in table 1, which has 2 rows"),
        ((1, 4, -1), "row 2, column 5: index -1 is not in table 0, which has 5 rows"),
        ((1, 0, 2), "row 2, column 1: label 2 is not 0 or 1"),
        ((2, 2, 0x7F800000), "row 3, column 3: the dense feature inf is not a finite number"),
    ],
)
def test_invalid_value_of_a_row_is_named_by_row_and_column(
    tmp_path: Path, change: tuple[int, int, int], message: str
) -> None:
    path = tmp_path / "x.bin"
    write_rows(path, [0, 1, 1], [0.5, 0.5, 0.5], [1.0, 2.0, 3.0], [4, 0, 4], [2, 0, 1], [0, 1, 0], [2, 2, 0])
    row, column, value = change
    stored = np.memmap(path, "<i4", "r+", shape=(3, 7))
    stored[row, column] = value
    stored.flush()
    form = DenseFormat(is_float=True, transforms=(DenseTransform(is_log=True), DenseTransform()))
    source = BinaryFile(path, 3, 1, (5, 2, 3), schema=RowSchema(2, (2, 1, 1)), dense=form)
    with pytest.raises(RunError, match=re.escape(f"{path}: {message}")):
        list(source.batches(0))


def test_rows_may_have_no_dense_feature(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "x.bin", [0, 1, 1], [2, 1, 0])
    source = BinaryFile(tmp_path / "x.bin", rows, 2, (3,), schema=RowSchema(0, (1,)))
    batches = list(source.batches(0))
    assert [batch.dense.shape for batch in batches] == [(2, 0), (1, 0)]
    assert torch.cat([batch.indices for batch in batches], 1).tolist() == [[2, 1, 0]]
