"""Models and batches for the tests of the GPU engine, which run in Triton's interpreter if there is no GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from small_models import CPU, make_model, make_trained_optimizer

from mlperf.data.batch import Batch, RawBatch, RowSource
from mlperf.data.schema import CRITEO
from mlperf.engines.autograd.step import AutogradStep
from mlperf.engines.gpu.limits import unsupported_size
from mlperf.engines.gpu.step import GpuStep
from mlperf.engines.warm_up import bag_offsets
from mlperf.models import make
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.loss import Loss
from mlperf.settings.model import Architecture

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TINY = Architecture((3, 50, 5000), 16, (CRITEO.dense_features, 20, 16), (24, 10, 1))


def on_device(model: DLRM_Net) -> DLRM_Net:
    """Return a model with the same weights on the device that runs the kernels."""
    moved = make.make_model(model.architecture, DEVICE)
    moved.load_state_dict(model.state_dict())
    return moved


def make_gpu_step(
    model: DLRM_Net,
    loss: Loss | None = None,
    precision: str = "fp32",
    max_ind_range: int = -1,
    optimizer: str = "sgd",
    ids_per_table: tuple[int, ...] | None = None,
) -> GpuStep:
    """Return a GPU step, with binary cross-entropy unless another loss is given."""
    assert unsupported_size(model) is None
    trained = make_trained_optimizer(optimizer, model)
    return GpuStep(model, loss or Loss("bce"), trained, precision, max_ind_range, ids_per_table)


def both_steps(
    architecture: Architecture,
    loss: Loss | None = None,
    precision: str = "fp32",
    max_ind_range: int = -1,
    *,
    optimizer: str = "sgd",
    last_layer_scale: float = 1.0,
    ids_per_table: tuple[int, ...] | None = None,
) -> tuple[AutogradStep, GpuStep]:
    """Return an autograd step in float32 on the CPU and a GPU step, with equal weights.

    last_layer_scale: factor of the last layer's parameters. A small one keeps the probabilities near 0.5: where
    they are clipped, the gradients are 0, and where a step changes them much, so do rounding errors.
    """
    model = make_model(architecture)
    for parameter in model.top_l[-2].parameters():
        parameter.data *= last_layer_scale
    general = AutogradStep(model, loss or Loss("bce"), make_trained_optimizer(optimizer, model), "fp32")
    return general, make_gpu_step(on_device(model), loss, precision, max_ind_range, optimizer, ids_per_table)


def random_rows(size: int, rows_per_table: tuple[int, ...], stream: np.random.Generator) -> np.ndarray:
    """Return rows of the Criteo binary file, int32 [B, 40], with uniformly distributed ids."""
    rows = np.zeros((size, CRITEO.columns), np.int32)
    rows[:, 0] = stream.random(size) < 0.3
    rows[:, CRITEO.dense_columns] = stream.integers(-3, 1000, (size, CRITEO.dense_features))
    for table, count in enumerate(rows_per_table):
        rows[:, CRITEO.first_id + table] = stream.integers(0, count, size)
    return rows


def raw_batch(rows: np.ndarray, rows_per_table: tuple[int, ...], max_ind_range: int = -1) -> RawBatch:
    """Return an undecoded batch, in pinned memory if there is a GPU."""
    tensor = torch.from_numpy(rows)
    source = RowSource(Path("rows.bin"), rows_per_table, max_ind_range)
    return RawBatch(tensor.pin_memory() if DEVICE.type == "cuda" else tensor, 0, source)


def both_batches(
    size: int, rows_per_table: tuple[int, ...], stream: np.random.Generator, max_ind_range: int = -1
) -> tuple[Batch, RawBatch]:
    """Return the same samples decoded, for the autograd step, and undecoded, for the GPU step."""
    rows = random_rows(size, rows_per_table, stream)
    ids = rows[:, CRITEO.id_columns][:, : len(rows_per_table)]
    indices = ids.T.astype(np.int64)
    if max_ind_range > 0:  # add a random multiple, which the modulus removes
        ids += max_ind_range * stream.integers(-2, 3, ids.shape, np.int32)
    dense = np.log(1 + np.maximum(rows[:, CRITEO.dense_columns], 0).astype(np.float32))
    labels = rows[:, :1].astype(np.float32)
    batch = Batch(torch.from_numpy(dense), torch.from_numpy(indices), None, torch.from_numpy(labels))
    return batch, raw_batch(rows, rows_per_table, max_ind_range)


def both_bag_batches(
    size: int,
    rows_per_table: tuple[int, ...],
    ids_per_table: tuple[int, ...],
    stream: np.random.Generator,
) -> tuple[Batch, RawBatch]:
    """Return the same samples with several ids per table, decoded and undecoded. Half of a bag is one id."""
    batch, raw = both_batches(size, rows_per_table, stream)
    bags = []
    for rows, count in zip(rows_per_table, ids_per_table, strict=True):
        drawn = stream.integers(0, rows, (size, count))
        drawn[:, : count // 2] = drawn[:, :1]
        bags.append(torch.from_numpy(drawn.flatten()))
    indices = torch.cat(bags)
    decoded = Batch(batch.dense, indices, bag_offsets(ids_per_table, size, CPU), batch.labels, ids_per_table)
    ids = indices.int()
    return decoded, replace(raw, ids=ids.pin_memory() if DEVICE.type == "cuda" else ids)


def assert_equal_steps(general: AutogradStep, fast: GpuStep) -> None:
    """Compare the sums, the weights and the state of the optimizers after the same batches."""
    torch.testing.assert_close(fast.sums.both.cpu(), general.sums.both, rtol=1e-5, atol=0)
    expected = general.model.state_dict()
    for name, value in fast.model.state_dict().items():
        if value.dtype == torch.float32:
            difference = f"{name} differs by {float((value.cpu() - expected[name]).abs().max()):.1e}"
            assert torch.allclose(value.cpu(), expected[name], rtol=2e-4, atol=1e-5), difference
        else:
            assert_equally_rounded(value.cpu(), expected[name])
    found, wanted = fast.optimizer.state_dict(), general.optimizer.state_dict()
    assert found["param_groups"] == wanted["param_groups"]
    torch.testing.assert_close(found["state"], wanted["state"], rtol=1e-3, atol=1e-6, check_device=False)


def assert_equally_rounded(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Compare values in 16 bits, rounded from float32 values that differ by the order of their additions."""
    difference = distances(found, expected)
    assert int(difference.max()) <= 1, "more than one unit in the last place"
    assert float((difference > 0).float().mean()) < 0.01


def distances(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Return how many floating-point numbers of 16 bits lie between each value and the expected one."""
    return (_ranks(found) - _ranks(expected)).abs()


def _ranks(values: torch.Tensor) -> torch.Tensor:
    """Return the positions of floating-point numbers of 16 bits on the number line."""
    pattern = values.view(torch.int16).int()
    return torch.where(pattern < 0, -(pattern & 0x7FFF), pattern)
