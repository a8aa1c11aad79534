"""The editions that a result may belong to, seen together with the other results of its package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from mlperf.benchmarks import Edition
from mlperf.compliance.edition import Recognition, day_of_first_event, recognize
from mlperf.compliance.log_reader import Log, read_log
from mlperf.submission.report import Report
from mlperf.submission.results import Result, find_results, results_around
from mlperf.util.errors import RunError


class EditionCandidates:
    """The editions that results and logs may belong to. The recognition of a package serves all its results."""

    def __init__(self) -> None:
        self._by_package: dict[Path, Recognition] = {}

    def of_log(self, log: Log) -> Recognition:
        """Return the editions that a log may belong to, judged with all logs of its package if it is in one."""
        for result in results_around(log.path.parent):
            if log.path.name in {path.name for path in result.logs}:
                return self.of_result(result, [log])
        return recognize([log])

    def of_result(self, result: Result, logs: Sequence[Log]) -> Recognition:
        """Return the editions that a result may belong to. logs: its logs."""
        if not result.in_package:
            return recognize(logs)
        if result.package not in self._by_package:
            self._by_package[result.package] = _recognize_package(result.package)
        return self._by_package[result.package]


def judge_candidates(recognition: Recognition, judge: Callable[[Edition, str], Report]) -> Report:
    """Return the report for the likeliest edition, with those for the others in `alternatives`.

    judge: makes the report for an edition; the text says how it was recognized.
    """
    first, *others = recognition.candidates
    report = judge(first, recognition.reason)
    report.alternatives = [judge(other, f"in doubt, beside {first.name}") for other in others]
    return report


def _recognize_package(package: Path) -> Recognition:
    """Return the recognition for a package. Of other benchmarks, only the days of their runs matter."""
    ours = {path for result in find_results(package) for path in result.logs}
    others = set(package.glob("results/*/*/result_*.txt")) - ours
    logs, days = [], []
    for path in sorted(filter(Path.is_file, ours)):
        with suppress(RunError):  # reported where the log itself is checked
            logs.append(read_log(path))
    for path in sorted(filter(Path.is_file, others)):
        with suppress(OSError):
            days.append(day_of_first_event(path))
    return recognize(logs, filter(None, days))
