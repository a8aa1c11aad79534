"""Result and outcome of a run."""

from __future__ import annotations

from dataclasses import dataclass

from mlperf.distributed.watch import is_failing
from mlperf.evaluation.metrics import Metrics
from mlperf.training.events import Outcome
from mlperf.util.errors import DivergedError


@dataclass(frozen=True)
class Result:
    """Result of a completed run.

    outcome: Outcome.SUCCESS, or Outcome.TARGET_MISSED if a threshold was set and not reached.
    metrics: metrics of the last evaluation, None if there was none. Metrics that were not computed are NaN.
    best_metrics: best accuracy and AUC, with the other metrics of the last evaluation; None if there was none.
    training_loss: mean loss over the samples of the last progress report; None if nothing was trained.
    epochs: total passes over the training data, including those before a checkpoint; 1.25 is a quarter into the
    second.
    samples: training samples in these epochs.
    """

    outcome: Outcome
    metrics: Metrics | None = None
    best_metrics: Metrics | None = None
    training_loss: float | None = None
    epochs: float = 0.0
    samples: int = 0


def outcome_of(error: BaseException) -> Outcome:
    """Return the outcome of a run that an error or a signal has ended."""
    if isinstance(error, DivergedError):
        return Outcome.DIVERGED
    return Outcome.FAILED if isinstance(error, Exception) or is_failing() else Outcome.INTERRUPTED
