"""The engines on data with columns of its own: any dense columns and tables, several ids per table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from own_data import DENSE, INTEGERS, SEVERAL, SINGLE, Trained, train_steps, write_own_data

from mlperf.data.columns.description import DenseColumn
from mlperf.engines.autograd.step import AutogradStep
from mlperf.engines.cpu.step import CpuStep
from mlperf.engines.gpu.step import GpuStep

DCN = ("--arch-interaction-op=dcn", "--dcn-num-layers=2", "--dcn-low-rank-dim=8", "--optimizer=adagrad")

Ids = tuple[tuple[int, int], ...]
CASES: dict[str, tuple[tuple[DenseColumn, ...], Ids, tuple[str, ...]]] = {
    "floats": (DENSE, SINGLE, ()),
    "integers": (INTEGERS, SINGLE, ("--optimizer=adagrad",)),
    "no dense feature": ((), SINGLE, ()),
    "no dense feature, dcn": ((), SINGLE, DCN),
    "one table": (DENSE, SINGLE[:1], ()),
    "several ids": (DENSE, SEVERAL, DCN),
    "several ids of integers": (INTEGERS, SEVERAL, (*DCN, "--embedding-precision=bf16")),
    "several ids, dot": (DENSE, SEVERAL, ()),
    "several ids, dot with adagrad": (DENSE, SEVERAL, ("--optimizer=adagrad",)),
    "many columns": (DENSE * 7, SINGLE * 12, DCN),
}


def assert_equal(found: Trained, expected: Trained) -> None:
    assert found.losses == pytest.approx(expected.losses, abs=2e-5)
    assert found.auc == pytest.approx(expected.auc, abs=1e-3)
    weights = expected.model.state_dict()
    for name, value in found.model.state_dict().items():
        if value.dtype == torch.float32:
            torch.testing.assert_close(value.cpu(), weights[name], rtol=2e-4, atol=2e-5, msg=name)


# The loops of the dot products are compiled for each number of tables.
@pytest.mark.parametrize("case", sorted(CASES.keys() - {"one table", "integers"}))
def test_cpu_engine_trains_like_autograd(case: str, tmp_path: Path) -> None:
    dense, ids, flags = CASES[case]
    prepared = write_own_data(tmp_path, dense, ids)
    expected = train_steps(prepared, *flags, "--engine=autograd")
    found = train_steps(prepared, *flags, "--engine=cpu")
    assert isinstance(expected.step, AutogradStep)
    assert isinstance(found.step, CpuStep)
    assert_equal(found, expected)
    assert expected.losses[-1] != expected.losses[0]


# Triton's interpreter takes a second for a case.
@pytest.mark.parametrize(
    "case",
    [
        *("floats", "no dense feature", "one table", "several ids of integers"),
        *("several ids, dot with adagrad", "many columns"),
    ],
)
def test_kernels_of_the_gpu_engine_train_like_autograd(case: str, tmp_path: Path) -> None:
    dense, ids, flags = CASES[case]
    prepared = write_own_data(tmp_path, dense, ids, {"train": 32, "test": 30, "val": 0})
    small = ("--mini-batch-size=8", "--test-mini-batch-size=30")
    expected = train_steps(prepared, *flags, *small, "--engine=autograd", steps=2)
    found = train_steps(prepared, *flags, *small, "--engine=gpu", "--use-gpu", steps=2)
    assert isinstance(found.step, GpuStep)
    assert_equal(found, expected)


@pytest.mark.parametrize("case", ["floats", "no dense feature", "several ids", "several ids, dot"])
def test_cpu_engine_trains_in_bfloat16(case: str, tmp_path: Path) -> None:
    dense, ids, flags = CASES[case]
    prepared = write_own_data(tmp_path, dense, ids)
    expected = train_steps(prepared, *flags, "--engine=autograd", "--precision=bf16", steps=3)
    found = train_steps(prepared, *flags, "--engine=cpu", "--precision=bf16", steps=3)
    assert found.losses == pytest.approx(expected.losses, abs=5e-3)


@pytest.mark.parametrize(("dense", "ids"), [(DENSE, SINGLE), ((), SEVERAL)])
def test_fast_engine_is_chosen(dense: tuple[DenseColumn, ...], ids: Ids, tmp_path: Path) -> None:
    prepared = write_own_data(tmp_path, dense, ids)
    found = train_steps(prepared, "--optimizer=adagrad", steps=1)
    assert isinstance(found.step, CpuStep)
