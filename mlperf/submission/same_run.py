"""Find logs that record the same run, whatever their names, seeds, prefixes and line ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from pathlib import Path

from mlperf.compliance.findings import Finding
from mlperf.compliance.log_reader import Event, Log, read_log
from mlperf.submission.results import Result, find_results
from mlperf.util.errors import RunError

Times = frozenset[tuple[str, float]]  # key and time of the events in _TIMED

SAME_RUN = "the same run as in "  # start of findings about a run that another log records

_TIMED = ("run_start", "eval_accuracy", "run_stop")
_MIN_INTERVALS = 3  # that no two runs have in common to the millisecond


def same_runs(logs: Sequence[Log]) -> Iterator[Finding]:
    """Yield a finding for each log that records the run of an earlier log of the result.

    Two logs record the same run if at least half of their events have the same times, or if all evaluations have
    the same AUCs at the same intervals.
    """
    copies: set[int] = set()
    for first, second in combinations(range(len(logs)), 2):
        if copies & {first, second}:
            continue
        reason = _same_times(logs[first], logs[second]) or _same_course(logs[first], logs[second])
        if reason is not None:
            copies.add(second)
            text = f"{SAME_RUN}{logs[first].path.name}: {reason}; each log must be of a run of its own"
            yield Finding(logs[second].path, _start_line(logs[second]), text)


def runs_of_other_results(result: Result, logs: Sequence[Log]) -> Iterator[Finding]:
    """Yield a finding for each log that records a run of another result in the same package."""
    if not result.in_package:
        return
    others = [other for other in find_results(result.package) if other.folder != result.folder]
    times_elsewhere = {path: _times_in(path) for other in others for path in other.logs}
    for log in logs:
        times = _times(log)
        for path, other_times in times_elsewhere.items():
            if (reason := _equal_times(times, other_times)) is not None:
                text = f"{SAME_RUN}{path}: {reason}; each result must have runs of its own"
                yield Finding(log.path, _start_line(log), text)
                break


def similar_runs(logs: Sequence[Log], *, seeds_compared: bool) -> Iterator[str]:
    """Yield notes about other pairs of logs with the same AUCs, intervals between evaluations, or seeds.

    seeds_compared: whether a check compares the seeds.
    """
    for first, second in combinations(logs, 2):
        if _same_times(first, second) is not None or _same_course(first, second) is not None:
            continue  # a finding of same_runs
        values, others = ([event.value for event in _evaluations(log)] for log in (first, second))
        names = f"{first.path.name} and {second.path.name}"
        if values == others and len(set(map(str, values))) > 1:
            yield f"{names} have the same AUC at each of {len(values)} evaluations: are they different runs?"
        elif len(times := _intervals(first)) >= _MIN_INTERVALS and times == _intervals(second):
            yield f"{names} have the same times between {len(times) + 1} evaluations: are they different runs?"
        elif not seeds_compared and (seeds := _seeds(first)) and seeds == _seeds(second):
            yield f"{names} have the same seed, {', '.join(sorted(seeds))}; seeds are not compared here"


def _start_line(log: Log) -> int:
    starts = log.all("run_start")
    return starts[0].line if starts else 1


def _same_times(first: Log, second: Log) -> str | None:
    return _equal_times(_times(first), _times(second))


def _equal_times(times: Times, others: Times) -> str | None:
    common, least = times & others, min(len(times), len(others))
    if len({time for _, time in common}) < 2 or 2 * len(common) < least:
        return None
    return f"{len(common)} of {least} times of {', '.join(_TIMED[:-1])} and {_TIMED[-1]} are equal"


def _times(log: Log) -> Times:
    return frozenset((event.key, event.time_ms) for event in log.events if event.key in _TIMED)


def _times_in(path: Path) -> Times:
    """Return the times in a log of another result; none if it cannot be read."""
    try:
        return _times(read_log(path))
    except RunError:
        return frozenset()


def _same_course(first: Log, second: Log) -> str | None:
    course, other = _course(first), _course(second)
    if course != other or len({value for _, value in course}) < 2:
        return None
    return f"{len(course)} evaluations have the same AUC at the same time after the first"


def _course(log: Log) -> list[tuple[float, str]]:
    evaluations = _evaluations(log)
    return [(event.time_ms - evaluations[0].time_ms, repr(event.value)) for event in evaluations]


def _intervals(log: Log) -> list[float]:
    return [later.time_ms - earlier.time_ms for earlier, later in pairwise(_evaluations(log))]


def _evaluations(log: Log) -> list[Event]:
    return log.all("eval_accuracy")


def _seeds(log: Log) -> set[str]:
    return {str(event.value) for event in log.all("seed") if event.value is not None}
