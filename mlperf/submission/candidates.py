"""The editions that a result may belong to, seen together with the other results of its package."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from mlperf.benchmarks import Edition
from mlperf.compliance.edition import Recognition, day_of_first_event, recognize
from mlperf.compliance.log_reader import Log, read_log
from mlperf.submission.report import Report
from mlperf.submission.results import Result, find_results, results_around
from mlperf.util.errors import RunError

Stamp = tuple[Path, int, int]  # a file, its time of change in ns and its size in bytes


def candidates_for_log(log: Log) -> Recognition:
    """Return the editions that a log may belong to, judged with all logs of its package if it is in one."""
    for result in results_around(log.path.parent):
        if log.path.name in {path.name for path in result.logs}:
            return candidates_for_result(result, [log])
    return recognize([log])


def candidates_for_result(result: Result, logs: Sequence[Log]) -> Recognition:
    """Return the editions that a result may belong to. logs: its logs."""
    if not result.in_package:
        return recognize(logs)
    ours = [path for other in find_results(result.package) for path in other.logs]
    others = set(result.package.glob("results/*/*/result_*.txt")) - set(ours)
    return _recognize_package(_stamps(ours), _stamps(others))


def judge_candidates(recognition: Recognition, judge: Callable[[Edition, str], Report]) -> Report:
    """Return the report for the likeliest edition, with those for the others in `alternatives`.

    judge: makes the report for an edition; the text says how it was recognized.
    """
    first, *others = recognition.candidates
    report = judge(first, recognition.reason)
    report.alternatives = [judge(other, f"in doubt, beside {first.name}") for other in others]
    return report


def _stamps(paths: Iterable[Path]) -> tuple[Stamp, ...]:
    files = [(path, path.stat()) for path in sorted(paths) if path.is_file()]
    return tuple((path, status.st_mtime_ns, status.st_size) for path, status in files)


@lru_cache(maxsize=8)
def _recognize_package(files: tuple[Stamp, ...], others: tuple[Stamp, ...]) -> Recognition:
    """Return the recognition for a package. It is the same for all its results, so it is computed once.

    files, others: the logs of the benchmark, and of other benchmarks, of which only the day matters.
    """
    logs, days = [], []
    for path, _, _ in files:
        with suppress(RunError):  # reported where the log itself is checked
            logs.append(read_log(path))
    for path, _, _ in others:
        with suppress(OSError):
            days.append(day_of_first_event(path))
    return recognize(logs, filter(None, days))
