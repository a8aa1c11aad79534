"""Evaluation on a whole split."""

from __future__ import annotations

import math

import torch

from mlperf.data.source import BatchSource
from mlperf.engines.autograd.scorer import Scorer
from mlperf.evaluation.metrics import Metrics, accuracy_only, binary_metrics


def evaluate(scorer: Scorer, data: BatchSource, *, all_metrics: bool) -> Metrics:
    """Return the metrics of `scorer` on all of `data`; without `all_metrics` all but the accuracy are NaN.

    Scores and labels stay on the scorer's device, where the metrics are computed too.
    """
    scores = torch.empty(data.samples, device=scorer.device)
    labels = torch.empty(data.samples, device=scorer.device)
    done = 0
    for batch in scorer.batches(data, epoch=0):
        part = slice(done, done + batch.size)
        scores[part], labels[part] = scorer.score(batch)
        done += batch.size
    scorer.check()
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
