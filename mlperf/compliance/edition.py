"""Recognition of the edition that logs belong to, by what they name, their keys, their dates and the rules.

A package belongs to one edition, so all its logs are judged together. If the evidence is inconclusive, there are
several candidates.
"""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlperf.benchmarks import DLRM, EDITIONS, Edition, default_edition
from mlperf.compliance import official
from mlperf.compliance.log_reader import TOKEN, Log, parse_event
from mlperf.compliance.run_times import is_plausible


@dataclass(frozen=True)
class Recognition:
    """The editions that logs may belong to, the likeliest first, and the reason."""

    candidates: tuple[Edition, ...]
    reason: str


def recognize(
    logs: Sequence[Log],
    other_days: Iterable[datetime.date] = (),
    *,
    among: Sequence[Edition] = (),
    other_faults: Callable[[Edition], int] = lambda edition: 0,
) -> Recognition:
    """Return the candidates for the edition of all logs of a package, of a result, or of one log.

    Logs of this project name it. Otherwise a candidate has the keys of the logs, its round was published after the
    runs, and its rules report the fewest errors. Results may be submitted again in a later round, so several
    candidates often remain.

    other_days: days of runs of other benchmarks in the same package. among: the editions that come into question,
    in order; if empty, all. other_faults: number of faults that an edition finds with the rest of the package.
    """
    if not any(log.events for log in logs):
        default = among[-1] if among else default_edition(DLRM)
        return Recognition((default,), "there is no log to tell")
    if named := _named(logs):
        names = " and ".join(edition.name for edition in named)
        reason = "as its run logged" if len(named) == 1 else f"in doubt: the runs logged {names}"
        return Recognition(tuple(named), reason)
    among = among or tuple(EDITIONS.values())

    def least_faults(editions: list[Edition]) -> list[Edition]:
        return _least_faults(editions, logs, other_faults)

    by_keys, day = _with_keys_of(logs, among), max(filter(None, map(day_of_run, logs)), default=None)
    last = max(edition.published for edition in among)
    if day is not None and day <= last:
        day = max([day, *(other for other in other_days if other <= last)])
    by_date = [edition for edition in among if day is not None and day <= edition.published]
    if not by_date:
        return _latest_first(least_faults(by_keys), day)
    both = [edition for edition in by_keys if edition in by_date]
    if both:
        return _earliest_first(least_faults(both), day)
    by_keys, by_date = least_faults(by_keys), least_faults(by_date)
    reason = f"in doubt: by its keys, but its dates, {day}, are those of {by_date[0].name} or later"
    return Recognition((by_keys[-1], *by_date), reason)


def day_of_run(log: Log) -> datetime.date | None:
    """Return the day of the run in UTC, or None if no time in the log is plausible.

    It is the median, because some programs log some of their events with times in seconds or since their start.
    """
    return _day([event.time_ms for event in log.events])


def day_of_first_event(path: Path) -> datetime.date | None:
    """Return the day in UTC of the first event with a plausible time; None if there is none. OSError as in `open`.

    The rest of the log, which may be long, is not read.
    """
    with path.open(encoding="latin-1", newline="") as lines:
        for line in lines:
            event = parse_event(1, line.rpartition(TOKEN)[2]) if TOKEN in line else None
            if event is not None and (day := _day([event.time_ms])) is not None:
                return day
    return None


def _day(times_ms: Sequence[float]) -> datetime.date | None:
    times = [time for time in times_ms if is_plausible(time)]
    if not times:
        return None
    return datetime.datetime.fromtimestamp(statistics.median(times) / 1000, datetime.UTC).date()


def _named(logs: Sequence[Log]) -> list[Edition]:
    """Return the editions that the logs name, in order of their first appearance."""
    names = [event.metadata.get("edition") for log in logs for event in log.all("submission_benchmark")]
    return [EDITIONS[name] for name in dict.fromkeys(map(str, names)) if name in EDITIONS]


def _with_keys_of(logs: Sequence[Log], among: Sequence[Edition]) -> list[Edition]:
    """Return the editions whose keys the logs have; all those of `among` if there is none.

    The open division requires none of the keys that tell the editions apart.
    """
    keys = {event.key for log in logs for event in log.events}
    closed = any(log.value("submission_division") != "open" for log in logs)
    editions, found = list(among), []
    for number, edition in enumerate(editions):
        earlier = [other for other in editions[: number + 1] if other.benchmark is edition.benchmark]
        required = {key for other in earlier for key in other.new_keys}
        introduced = (other.new_keys | other.new_optional_keys for other in editions[number + 1 :])
        later = frozenset[str]().union(*introduced) - edition.early_keys
        if not later & keys and (required <= keys or not closed):
            found.append(edition)
    return found or editions


def _least_faults(
    editions: list[Edition], logs: Sequence[Log], other_faults: Callable[[Edition], int]
) -> list[Edition]:
    """Return the editions whose checkers report the fewest errors."""
    if len(editions) == 1:
        return editions
    counts = [
        sum(len(official.check_compliance(log.path, edition).errors) for log in logs) + other_faults(edition)
        for edition in editions
    ]
    return [edition for edition, count in zip(editions, counts, strict=True) if count == min(counts)]


def _latest_first(candidates: list[Edition], day: datetime.date | None) -> Recognition:
    if len(candidates) == 1:
        return Recognition((candidates[0],), "by its keys")
    dates = "has no dates" if day is None else f"was made on {day}, after all rounds"
    reason = f"in doubt: by its keys, it {dates}; {_others(candidates[-2::-1])} are as likely"
    return Recognition(tuple(candidates[::-1]), reason)


def _earliest_first(candidates: list[Edition], day: datetime.date | None) -> Recognition:
    if len(candidates) == 1:
        return Recognition((candidates[0],), f"by its keys and dates, {day}")
    again = f"{_others(candidates[1:])} if the runs were submitted again"
    return Recognition(tuple(candidates), f"in doubt: by its keys and dates, {day}; {again}")


def _others(editions: list[Edition]) -> str:
    names = [edition.name for edition in editions]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
