"""Curves of a run, read from its metrics file."""

from __future__ import annotations

from mlperf.benchmarks import BENCHMARKS
from mlperf.plots.curves import Curves, NoCurvesError, OtherBenchmarkError, Point
from mlperf.reporting.metrics_reader import Record, RunRecords, position_of
from mlperf.util.printable import shown_name


def curves_of_records(run: RunRecords) -> Curves:
    """Return the curves of a run. NoCurvesError if it has none, OtherBenchmarkError for an unknown benchmark."""
    start, progress, tests = run.start, run.of("progress"), run.of("evaluation_stop")
    if any("epoch" not in each for each in tests):
        raise NoCurvesError(run.path, "an evaluation without training has no curves")
    if start["benchmark"] not in BENCHMARKS:
        reason = f"the run is of {shown_name(start['benchmark'])}, not of {' or '.join(BENCHMARKS)}"
        raise OtherBenchmarkError(run.path, reason)
    curves = Curves(
        loss=_points(progress, "loss"),
        train_accuracy=_points(progress, "accuracy"),
        accuracy=_points(tests, "accuracy"),
        auc=_points(tests, "auc"),
        benchmark=BENCHMARKS[start["benchmark"]],
    )
    if not (curves.loss or curves.accuracy or curves.auc):
        raise NoCurvesError(run.path, "the run has not reported any progress yet")
    curves.warnings += [] if (warning := _warning(run, curves)) is None else [warning]
    return curves


def _points(records: list[Record], key: str) -> list[Point]:
    return [Point(*position_of(record), record[key]) for record in records if record[key] is not None]


def _warning(run: RunRecords, curves: Curves) -> str | None:
    """Return how the run failed."""
    if curves.learned_nothing:
        return f"the run learned nothing or diverged: its last AUC is {curves.auc[-1].value:.4f}"
    if run.outcome is None:
        return "the metrics end before the run does: there is no run_stop"
    return None if run.outcome == "success" else f"the outcome of the run is: {shown_name(run.outcome)}"
