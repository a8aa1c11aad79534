"""The six test metrics, exact and fast: accuracy, recall, precision, F1, average precision, ROC AUC.

Average precision and AUC are scikit-learn's (`average_precision_score`, `roc_auc_score`), ties included. N scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from mlperf.evaluation.ranking import tie_sums
from mlperf.util.errors import DivergedError


@dataclass(frozen=True)
class Metrics:
    """Values in [0, 1]; NaN if not computed. AUC and average precision are also NaN if a class is missing.

    only_label: the label of all samples, 0 or 1, if a class is missing; otherwise None.
    """

    accuracy: float
    recall: float
    precision: float
    f1: float
    average_precision: float
    auc: float
    only_label: int | None = None


@dataclass(frozen=True)
class Counts:
    """Numbers of samples.

    clicks: with label 1. predicted_clicks: with a score above 0.5. hits: both. correct: whose rounded score (0.5
    down) is the label.
    """

    samples: int
    clicks: int
    predicted_clicks: int
    hits: int
    correct: int

    @classmethod
    def of(cls, scores: torch.Tensor, labels: torch.Tensor) -> Counts:
        """Count the samples with `scores` in [0, 1] and `labels` of 0 and 1, float32 [N] each."""
        predicted = scores.round()
        return cls(
            samples=len(labels),
            clicks=_sum(labels),
            predicted_clicks=_sum(predicted),
            hits=_sum(predicted * labels),
            correct=int((predicted == labels).sum()),
        )

    @classmethod
    def of_accuracy(cls, scores: torch.Tensor, labels: torch.Tensor) -> Counts:
        """Count the samples, but no `predicted_clicks` and `hits`. Scores may be NaN, which is not correct."""
        return cls(len(labels), _sum(labels), 0, 0, correct=int((scores.round() == labels).sum()))

    @property
    def others(self) -> int:
        """Number of samples with label 0."""
        return self.samples - self.clicks

    @property
    def accuracy(self) -> float:
        """Fraction of samples whose rounded score is the label."""
        return self.correct / self.samples

    @property
    def only_label(self) -> int | None:
        """The label of all samples, None if both labels occur."""
        return 0 if self.clicks == 0 else 1 if self.others == 0 else None

    def metrics(self, auc: float, average_precision: float) -> Metrics:
        """Return all metrics."""
        return Metrics(
            accuracy=self.accuracy,
            recall=self.hits / self.clicks if self.clicks else 0.0,
            precision=self.hits / self.predicted_clicks if self.predicted_clicks else 0.0,
            f1=2 * self.hits / (self.clicks + self.predicted_clicks) if self.hits else 0.0,
            average_precision=average_precision,
            auc=auc,
            only_label=self.only_label,
        )

    def accuracy_only(self) -> Metrics:
        """Return the metrics with all but the accuracy and the only label NaN."""
        nan = math.nan
        return Metrics(self.accuracy, nan, nan, nan, nan, nan, self.only_label)


def _sum(values: torch.Tensor) -> int:
    return int(values.sum(dtype=torch.float64))


def is_better(value: float, best: float) -> bool:
    """Return whether a metric exceeds the best so far. A defined value exceeds NaN, and NaN exceeds nothing."""
    return not math.isnan(value) and not value <= best


def are_probabilities(scores: torch.Tensor) -> bool:
    """Return whether all scores are numbers in [0, 1]."""
    return bool(((scores >= 0) & (scores <= 1)).all())


def diverged() -> DivergedError:
    """Return the error for scores that are no probabilities."""
    return DivergedError("a predicted probability is not a number in [0, 1]: the model has diverged")


def binary_metrics(scores: torch.Tensor, labels: torch.Tensor) -> Metrics:
    """Return the metrics of the probabilities `scores` for `labels` of 0 and 1, float32 [N] or [N, 1] each.

    They are computed on the device of the tensors. DivergedError if a score is NaN or outside [0, 1].
    """
    scores, labels = scores.flatten(), labels.flatten()
    if not are_probabilities(scores):
        raise diverged()
    counts = Counts.of(scores, labels)
    if counts.only_label is not None:
        return counts.metrics(auc=math.nan, average_precision=math.nan)
    return counts.metrics(*tie_sums(scores, labels).metrics(counts.clicks, counts.others))
