"""Rows in memory are scored like those of a file, also by the GPU's kernels, which run in Triton's interpreter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gpu_models import on_device, random_rows
from small_models import make_model

from mlperf.data.batch import RowSource
from mlperf.data.memory_rows import MemoryRows
from mlperf.data.schema import CRITEO
from mlperf.engines.autograd.scorer import AutogradScorer
from mlperf.engines.gpu.scorer import GpuScorer
from mlperf.evaluation.evaluate import scores_of
from mlperf.settings.model import Architecture
from mlperf.util.errors import RunError

ARCHITECTURE = Architecture((50,) * CRITEO.tables, 16, (CRITEO.dense_features, 20, 16), (24, 10, 1))


def memory_rows(rows: np.ndarray) -> MemoryRows:
    return MemoryRows(rows, RowSource(Path("predict"), ARCHITECTURE.rows_per_table), batch_size=16)


def test_gpu_kernels_score_rows_in_memory_like_autograd() -> None:
    model = make_model(ARCHITECTURE)
    rows = random_rows(40, ARCHITECTURE.rows_per_table, np.random.default_rng(0))
    expected, _ = scores_of(AutogradScorer(model, "fp32"), memory_rows(rows))
    gpu = GpuScorer(on_device(model), "fp32", max_ind_range=-1)
    found, labels = scores_of(gpu, memory_rows(rows))
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-6)
    assert labels.cpu().tolist() == rows[:, 0].tolist()
    rows[33, CRITEO.first_id + 6] = 77
    with pytest.raises(
        RunError, match=r"^predict: ids: row 34, column 7: index 77 is not in table 6, which has 50"
    ):
        scores_of(gpu, memory_rows(rows))


@pytest.mark.parametrize(("column", "place"), [(0, "labels: row 3: label 5 is not"), (14, "ids: row 3, column 1")])
def test_invalid_value_is_named_by_its_array(column: int, place: str) -> None:
    rows = random_rows(4, ARCHITECTURE.rows_per_table, np.random.default_rng(0))
    rows[2, column] = 5 if column == 0 else -1
    with pytest.raises(RunError, match=f"^predict: {place}"):
        scores_of(AutogradScorer(make_model(ARCHITECTURE), "fp32"), memory_rows(rows))
