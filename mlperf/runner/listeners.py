"""Listeners of a training run, selected by the flags: console, TensorBoard, profile and compliance log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from mlperf.data.source import BatchSource
from mlperf.distributed.processes import current
from mlperf.engines.observer import Observer, observed
from mlperf.engines.protocol import Engine
from mlperf.evaluation.predictions import Receiver
from mlperf.models.dlrm import DLRM_Net
from mlperf.reporting.console import Console
from mlperf.reporting.debug import DebugReport
from mlperf.reporting.metrics_file import MetricsFile, continues_metrics
from mlperf.reporting.mlflow_run import MLflowRun, require_mlflow
from mlperf.reporting.profile import Profile
from mlperf.reporting.tensorboard import TensorBoard
from mlperf.reporting.time_breakdown import TimeBreakdown
from mlperf.reporting.undefined_metrics import UndefinedMetrics
from mlperf.reporting.wandb_run import WandbRun, require_wandb
from mlperf.settings.settings import Settings
from mlperf.training.events import Listener, Outcome, Position

# Batches of a data set that --debug-mode prints; it prints all batches of random data.
DEBUG_BATCHES = 3


def make_time_breakdown(settings: Settings, device: torch.device) -> TimeBreakdown | None:
    """Return the listener that measures the parts of the run (--time-breakdown), None without."""
    return TimeBreakdown(device, settings.run.output_dir) if settings.report.time_breakdown else None


def observer_of(times: TimeBreakdown | None) -> Observer | None:
    """Return what is told which part of a step or an evaluation runs. times: of `make_time_breakdown`."""
    return None if times is None else times.stopwatch


def timed_evaluation(
    times: TimeBreakdown | None, engine: Engine, test: BatchSource
) -> AbstractContextManager[None]:
    """Return the context of a run that is one evaluation, on `test`. times: of `make_time_breakdown`."""
    return nullcontext() if times is None else times.evaluation(engine.description, test)


def timed_receiver(times: TimeBreakdown | None, receive: Receiver | None) -> Receiver | None:
    """Return `receive`, which is a part of the evaluation. times: of `make_time_breakdown`."""
    if times is None or receive is None:
        return receive
    return observed(receive, "writing of predictions", times.stopwatch)


def make_listeners(settings: Settings, device: torch.device, times: TimeBreakdown | None = None) -> list[Listener]:
    """Return the listeners that exist from the start of the run. Creating them starts the compliance log.

    times: of `make_time_breakdown`.

    If one cannot be created, the others are notified of the end of the run.
    """
    if not current().is_first:
        return [] if times is None else [times]
    report = settings.report
    listeners: list[Listener] = [
        Console(
            print_time=report.print_time,
            print_wall_time=report.print_wall_time,
            all_metrics=settings.compliance.enabled,
        ),
        UndefinedMetrics(settings),
    ]
    try:
        if report.metrics_file is not None:
            listeners.append(
                MetricsFile(settings, device, report.metrics_file, continues=continues_metrics(settings))
            )
        if report.tensor_board_folder is not None:
            listeners.append(TensorBoard(settings, device, report.tensor_board_folder))
        if report.tracker is not None:
            listeners.append(_tracker(settings, device, report.tracker))
        if report.profile:
            listeners.append(Profile(device, settings.run.output_dir or Path()))
        if times is not None:
            listeners.append(times)
        if settings.compliance.enabled:
            from mlperf.reporting.compliance_log import ComplianceLog  # needs mlperf-logging

            listeners.append(ComplianceLog(settings))
    except BaseException:
        stop_listeners(listeners, None, Outcome.FAILED)
        raise
    return listeners


def require_tracker(settings: Settings) -> None:
    """Raise UsageError if the package of --track is missing or not set up. Only the first process needs it."""
    if settings.report.tracker is None or not current().is_first:
        return
    if settings.report.tracker == "mlflow":
        require_mlflow()
    else:
        require_wandb()


def _tracker(settings: Settings, device: torch.device, name: str) -> Listener:
    return MLflowRun(settings, device) if name == "mlflow" else WandbRun(settings, device)


def stop_listeners(
    listeners: Sequence[Listener],
    position: Position | None,
    outcome: Outcome,
    times: TimeBreakdown | None = None,
) -> Exception | None:
    """Notify all listeners of the end of the run, also if one of them fails. Return the first failure.

    After a failure, the run is a failed one for those that follow. The compliance log is the last.
    times: of `make_time_breakdown`; a run that has failed has no breakdown.
    """
    failure: Exception | None = None
    if times is not None and position is not None and outcome is not Outcome.FAILED:
        breakdown = times.breakdown()
        try:
            for listener in listeners:
                listener.time_breakdown(breakdown)
        except Exception as error:
            failure, outcome = error, Outcome.FAILED
    for listener in listeners:
        try:
            listener.run_stop(position, outcome)
        except Exception as error:
            failure = failure or error
            if outcome in (Outcome.SUCCESS, Outcome.TARGET_MISSED):
                outcome = Outcome.FAILED
    return failure


def abandon_listeners(listeners: Iterable[Listener], position: Position | None, outcome: Outcome) -> None:
    """Notify all listeners that the process is ended from another thread."""
    for listener in listeners:
        listener.abandon(position, outcome)


def make_debug_report(settings: Settings, model: DLRM_Net) -> DebugReport:
    """Return the listener that prints the model and its data."""
    max_batches = DEBUG_BATCHES if settings.data.generation == "dataset" else None
    return DebugReport(model, precision=settings.report.print_precision, max_batches=max_batches)
