"""Models of random shapes, and batches and optimizers for them, to compare the engines on."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from mlperf.data.batch import Batch
from mlperf.engines.autograd.step import AutogradStep
from mlperf.engines.cpu.step import CpuStep
from mlperf.engines.warm_up import bag_offsets
from mlperf.models import make
from mlperf.models.dlrm import Architecture, DLRM_Net
from mlperf.models.initialization import initialize
from mlperf.optim.adagrad import Adagrad
from mlperf.optim.optimizer import Optimizer, make_optimizer

CPU = torch.device("cpu")
SEED = (1 << 32) + 7  # of the stochastic rounding
EARLIER_STEPS = 3  # of `make_trained_optimizer`


def make_model(architecture: Architecture) -> DLRM_Net:
    model = make.make_model(architecture, CPU)
    initialize(model, np.random.RandomState(1), mlp_init="normal", embedding_init="numpy", seed=0)
    return model


def make_batch(size: int, rows_per_table: tuple[int, ...], stream: np.random.Generator) -> Batch:
    ids = np.stack([stream.integers(0, rows, size) for rows in rows_per_table])
    return Batch(
        torch.from_numpy(stream.random((size, 13), np.float32) * 5),
        torch.from_numpy(ids),
        None,
        torch.from_numpy((stream.random((size, 1)) < 0.3).astype(np.float32)),
    )


def make_bag_batch(
    size: int, rows_per_table: tuple[int, ...], ids_per_table: tuple[int, ...], stream: np.random.Generator
) -> Batch:
    """Return a batch with `ids_per_table` ids of each table and sample. A bag may have an id more than once."""
    one = make_batch(size, rows_per_table, stream)
    ids = np.concatenate(
        [stream.integers(0, rows, size * count) for rows, count in zip(rows_per_table, ids_per_table, strict=True)]
    )
    offsets = bag_offsets(ids_per_table, size, CPU)
    return Batch(one.dense, torch.from_numpy(ids), offsets, one.labels, ids_per_table)


def random_architecture(stream: np.random.Generator, **chosen: object) -> Architecture:
    dimension = int(stream.choice([1, 4, 16, 20, 33, 64, 128]))
    widths = stream.integers(1, 90, 4).tolist()
    return Architecture(
        rows_per_table=tuple(stream.choice([1, 3, 50, 5000], stream.integers(1, 28)).tolist()),
        dimension=dimension,
        mlp_bot=(13, *widths[: stream.integers(0, 3)], dimension),
        mlp_top=(*widths[: stream.integers(0, 4)], 1),
        interaction_itself=bool(stream.integers(2)),
        **chosen,  # type: ignore[arg-type]
    )


def make_trained_optimizer(name: str, model: DLRM_Net) -> Optimizer:
    """Return an optimizer that has taken steps before: sums of squares between 0.01 and 1.

    With sums of 0, the first step of Adagrad has the size of the learning rate even where a gradient consists of
    nothing but rounding errors.
    """
    optimizer = make_optimizer(name, model, seed=SEED)
    optimizer.steps = EARLIER_STEPS
    generator = torch.Generator().manual_seed(SEED)
    if isinstance(optimizer, Adagrad):
        for sums in (*optimizer.dense_sums, *optimizer.row_tensors()):
            sums.copy_(0.01 + 0.99 * torch.rand(sums.shape, generator=generator))
    return optimizer


def sums_of(optimizer: Optimizer) -> list[torch.Tensor]:
    """Return Adagrad's sums; none for SGD."""
    return [sums for _, state in (*optimizer.dense_state(), *optimizer.row_state()) for sums in state.values()]


def assert_same_training(
    fast: CpuStep, general: AutogradStep, *, rtol: float, atol: float, sums_atol: float
) -> None:
    """Compare losses, weights and Adagrad's sums, for which `sums_atol` replaces `atol`."""
    torch.testing.assert_close(fast.sums.both, general.sums.both, rtol=1e-5, atol=0)
    expected = general.model.state_dict()
    for name, value in fast.model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=rtol, atol=atol, msg=partial("{}: {}".format, name))
    for sums, other in zip(sums_of(fast.optimizer), sums_of(general.optimizer), strict=True):
        torch.testing.assert_close(sums, other, rtol=rtol, atol=sums_atol)
