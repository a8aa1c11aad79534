"""The editions that a result may belong to, seen together with the other results of its package."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from mlperf.benchmarks import Edition
from mlperf.compliance.edition import Recognition, recognize
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
    return _recognize_package(tuple(_stamps(result.package)))


def judge_candidates(recognition: Recognition, judge: Callable[[Edition, str], Report]) -> Report:
    """Return the report for the likeliest edition, with those for the others in `alternatives`.

    judge: makes the report for an edition; the text says how it was recognized.
    """
    first, *others = recognition.candidates
    report = judge(first, recognition.reason)
    report.alternatives = [judge(other, f"in doubt, beside {first.name}") for other in others]
    return report


def _stamps(package: Path) -> Iterator[Stamp]:
    for result in find_results(package):
        for path in result.logs:
            if path.is_file():
                status = path.stat()
                yield path, status.st_mtime_ns, status.st_size


@lru_cache(maxsize=8)
def _recognize_package(files: tuple[Stamp, ...]) -> Recognition:
    """Return the recognition for a package. It is the same for all its results, so it is computed once."""
    logs = []
    for path, _, _ in files:
        try:
            logs.append(read_log(path))
        except RunError:
            continue  # reported where the log itself is checked
    return recognize(logs)
