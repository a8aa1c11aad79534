"""Early stopping: whether the metrics of an evaluation reach a threshold."""

from __future__ import annotations

from mlperf.evaluation.metrics import Metrics
from mlperf.settings.training import TrainingSettings


def target_reached(settings: TrainingSettings, metrics: Metrics) -> bool:
    """Return whether `metrics` reach one of the enabled thresholds; NaN metrics never do."""
    accuracy, auc = settings.accuracy_threshold, settings.auc_threshold
    return (0 < accuracy <= metrics.accuracy) or (0 < auc <= metrics.auc)
