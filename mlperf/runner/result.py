"""What a run returns."""

from __future__ import annotations

from dataclasses import dataclass

from mlperf.evaluation.metrics import Metrics
from mlperf.training.events import Outcome


@dataclass(frozen=True)
class Result:
    """The result of a run that came to its end.

    outcome: Outcome.SUCCESS, or Outcome.TARGET_MISSED if a threshold was given and not reached.
    metrics: of the last evaluation, None if there was none. Metrics that were not asked for are NaN.
    best_metrics: the best accuracy and the best AUC, with the other metrics of the last evaluation; None likewise.
    training_loss: the mean over the samples of the last progress report; None if nothing was trained.
    epochs: passes over the training data, 1.25 being a quarter of the second one; of a continued run, all of them.
    samples: training samples in these epochs.
    """

    outcome: Outcome
    metrics: Metrics | None = None
    best_metrics: Metrics | None = None
    training_loss: float | None = None
    epochs: float = 0.0
    samples: int = 0
