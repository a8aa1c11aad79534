"""Evaluation on a whole split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch

from mlperf.data.batch import Batch, RawBatch
from mlperf.data.source import BatchSource, SharedSource
from mlperf.distributed.processes import current
from mlperf.evaluation.metrics import Counts, Metrics, binary_metrics
from mlperf.evaluation.shared_metrics import shared_metrics


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

    Scores and labels stay on the scorer's device, where the metrics are computed too. Each process scores its
    share of each batch; the metrics are those of all samples, on every process.
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
    return metrics_of_run(scores, labels, all_metrics=all_metrics)


def metrics_of_run(scores: torch.Tensor, labels: torch.Tensor, *, all_metrics: bool) -> Metrics:
    """Return the metrics of the samples of all processes. Arguments and errors as in `shared_metrics`."""
    if current().size > 1:
        return shared_metrics(scores, labels, all_metrics=all_metrics)
    return binary_metrics(scores, labels) if all_metrics else Counts.of_accuracy(scores, labels).accuracy_only()
