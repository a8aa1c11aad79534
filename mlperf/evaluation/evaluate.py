"""Evaluation on a whole split."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

import torch

from mlperf.data.batch import Batch, RawBatch
from mlperf.data.source import BatchSource, SharedSource
from mlperf.distributed.group import gathered
from mlperf.distributed.processes import current
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


def own_samples(data: BatchSource) -> int:
    """Return the number of samples that this process scores."""
    if current().size == 1:
        return data.samples
    assert isinstance(data, SharedSource)
    return sum(current().share(size)[1] for size in data.sizes(0))


def evaluate(scorer: Scorer, data: BatchSource, *, all_metrics: bool) -> Metrics:
    """Return the metrics of `scorer` on all of `data`; without `all_metrics`, all except the accuracy are NaN.

    Scores and labels stay on the scorer's device, where the metrics are computed too.
    """
    own = own_samples(data)
    scores = torch.empty(own, device=scorer.device)
    labels = torch.empty(own, device=scorer.device)
    done = 0
    for batch in scorer.batches(data, epoch=0):
        part = slice(done, done + batch.size)
        scores[part], labels[part] = scorer.score(batch)
        done += batch.size
    scorer.check()
    scores, labels = gathered(scores), gathered(labels)
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
