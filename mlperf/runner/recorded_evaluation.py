"""The metrics file of a run that is one evaluation (--inference-only --metrics-file)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from mlperf.distributed.processes import current
from mlperf.evaluation.metrics import Metrics
from mlperf.reporting.metrics_file import MetricsFile
from mlperf.runner.result import outcome_of
from mlperf.settings.settings import Settings
from mlperf.training.events import Outcome, RunStart

Report = Callable[[Metrics, Mapping[str, Any] | None], None]  # of the metrics and the time breakdown


@contextmanager
def recorded_evaluation(settings: Settings, device: torch.device, engine: str) -> Iterator[Report]:
    """Context of an evaluation, in which its results are reported once. Without the flag, nothing is written.

    engine: its description. Errors as of `MetricsFile`.
    """
    path = settings.report.metrics_file
    if path is None or not current().is_first:
        yield lambda metrics, breakdown: None
        return
    file = MetricsFile(settings, device, path)

    def report(metrics: Metrics, breakdown: Mapping[str, Any] | None) -> None:
        file.evaluation_stop(None, metrics, metrics, improved=False)
        if breakdown is not None:
            file.time_breakdown(breakdown)

    outcome = Outcome.SUCCESS
    try:
        is_loaded = settings.load_model is not None or settings.load_weights is not None
        file.run_start(RunStart("weights" if is_loaded else None, engine))
        file.evaluation_start(None)
        yield report
    except BaseException as error:
        outcome = outcome_of(error)
        raise
    finally:
        file.run_stop(None, outcome)
