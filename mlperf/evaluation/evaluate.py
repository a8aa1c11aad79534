"""Evaluation of a model on a whole split."""

from __future__ import annotations

import math

import torch

from mlperf.data.source import BatchSource
from mlperf.evaluation.metrics import Metrics, accuracy_only, binary_metrics
from mlperf.model.dlrm import DLRM_Net


@torch.no_grad()
def evaluate(model: DLRM_Net, data: BatchSource, *, all_metrics: bool) -> Metrics:
    """Return the metrics of `model` on all of `data`; without `all_metrics` all but the accuracy are NaN.

    Scores and labels stay on the model's device, where the metrics are computed too.
    """
    device = model.tables.device
    scores = torch.empty(data.samples, device=device)
    labels = torch.empty(data.samples, device=device)
    done = 0
    for host_batch in data.batches(epoch=0):
        batch = host_batch.to(device)
        scores[done : done + batch.size] = model(batch).squeeze(1)
        labels[done : done + batch.size] = batch.labels.squeeze(1)
        done += batch.size
    if all_metrics:
        return binary_metrics(scores, labels)
    nan = math.nan
    return Metrics(
        accuracy=accuracy_only(scores, labels),
        recall=nan,
        precision=nan,
        f1=nan,
        average_precision=nan,
        auc=nan,
    )
