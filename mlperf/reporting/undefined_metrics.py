"""Say once that metrics are undefined because all test labels are equal."""

from __future__ import annotations

import logging

from mlperf.evaluation.metrics import Metrics
from mlperf.settings.settings import Settings
from mlperf.training.events import Listener, Position

_log = logging.getLogger(__name__)


class UndefinedMetrics(Listener):
    """Logs one line at the first evaluation if the test split has one class only."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._logged = False

    def evaluation_stop(self, position: Position, metrics: Metrics, best: Metrics, improved: bool) -> None:
        """Log the line, unless both classes occur or it was logged before."""
        if not self._logged and metrics.only_label is not None:
            report_one_class(metrics, self._settings)
            self._logged = True


def report_one_class(metrics: Metrics, settings: Settings, data: str = "the test split") -> None:
    """Log the only label of the data, which metrics it leaves undefined, and what depends on them."""
    text = f"{data} has one class only, label {metrics.only_label}: AUC and average precision are undefined"
    if settings.training.auc_threshold > 0 and not settings.inference_only:
        text += f"; --mlperf-auc-threshold={settings.training.auc_threshold:g} cannot be reached"
    if settings.save_model is not None and settings.compliance.enabled:
        text += "; --save-model saves when the accuracy improves"
    _log.warning(text)
