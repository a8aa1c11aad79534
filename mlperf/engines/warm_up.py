"""Warm-up before the timed part of a run."""

from __future__ import annotations

import torch

from mlperf.data.batch import Batch
from mlperf.engines.protocol import TrainingStep
from mlperf.evaluation.metrics import binary_metrics
from mlperf.models.dlrm import DLRM_Net


def warm_up(step: TrainingStep, batch_size: int) -> None:
    """Run every kernel of training and evaluation once on synthetic data; does not change weights or sums.

    batch_size: samples of the largest batch that the data delivers, which --mini-batch-size may exceed by far.
    """
    step.warm_up(batch_size)
    labels = (torch.arange(max(batch_size, 2)) % 2).to(step.device, torch.float32)
    binary_metrics(labels, labels)


def synthetic_batch(model: DLRM_Net, batch_size: int) -> Batch:
    """Return a batch with one id per table, valid for any model."""
    device = model.tables.device
    return Batch(
        torch.zeros(batch_size, model.architecture.mlp_bot[0], device=device),
        torch.zeros(len(model.architecture.rows_per_table), batch_size, dtype=torch.int64, device=device),
        None,
        (torch.arange(batch_size, device=device) % 2).float().unsqueeze(1),
    )
