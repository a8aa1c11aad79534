"""The layout of a row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mlperf.data.batch import RowSource
from mlperf.data.binary import BinaryFile
from mlperf.data.schema import CRITEO, RowSchema


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


def test_several_ids_per_table_are_refused_where_they_are_not_supported() -> None:
    with pytest.raises(ValueError, match="RowSource supports one id per table"):
        RowSource(Path("x.bin"), (3, 3), schema=RowSchema(2, (1, 4)))
