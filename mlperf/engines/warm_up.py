"""Warm-up before the timed part of a run."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mlperf.data.batch import Batch
from mlperf.engines.protocol import TrainingStep
from mlperf.evaluation.evaluate import metrics_of_run
from mlperf.models.dlrm import DLRM_Net


def warm_up(step: TrainingStep, batch_size: int) -> None:
    """Run every kernel of training and evaluation once on synthetic data; does not change weights or sums.

    Every process must call it.

    batch_size: samples of the largest batch that the data delivers, which --mini-batch-size may exceed by far.
    """
    step.warm_up(batch_size)
    labels = (torch.arange(max(batch_size, 2)) % 2).to(step.device, torch.float32)
    metrics_of_run(labels, labels, all_metrics=True)


def synthetic_batch(model: DLRM_Net, batch_size: int, ids_per_table: Sequence[int] | None = None) -> Batch:
    """Return a batch that is valid for any model, with one id per table or `ids_per_table`. All ids are 0."""
    device = model.tables.device
    dense = torch.zeros(batch_size, model.architecture.mlp_bot[0], device=device)
    labels = (torch.arange(batch_size, device=device) % 2).float().unsqueeze(1)
    if ids_per_table is None:
        tables = len(model.architecture.rows_per_table)
        return Batch(dense, torch.zeros(tables, batch_size, dtype=torch.int64, device=device), None, labels)
    sizes = tuple(ids_per_table)
    ids = torch.zeros(batch_size * sum(sizes), dtype=torch.int64, device=device)
    return Batch(dense, ids, bag_offsets(sizes, batch_size, device), labels, sizes)


def bag_offsets(ids_per_table: Sequence[int], batch_size: int, device: torch.device) -> torch.Tensor:
    """Return `Batch.offsets`, int64 [T, B], for bags of `ids_per_table` ids."""
    counts = torch.tensor(ids_per_table, device=device).repeat_interleave(batch_size)
    return (counts.cumsum(0) - counts).view(len(ids_per_table), batch_size)
