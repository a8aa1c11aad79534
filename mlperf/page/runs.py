"""What the page says about a run, from its metrics file or its log, and from the files beside them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from mlperf.compliance.log_reader import Log, is_fraction, read_log
from mlperf.page.folder import checkpoints_in, time_breakdown_in
from mlperf.plots.curves import Curves, Point
from mlperf.plots.log_files import compliance_log_of
from mlperf.plots.read_runs import Run, read_runs
from mlperf.plots.run_labels import labels_of
from mlperf.reporting.metrics_reader import MAX_NUMBER, RunRecords, position_of
from mlperf.settings.run import METRICS_FILE


@dataclass(frozen=True)
class TimedPoint:
    """A value and when it was measured: iterations, epochs and seconds since the start; None where unknown."""

    iterations: float | None
    epochs: float
    seconds: float | None
    value: float


Curve = list[TimedPoint]
_MAX_SPEEDS = 60  # the time of single steps varies too much to be drawn
Facts = dict[str, Any]


@dataclass(frozen=True)
class RunReport:
    """What is known about one run.

    group: number of its label; runs of one system, or with the same --labels, have the same.
    source: "metrics", "console output" or "compliance log". targets: of the run, by "auc" and "accuracy".
    started: seconds since 1970. seconds: duration. to_target: seconds until the first of the targets was reached.
    curves: by name, such as "loss". facts, settings, system: to be listed. evaluations, checkpoints: one entry
    each. breakdown: as --time-breakdown writes it. speed: samples per second in the whole training, without
    evaluations.
    """

    path: Path
    label: str
    group: int
    source: str
    targets: Mapping[str, float]
    started: float | None = None
    seconds: float | None = None
    to_target: float | None = None
    outcome: str | None = None
    curves: dict[str, Curve] = field(default_factory=dict)
    facts: Facts = field(default_factory=dict)
    settings: Facts = field(default_factory=dict)
    system: Facts = field(default_factory=dict)
    evaluations: Sequence[Facts] = ()
    checkpoints: Sequence[Facts] = ()
    breakdown: Facts | None = None
    speed: float | None = None
    warnings: Sequence[str] = ()

    def best(self, metric: str) -> float | None:
        """Return the best AUC ("auc") or accuracy ("accuracy") on the test split."""
        return max((point.value for point in self.curves.get(metric, [])), default=None)

    def reaches(self, metric: str, value: float | None) -> bool:
        """Return whether a value of a metric reaches its target, if there is one."""
        return value is not None and metric in self.targets and value >= self.targets[metric]

    @property
    def last_loss(self) -> float | None:
        """The last training loss."""
        return self.curves["loss"][-1].value if self.curves.get("loss") else None

    @property
    def epochs(self) -> float | None:
        """Epochs trained."""
        return max((curve[-1].epochs for curve in self.curves.values() if curve), default=None)


def read_reports(arguments: Sequence[Path], labels: str | None) -> tuple[list[RunReport], list[str]]:
    """Return the runs of folders, metrics files and logs, and warnings. labels: see `labels_of`.

    RunError as of `read_runs`, UsageError as of `labels_of`.
    """
    runs, warnings = read_runs(arguments)
    group_labels = labels_of(runs, labels, len(arguments))
    groups = list(dict.fromkeys(group_labels))
    named = zip(runs, _numbered(group_labels), group_labels, strict=True)
    return [_report(run, label, groups.index(group)) for run, label, group in named], warnings


def _numbered(labels: Sequence[str]) -> list[str]:
    """Number the runs that have the same label."""
    counts, seen = Counter(labels), Counter[str]()
    numbered = []
    for label in labels:
        seen[label] += 1
        numbered.append(label if counts[label] == 1 else f"{label} ({seen[label]})")
    return numbered


def _report(run: Run, label: str, group: int) -> RunReport:
    report = _of_log(run, label, group) if run.records is None else _of_records(run, run.records, label, group)
    return replace(report, to_target=_to_target(report), warnings=tuple(run.curves.warnings))


def _of_records(run: Run, records: RunRecords, label: str, group: int) -> RunReport:
    start, tests = records.start, records.of("evaluation_stop")
    progress = records.of("progress")
    folder = run.path.parent if run.path.name == METRICS_FILE.name else None
    breakdowns = records.of("time_breakdown")
    found = breakdowns[-1]["breakdown"] if breakdowns else None
    names = ("version", "benchmark", "edition", "engine", "seed", "started_from")
    samples = records.of("data_opened")[-1:]
    counts = {key: samples[0].get(key) for key in ("train_samples", "test_samples")} if samples else {}
    return RunReport(
        run.path,
        label,
        group,
        "metrics",
        _targets(start["settings"], start["auc_target"] or run.curves.benchmark.auc_target),
        started=records.records[0]["time"],
        seconds=records.records[-1]["elapsed"],
        outcome=records.outcome,
        curves={
            **{name: _timed(progress, name) for name in ("loss", "learning_rate")},
            "train_accuracy": _timed(progress, "accuracy"),
            "accuracy": _timed(tests, "accuracy"),
            "auc": _timed(tests, "auc"),
            "speed": _speeds(progress),
        },
        facts={name: start.get(name) for name in names} | counts,
        settings=start["settings"],
        system=start["system"],
        evaluations=tests,
        checkpoints=_checkpoints(records.of("checkpoint"), [] if folder is None else checkpoints_in(folder)),
        speed=_speed(progress),
        breakdown=time_breakdown_in(folder) if found is None and folder is not None else found,
    )


def _checkpoints(saved: Sequence[Facts], found: Sequence[Facts]) -> list[Facts]:
    """Return the last save of each path, and what the files themselves say, by the names of the files."""
    facts: dict[str, Facts] = {}
    for each in (*saved, *found):
        name = Path(each["path"]).name
        facts[name] = facts.get(name, {}) | each | {"name": name}
    return list(facts.values())


def _targets(settings: Facts, of_edition: float) -> dict[str, float]:
    """Return the thresholds of the run, otherwise the AUC target of its edition."""
    thresholds = {"auc": settings.get("mlperf-auc-threshold"), "accuracy": settings.get("mlperf-acc-threshold")}
    given = {metric: value for metric, value in thresholds.items() if is_fraction(value) and value > 0}
    return given or {"auc": of_edition}


def _to_target(report: RunReport) -> float | None:
    """Return the seconds until a target was first reached, None if none was or the times are unknown."""
    points = [(metric, point) for metric in report.targets for point in report.curves.get(metric, [])]
    reached = [point.seconds for metric, point in points if report.reaches(metric, point.value)]
    return min((seconds for seconds in reached if seconds is not None), default=None)


def _timed(records: Sequence[Facts], key: str) -> Curve:
    return [
        TimedPoint(*position_of(each), each["elapsed"], each[key]) for each in records if each[key] is not None
    ]


def _measured(progress: Sequence[Facts]) -> Iterator[tuple[Facts, int, float]]:
    """Yield the progress reports but the first, with the samples and seconds of training since the one before."""
    for before, after in pairwise(progress):
        iterations = position_of(after)[0] - position_of(before)[0]
        if iterations > 0 and after["ms_per_iteration"] is not None:
            yield after, max(after["samples"] - before["samples"], 0), iterations * after["ms_per_iteration"] / 1e3


def _speed(progress: Sequence[Facts]) -> float | None:
    """Return the samples per second of all reports but the first, whose steps also load code and data."""
    samples = seconds = 0.0
    for _, some, in_seconds in _measured(progress):
        samples += some
        seconds += in_seconds
    return samples / seconds if seconds > 0 else None


def _speeds(progress: Sequence[Facts]) -> Curve:
    """Return the training speed in samples per second: of at most _MAX_SPEEDS groups of progress reports."""
    width = max(1, -(-len(progress) // _MAX_SPEEDS))
    curve, samples, seconds = [], 0, 0.0
    for number, (after, some, in_seconds) in enumerate(_measured(progress), start=1):
        samples += some
        seconds += in_seconds
        if number % width == 0 and samples > 0 and seconds > 0:
            curve.append(TimedPoint(*position_of(after), after["elapsed"], samples / seconds))
            samples, seconds = 0, 0.0
    return curve


# Keys of a compliance log that are no settings of the training, and those that describe the system.
_SYSTEM_KEYS = ("submission_platform", "submission_org", "submission_division", "submission_status")
_OTHER_KEYS = ("submission_benchmark", "seed", "train_samples", "eval_samples", "eval_accuracy", "cache_clear")
_COURSE = ("init_", "run_", "block_", "epoch_", "eval_", "tracked_stats", "weights_initialization")


def _of_log(run: Run, label: str, group: int) -> RunReport:
    log = read_log(run.path, timed=True)
    if not log.events and (beside := compliance_log_of(run.path)) is not None and beside.is_file():
        log = read_log(beside, timed=True)  # has the times and the settings, but not the loss
    start, stop = log.all("run_start"), log.all("run_stop")
    curves = run.curves
    return RunReport(
        run.path,
        label,
        group,
        "compliance log" if not curves.loss else "console output",
        {"auc": curves.benchmark.auc_target},
        started=_finite(start[0].time_ms / 1e3) if start else None,
        seconds=_finite((stop[-1].time_ms - start[0].time_ms) / 1e3) if start and stop else None,
        outcome=_outcome(log),
        curves={
            "loss": _untimed(curves.loss),
            "train_accuracy": _untimed(curves.train_accuracy),
            "accuracy": _untimed(curves.accuracy),
            "auc": _with_times(curves, log),
        },
        facts={"benchmark": curves.benchmark.name, "seed": log.value("seed")}
        | {f"{name}_samples": log.value(f"{key}_samples") for name, key in (("train", "train"), ("test", "eval"))},
        settings=_settings_in(log),
        system={key.removeprefix("submission_"): log.value(key) for key in _SYSTEM_KEYS if log.all(key)},
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _outcome(log: Log) -> str | None:
    stops = log.all("run_stop")
    outcome = stops[-1].metadata.get("outcome") if stops else None
    return outcome if isinstance(outcome, str) else log.status


def _settings_in(log: Log) -> Facts:
    """Return the hyperparameters in a log: the last value of each key."""
    return {
        event.key: event.value
        for event in log.events
        if event.key not in (*_SYSTEM_KEYS, *_OTHER_KEYS) and not event.key.startswith(_COURSE)
    }


def _untimed(points: list[Point]) -> Curve:
    return [
        TimedPoint(point.iterations, point.epochs, None, point.value)
        for point in points
        if abs(point.value) < MAX_NUMBER
    ]


def _with_times(curves: Curves, log: Log) -> Curve:
    """Return the AUC with the seconds since run_start, if the log has one time for each value."""
    starts, events = log.all("run_start"), [e for e in log.all("eval_accuracy") if is_fraction(e.value)]
    if not starts or len(events) != len(curves.auc):
        return _untimed(curves.auc)
    seconds = [(event.time_ms - starts[0].time_ms) / 1e3 for event in events]
    if any(not later >= earlier for earlier, later in pairwise([0.0, *seconds])):  # also for NaN
        return _untimed(curves.auc)
    timed = zip(curves.auc, seconds, strict=True)
    return [TimedPoint(point.iterations, point.epochs, at, point.value) for point, at in timed]
