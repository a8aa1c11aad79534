"""Training progress: everything needed to resume besides weights and optimizer state."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from mlperf.evaluation.metrics import Metrics


def no_metrics() -> Metrics:
    """Return metrics that are all undefined."""
    nan = math.nan
    return Metrics(accuracy=nan, recall=nan, precision=nan, f1=nan, average_precision=nan, auc=nan)


@dataclass
class TrainingState:
    """The state of the training loop.

    epoch: index of the current epoch, from 0.
    iteration: completed batches of this epoch.
    step: completed optimizer steps.
    samples: training samples since the start of the run, over all epochs.
    last_loss: mean training loss of the last progress report.
    best: best accuracy and best AUC so far, with the other metrics of the last evaluation; NaN if undefined.
    """

    epoch: int = 0
    iteration: int = 0
    step: int = 0
    samples: int = 0
    last_loss: float = math.nan
    best: Metrics = field(default_factory=no_metrics)
