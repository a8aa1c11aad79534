"""Training steps of any engine on the golden data, and their whole weights, collected from the processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mlperf.data.criteo.days import TRAINING_SPLITS
from mlperf.engines.choose import make_step
from mlperf.engines.protocol import TrainingStep
from mlperf.models.dlrm import DLRM_Net
from mlperf.optim.optimizer import Optimizer, make_optimizer
from mlperf.runner.data import Splits, open_splits, verified_data
from mlperf.runner.memory import RunSizes
from mlperf.runner.model import architecture_of, build_model, fill_weights
from mlperf.settings.from_flags import parse
from mlperf.util.divided_tensor import parts_here

# The parts of a tensor that one process has: shape of the whole, and first elements and values of each part.
Parts = tuple[tuple[int, ...], list[tuple[tuple[int, ...], np.ndarray]]]


@dataclass(frozen=True)
class Started:
    """A step with its model and optimizer, and the data."""

    step: TrainingStep
    model: DLRM_Net
    optimizer: Optimizer
    splits: Splits


def start(flags: Sequence[str]) -> Started:
    """Return the step of a run with these flags, with initial weights."""
    settings = parse(flags)
    prepared = verified_data(settings, TRAINING_SPLITS)
    architecture = architecture_of(settings, prepared)
    model = build_model(settings, architecture, torch.device("cpu"), RunSizes.of(settings, prepared))
    training = settings.training
    optimizer = make_optimizer(training.optimizer, model, settings.seed, training.adagrad_epsilon)
    fill_weights(settings, model, np.random.RandomState(settings.seed), prepared, optimizer)
    return Started(make_step(model, settings, optimizer), model, optimizer, open_splits(settings, prepared))


def parts_of(started: Started) -> dict[str, Parts]:
    """Return what this process has of the weights and of the state of the optimizer."""
    tensors: dict[str, torch.Tensor] = dict(started.model.state_dict())
    for number, state in started.optimizer.state_dict()["state"].items():
        tensors |= {f"{number}.{name}": tensor for name, tensor in state.items()}
    return {
        name: (
            tuple(tensor.shape),
            [(part.offsets, part.values.detach().numpy().copy()) for part in parts_here(tensor)],
        )
        for name, tensor in tensors.items()
    }


def joined(by_rank: Sequence[Mapping[str, Parts]]) -> dict[str, np.ndarray]:
    """Return the whole tensors. AssertionError if an element is missing, or differs between processes."""
    whole = {}
    for name, (shape, _) in by_rank[0].items():
        whole[name] = np.full(shape, np.nan, np.float32)
        for rank in by_rank:
            for offsets, values in rank[name][1]:
                place = tuple(
                    slice(start, start + size) for start, size in zip(offsets, values.shape, strict=True)
                )
                known = ~np.isnan(whole[name][place])
                assert np.array_equal(whole[name][place][known], values[known]), f"{name} differs between ranks"
                whole[name][place] = values
        assert not np.isnan(whole[name]).any(), f"{name} has elements that no process stores"
    return whole
