"""The stop decision: whether the metrics of an evaluation meet a threshold."""

from __future__ import annotations

from mlperf.evaluation.metrics import Metrics
from mlperf.settings.training import TrainingSettings


def target_reached(settings: TrainingSettings, metrics: Metrics) -> bool:
    """Return whether `metrics` meet one of the thresholds that are on; a NaN metric meets none."""
    accuracy, auc = settings.accuracy_threshold, settings.auc_threshold
    return (0 < accuracy <= metrics.accuracy) or (0 < auc <= metrics.auc)
