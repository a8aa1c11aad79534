"""Early stopping: whether the metrics of an evaluation reach a threshold, and its description."""

from __future__ import annotations

from mlperf.evaluation.metrics import Metrics
from mlperf.settings.training import TrainingSettings


def target_reached(settings: TrainingSettings, metrics: Metrics) -> bool:
    """Return whether `metrics` reach one of the enabled thresholds; NaN metrics never do."""
    accuracy, auc = settings.accuracy_threshold, settings.auc_threshold
    return (0 < accuracy <= metrics.accuracy) or (0 < auc <= metrics.auc)


def describe_target(settings: TrainingSettings, metrics: Metrics) -> str:
    """Return the metrics that have a threshold, each with its threshold: "test AUC 0.802900 of 0.8025"."""
    targets = (
        ("accuracy", metrics.accuracy, settings.accuracy_threshold),
        ("AUC", metrics.auc, settings.auc_threshold),
    )
    return " and ".join(f"test {name} {value:.6f} of {goal:g}" for name, value, goal in targets if goal > 0)
