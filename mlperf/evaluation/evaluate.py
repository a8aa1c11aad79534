"""Evaluation on a whole split."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

import torch

from mlperf.data.batch import Batch, RawBatch
from mlperf.data.source import BatchSource
from mlperf.evaluation.metrics import Metrics, accuracy_only, binary_metrics, only_label


class Scorer(Protocol):
    """Computes predictions. Batches stay on the host until `score` moves them to `device`."""

    device: torch.device

    def batches(self, data: BatchSource, epoch: int, first: int = 0) -> Iterator[Batch] | Iterator[RawBatch]:
        """Return the batches of `epoch` from number `first` on, in the form that `score` accepts."""
        ...

    def score(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the predicted probabilities and the labels, float32 [B] each, on the device."""
        ...

    def check(self) -> None:
        """Wait for the device. Raise RunError if a batch scored so far contains an invalid value."""
        ...


def evaluate(scorer: Scorer, data: BatchSource, *, all_metrics: bool) -> Metrics:
    """Return the metrics of `scorer` on all of `data`; without `all_metrics`, all except the accuracy are NaN.

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
        only_label=only_label(labels),
    )
