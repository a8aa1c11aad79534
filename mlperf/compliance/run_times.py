"""Times in a log that contradict each other, or that are no times of a run."""

from __future__ import annotations

import datetime

from mlperf.compliance.log_reader import Event, Log
from mlperf.util.plural import counted

OUTSIDE = "outside of the run by its time"
# Clocks that were not set, and times in other units than milliseconds, lie outside of this range.
_FIRST_MS = datetime.datetime(2018, 1, 1, tzinfo=datetime.UTC).timestamp() * 1000  # the year of the first round
_LAST_MS = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC).timestamp() * 1000
# Threads and nodes log with slightly different clocks. In published logs the difference is at most 5 ms.
_TOLERANCE_MS = 1000
_ORDER_TOLERANCE_MS = 100
# Events whose lines are in the order of their times. The others state settings and results; published logs contain
# them in any order and with any time, because some programs write them when the run is over.
_COURSE = (
    *("run_start", "block_start", "epoch_start", "eval_start", "eval_accuracy"),
    *("eval_stop", "epoch_stop", "block_stop", "run_stop"),
)


def is_plausible(time_ms: float) -> bool:
    """Return whether a time may be that of a run."""
    return _FIRST_MS < time_ms < _LAST_MS


def outside_of_run(log: Log) -> tuple[int, str] | None:
    """Return line and description of the first evaluation that its time places before run_start or after run_stop.

    The time of a run with such an evaluation is not that of its training. The official checkers compare the order
    of the lines only.
    """
    ends = _ends(log)
    if len(ends) < 2:
        return None
    start, stop = (event.time_ms for event in ends)
    evaluations = log.all("eval_accuracy")
    early = [(event, start - event.time_ms, "before run_start") for event in evaluations]
    late = [(event, event.time_ms - stop, "after run_stop") for event in evaluations]
    outside = [entry for entry in (*early, *late) if entry[1] > _TOLERANCE_MS]
    if not outside:
        return None
    event, distance, where = min(outside, key=lambda entry: entry[0].line)
    count = len({entry[0].line for entry in outside})
    return (
        event.line,
        f"{OUTSIDE}: {distance / 1000:.4g} s {where} ({count} of {len(evaluations)} evaluations)",
    )


def decreasing_time(log: Log) -> tuple[int, str] | None:
    """Return line and description of the first event that is earlier than one before it, or None.

    The clock was set, and the time of the run is unknown. Logs of this project have one clock, and none of their
    times may decrease.
    """
    is_ours = any("edition" in event.metadata for event in log.all("submission_benchmark"))
    latest: Event | None = None
    for event in log.events:
        if not (is_ours or event.key in _COURSE):
            continue
        if latest is None or event.time_ms >= latest.time_ms:
            latest = event
        elif latest.time_ms - event.time_ms > (0 if is_ours else _ORDER_TOLERANCE_MS):
            return event.line, (
                f"the time decreases: {event.key} has time_ms {event.time_ms:.15g}, "
                f"{latest.key} in line {latest.line} has {latest.time_ms:.15g}"
            )
    return None


def repeated_end(log: Log) -> tuple[int, str] | None:
    """Return line and description of a second start or end of the run, or None: its time is not clear."""
    for key in ("run_start", "run_stop"):
        events = log.all(key)
        if len(events) > 1:
            times = counted(len(events), "time")
            return events[1].line, f"{key} is logged {times}, first in line {events[0].line}"
    return None


def implausible_time(log: Log) -> tuple[int, str] | None:
    """Return line and description of the start or the end of a run whose time is not Unix time in ms, or None.

    Two published results have times since the start of their programs.
    """
    event = next((event for event in _ends(log) if not is_plausible(event.time_ms)), None)
    if event is None:
        return None
    return event.line, f"{event.key} has time_ms {event.time_ms:.15g}, not the time of a run in ms since 1970"


def _ends(log: Log) -> list[Event]:
    """Return the events between which the time of a run is measured, as far as they exist."""
    return [event for key in ("run_start", "run_stop") for event in log.all(key)[:1]]
