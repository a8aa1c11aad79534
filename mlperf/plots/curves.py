"""Curves of a run, read from a log: console output, or a compliance log.

Console output may also come from the original implementation, whose lines differ slightly, and from several
processes that print the same lines. A compliance log of any submitter has lines with `:::MLLOG` and JSON; its
`eval_accuracy` is the AUC.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from mlperf.benchmarks import BENCHMARKS, DLRM, Benchmark
from mlperf.compliance.log_kind import other_benchmark, other_content
from mlperf.compliance.log_reader import Log, is_fraction, read_log
from mlperf.plots.evaluations import read_evaluations
from mlperf.plots.log_files import compliance_log_of
from mlperf.util.errors import RunError
from mlperf.util.files import open_regular

_TRAINING = re.compile(
    r"Finished training it (?P<it>\d+)/(?P<n>\d+) of epoch (?P<epoch>\d+).*?"
    r"loss (?P<loss>[-+]?(?:nan|inf|[\d.]+(?:[eE][-+]?\d+)?))(?![\d.])"
    r"(?:.*?accuracy (?P<accuracy>[\d.]+) ?%)?"
)
_TESTING = re.compile(r"Testing at - (?P<it>\d+)/(?P<n>\d+) of epoch (?P<epoch>\d+)")
_AUC = re.compile(r"(?:^|[ ,])auc (?P<auc>[\d.]+)")
_ACCURACY = re.compile(r"(?:^|[ ,])accuracy (?P<accuracy>[\d.]+) ?%")
# Processes that share a pipe may print onto one line.
_LINE_START = re.compile(r"(?=Finished training it )")

_NAME = "submission_benchmark"
# The nodes of a run start within this time.
_SAME_START_MS = 60_000
# Without training, or after divergence, the AUC of a model is 0.5 up to this much.
_CHANCE, _CHANCE_WIDTH = 0.5, 0.005


class UnusableLogError(RunError):
    """A log has nothing to plot, for the reason `reason`."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


class OtherBenchmarkError(UnusableLogError):
    """The log is of another benchmark."""


class NoCurvesError(UnusableLogError):
    """The log contains no curves."""


@dataclass(frozen=True)
class Point:
    """A value and the time at which it was measured.

    iterations: batches trained since the start of the run; None if the log does not contain them. epochs: the same
    in epochs.
    """

    iterations: float | None
    epochs: float
    value: float


@dataclass
class Curves:
    """The curves of one run. Accuracies and AUC are in [0, 1].

    loss, train_accuracy: training metrics. accuracy, auc: metrics on the test split. Where several processes print
    a line for the same iteration, the value is their mean.
    submitter, system: named in the log, otherwise "".
    warnings: how the run failed, one sentence each.
    benchmark: named in the log or in the compliance log of the same run, otherwise DLRM.
    counted: whether the log numbers evaluations instead of epochs (see `Evaluations`).
    """

    loss: list[Point] = field(default_factory=list)
    train_accuracy: list[Point] = field(default_factory=list)
    accuracy: list[Point] = field(default_factory=list)
    auc: list[Point] = field(default_factory=list)
    submitter: str = ""
    system: str = ""
    warnings: list[str] = field(default_factory=list)
    benchmark: Benchmark = DLRM
    counted: bool = False

    @property
    def learned_nothing(self) -> bool:
        """Whether the last AUC is that of a model that has learned nothing, such as one that diverged."""
        return bool(self.auc) and abs(self.auc[-1].value - _CHANCE) < _CHANCE_WIDTH

    @classmethod
    def of_log(cls, path: Path) -> Curves:
        """Return the curves in a log of either kind.

        RunError if it cannot be read; OtherBenchmarkError and NoCurvesError, both RunErrors, as their names say.
        """
        log = read_log(path, timed=False)
        curves = cls(
            submitter=_text(log, "submission_org"),
            system=_text(log, "submission_platform"),
            benchmark=_benchmark(log, compliance_log_of(path)),
        )
        last = curves._read_console(_read_lines(path))
        if not (curves.auc or curves.accuracy):
            evaluations = read_evaluations(log, curves.benchmark)
            curves.auc = [Point(*point) for point in evaluations.points]
            curves.counted = evaluations.counted
        if not (curves.loss or curves.accuracy or curves.auc):
            raise NoCurvesError(path, _what_is_missing(log))
        curves._add_warnings(log, last)
        return curves

    def _read_console(self, lines: Iterator[str]) -> re.Match[str] | None:
        """Read console output and return the last line of the training."""
        last: re.Match[str] | None = None
        tested: tuple[float, float] | None = None
        announced = 0  # evaluations whose metrics have not been printed yet
        for line in lines:
            if match := _TRAINING.search(line):
                at = _position(match)
                last = match if last is None or at >= _position(last) else last
                self.loss.append(Point(*at, float(match["loss"])))
                if match["accuracy"]:
                    self.train_accuracy.append(Point(*at, float(match["accuracy"]) / 100))
                continue
            if match := _TESTING.search(line):
                announced = announced + 1 if tested == _position(match) else 1
                tested = _position(match)
            # The metrics are on the next line or, in some versions, on the same line.
            if tested is not None and announced > 0 and (accuracy := _ACCURACY.search(line)):
                self.accuracy.append(Point(*tested, float(accuracy["accuracy"]) / 100))
                if auc := _AUC.search(line):
                    self.auc.append(Point(*tested, float(auc["auc"])))
                announced -= 1
        self.loss, self.train_accuracy = _means(self.loss), _means(self.train_accuracy)
        self.accuracy, self.auc = _means(self.accuracy), _means(self.auc)
        return last

    def _add_warnings(self, log: Log, last: re.Match[str] | None) -> None:
        diverged = next((point for point in self.loss if not math.isfinite(point.value)), None)
        if diverged is not None:
            self.loss = self.loss[: self.loss.index(diverged)]
            at = "" if diverged.iterations is None else f" from iteration {diverged.iterations:g} on"
            self.warnings.append(f"the loss is {diverged.value}{at}, which cannot be drawn")
        if self.learned_nothing:
            self.warnings.append(f"the run learned nothing or diverged: its last AUC is {self.auc[-1].value:.4f}")
        elif log.all("run_start") and not log.all("run_stop"):
            self.warnings.append("the log ends before the run does: it has no run_stop")
        elif log.status not in (None, "success"):
            self.warnings.append(f"the run ended with the status {log.status}")
        elif log.status is None and last is not None and self._ends_early(last):
            self.warnings.append(f"the log ends within an epoch, at iteration {last['it']} of {last['n']}")
        self.warnings += _on_events(log)

    def _ends_early(self, last: re.Match[str]) -> bool:
        """Return whether a run ends neither with an epoch nor with the target. last: its last training line."""
        best = max((point.value for point in self.auc), default=0.0)
        return int(last["it"]) < int(last["n"]) and best < self.benchmark.auc_target


def _benchmark(log: Log, beside: Path | None) -> Benchmark:
    """Return the benchmark that a log names, otherwise that of the compliance log beside it, otherwise DLRM.

    OtherBenchmarkError if the log names one that is not supported.
    """
    other = other_benchmark(log, *BENCHMARKS)
    if other is not None:
        raise OtherBenchmarkError(log.path, other[1])
    names = [_text(each, _NAME) for each in (log, *_readable(beside)) if each.all(_NAME)]
    return next((BENCHMARKS[name] for name in names if name in BENCHMARKS), DLRM)


def _readable(path: Path | None) -> Iterator[Log]:
    """Yield a log if it can be read."""
    if path is not None:
        with suppress(RunError):
            yield read_log(path, timed=False)


def _on_events(log: Log) -> Iterator[str]:
    """Yield what the curve of a compliance log does not show."""
    starts = [event.time_ms for event in log.all("run_start")]
    if starts and max(starts) - min(starts) > _SAME_START_MS:
        yield "the log contains several runs, which are drawn as one"
    evaluations = log.all("eval_accuracy")
    invalid = [event for event in evaluations if not is_fraction(event.value)]
    if invalid:
        yield f"{len(invalid)} of {len(evaluations)} values of eval_accuracy are not an AUC and are not drawn"


# Beginnings of descriptions that are not merely the name of a format.
_STATEMENTS = ("the file is ", "no MLPerf event ", "a log of ")


def _what_is_missing(log: Log) -> str:
    content = other_content(log)
    if content is None:
        has_values = bool(log.all("eval_accuracy"))
        return "none of the eval_accuracy values is an AUC" if has_values else "the log has no eval_accuracy"
    if content.startswith("text "):
        return "not a log: text without lines of the training or of tests, and without MLPerf events"
    return content if content.startswith(_STATEMENTS) else f"not a log: {content}"


def _read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a log. A line onto which several processes printed is split."""
    try:
        with open_regular(path) as file, io.TextIOWrapper(io.BufferedReader(file), "utf-8", "replace") as text:
            for line in text:
                if "Finished training it " in line:
                    yield from _LINE_START.split(line)
                else:
                    yield line
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None


def _text(log: Log, key: str) -> str:
    value = log.value(key)
    return value.strip() if isinstance(value, str) else ""


def _means(points: list[Point]) -> list[Point]:
    """Return one point per position, in order: the mean of the values that several processes printed."""
    values: dict[tuple[float | None, float], list[float]] = {}
    for point in points:
        values.setdefault((point.iterations, point.epochs), []).append(point.value)
    return [Point(*at, fmean(found)) for at, found in sorted(values.items(), key=lambda item: item[0][1])]


def _position(match: re.Match[str]) -> tuple[float, float]:
    """Return iterations and epochs since the start of the run."""
    iteration, batches, epoch = (int(match[name]) for name in ("it", "n", "epoch"))
    return epoch * batches + iteration, epoch + iteration / max(batches, 1)
