"""The editions that a result may belong to, seen together with the other results of its package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from mlperf.benchmarks import BENCHMARKS, Benchmark, Edition, editions_of
from mlperf.compliance import official
from mlperf.compliance.edition import Recognition, day_of_first_event, recognize
from mlperf.compliance.log_reader import Log, read_log
from mlperf.submission.report import Report
from mlperf.submission.results import Result, benchmark_of, find_results, results_around
from mlperf.util.errors import RunError


class EditionCandidates:
    """The editions that results and logs may belong to.

    The recognition of a package serves all its results of the same benchmark.
    """

    def __init__(self) -> None:
        self._by_package: dict[tuple[Path, str], Recognition] = {}

    def of_log(self, log: Log) -> Recognition:
        """Return the editions that a log may belong to, judged with all logs of its package if it is in one."""
        for result in results_around(log.path.parent):
            if log.path.name in {path.name for path in result.logs}:
                return self.of_result(result, [log])
        return recognize([log], among=_editions_of(BENCHMARKS.get(str(log.value("submission_benchmark")))))

    def of_result(self, result: Result, logs: Sequence[Log]) -> Recognition:
        """Return the editions that a result may belong to. logs: its logs."""
        benchmark = benchmark_of(result, logs)
        if not result.in_package or benchmark is None:
            return recognize(logs, among=_editions_of(benchmark))
        key = (result.package, benchmark.name)
        if key not in self._by_package:
            self._by_package[key] = _recognize_package(result.package, benchmark)
        return self._by_package[key]


def judge_candidates(recognition: Recognition, judge: Callable[[Edition, str], Report]) -> Report:
    """Return the report for the likeliest edition, with those for the others in `alternatives`.

    judge: makes the report for an edition; the text says how it was recognized.
    """
    first, *others = recognition.candidates
    report = judge(first, recognition.reason)
    report.alternatives = [judge(other, f"in doubt, beside {first.name}") for other in others]
    return report


def _editions_of(benchmark: Benchmark | None) -> tuple[Edition, ...]:
    return () if benchmark is None else editions_of(benchmark)


def _recognize_package(package: Path, benchmark: Benchmark) -> Recognition:
    """Return the recognition for the results of a benchmark in a package.

    Of results of benchmarks that are not supported, the names of the benchmarks and the days of the runs matter.
    """
    ours = [result for result in find_results(package) if result.folder.name == benchmark.name]
    others = [path for path in package.glob("results/*/*/result_*.txt") if path.parent.name not in BENCHMARKS]
    logs, days = [], []
    for path in sorted(path for result in ours for path in result.logs if path.is_file()):
        with suppress(RunError):  # reported where the log itself is checked
            logs.append(read_log(path))
    for path in sorted(filter(Path.is_file, others)):
        with suppress(OSError):
            days.append(day_of_first_event(path))
    names = {path.parent.name for path in others}
    descriptions = {result.description for result in ours if result.description.is_file()}

    def other_faults(edition: Edition) -> int:
        refused = sum(len(official.check_system(file, edition).errors) for file in descriptions)
        return refused + len(names - official.included_benchmarks(edition))

    return recognize(logs, filter(None, days), among=editions_of(benchmark), other_faults=other_faults)
