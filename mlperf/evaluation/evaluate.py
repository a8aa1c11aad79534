"""Evaluation on a whole split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch

from mlperf.data.batch import Batch, RawBatch
from mlperf.data.source import BatchSource, SharedSource
from mlperf.distributed.processes import current
from mlperf.evaluation.metrics import Counts, Metrics, binary_metrics
from mlperf.evaluation.predictions import Delivery, Receiver
from mlperf.evaluation.shared_metrics import shared_metrics
from mlperf.util.errors import DivergedError


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


def evaluate(scorer: Scorer, data: BatchSource, *, all_metrics: bool, receive: Receiver | None = None) -> Metrics:
    """Return the metrics of `scorer` on all of `data`; without `all_metrics`, all except the accuracy are NaN.

    Scores and labels stay on the scorer's device, where the metrics are computed too. Each process scores its
    share of each batch; the metrics are those of all samples, on every process.

    receive: called on the first process with the predictions in the order of the rows.
    """
    scores, labels = scores_of(scorer, data, receive)
    return metrics_of_run(scores, labels, all_metrics=all_metrics)


def scores_of(
    scorer: Scorer, data: BatchSource, receive: Receiver | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the predicted probabilities and the labels of this process, float32 [N] each, on the device.

    RunError if a row is invalid; DivergedError, on the first process, if `receive` is given and a score is not a
    probability.
    """
    own = own_samples(data)
    scores = torch.empty(own, device=scorer.device)
    labels = torch.empty(own, device=scorer.device)
    delivery = None if receive is None else Delivery(data, receive)
    done = 0
    try:
        for batch in scorer.batches(data, epoch=0):
            part = slice(done, done + batch.size)
            scores[part], labels[part] = scorer.score(batch)
            done += batch.size
            if delivery is not None:
                delivery.scored(scores[:done], labels[:done])
    except DivergedError:
        scorer.check()  # the score of an invalid row can be anything
        raise
    scorer.check()
    if delivery is not None:
        delivery.scored(scores, labels, is_last=True)
    return scores, labels


def metrics_of_run(scores: torch.Tensor, labels: torch.Tensor, *, all_metrics: bool) -> Metrics:
    """Return the metrics of the samples of all processes. Arguments and errors as in `shared_metrics`."""
    if current().size > 1:
        return shared_metrics(scores, labels, all_metrics=all_metrics)
    return binary_metrics(scores, labels) if all_metrics else Counts.of_accuracy(scores, labels).accuracy_only()
