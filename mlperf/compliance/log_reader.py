"""Reader of MLPerf logs, of any submitter, that keeps the line number of each event."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

from mlperf.util.errors import RunError
from mlperf.util.printable import shown

TOKEN = ":::MLLOG "
MAX_EVENT = 100_000  # characters; the official checkers take minutes for longer ones. Published events have 450
_MAX_TIME = 2**63


@dataclass(frozen=True)
class Event:
    """One event.

    line: counts from 1. time_ms: Unix time in milliseconds; NaN if missing.
    invalid_time: text of a `time_ms` that is not a whole number of at least 0; None if it is one, or missing.
    """

    line: int
    key: str
    value: Any
    metadata: dict[str, Any]
    time_ms: float
    invalid_time: str | None = None


@dataclass(frozen=True)
class Log:
    """The events of one log file.

    damaged: line numbers of malformed events.
    marked: line numbers of all events, malformed or not, in order. The official checker counts only these, from 0.
    lines: number of lines in the file, at least 1.
    """

    path: Path
    events: tuple[Event, ...]
    damaged: tuple[int, ...]
    marked: tuple[int, ...]
    lines: int

    def all(self, key: str) -> list[Event]:
        """Return the events with this key, in order."""
        return [event for event in self.events if event.key == key]

    def value(self, key: str) -> Any:
        """Return the first value logged under this key, or None."""
        return next((event.value for event in self.events if event.key == key), None)

    @property
    def minutes(self) -> float | None:
        """Minutes from the first run_start to the first run_stop, or None if one is missing."""
        start, stop = (next((event.time_ms for event in self.all(key)), None) for key in ("run_start", "run_stop"))
        return None if start is None or stop is None else (stop - start) / 60_000

    @property
    def status(self) -> str | None:
        """The status of run_stop, None without one; of several (one per node), the first other than "success"."""
        statuses = [str(event.metadata.get("status")) for event in self.all("run_stop")]
        return next((status for status in statuses if status != "success"), statuses[0] if statuses else None)

    @property
    def best(self) -> Event | None:
        """The evaluation with the highest AUC; invalid values are ignored."""
        evaluations = [event for event in self.all("eval_accuracy") if is_fraction(event.value)]
        return max(evaluations, key=lambda event: event.value, default=None)

    @property
    def invalid_values(self) -> list[tuple[int, str]]:
        """(line, description) of each invalid value. The official checker accepts some of them."""
        found = []
        if wrong := [event for event in self.events if event.invalid_time is not None]:
            count = f"{len(wrong)} of {len(self.events)} events"
            text = f"time_ms is {wrong[0].invalid_time}, not a whole number of milliseconds since 1970 ({count})"
            found.append((wrong[0].line, text))
        for event in self.all("eval_accuracy"):
            if not is_fraction(event.value):
                found.append((event.line, f"eval_accuracy is {as_text(event.value)}, not a number from 0 to 1"))
            if "epoch_num" in event.metadata and not is_number(event.metadata["epoch_num"]):
                found.append((event.line, f"epoch_num is {as_text(event.metadata['epoch_num'])}, not a number"))
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            line = self.all("run_stop")[0].line
            found.append((line, f"the run took {self.minutes:g} minutes from run_start to run_stop"))
        return found


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a JSON value is a finite number. Python's parser also accepts NaN and Infinity."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_fraction(value: object) -> TypeGuard[int | float]:
    """Return whether a JSON value is a number in [0, 1], like an AUC."""
    return is_number(value) and 0 <= value <= 1


def as_text(value: object) -> str:
    """Return a JSON value as short text for a message."""
    too_long = (
        isinstance(value, int) and abs(value) > sys.float_info.max
    )  # Python limits the digits of printed integers
    return "a number out of range" if too_long else shown(value)


def describe_evaluation(event: Event) -> str:
    """Return AUC and epoch of an evaluation, the epoch rounded to 3 digits as in the convergence checker."""
    epoch = event.metadata.get("epoch_num")
    return f"AUC {event.value:.5f} at epoch {f'{epoch:.3f}' if is_number(epoch) else 'unknown'}"


def read_log(path: Path, *, timed: bool = True) -> Log:
    """Read a log. Text before the token on a line, such as a launcher's prefix, is ignored.

    timed: whether events without `time_ms` are malformed, as in a result.

    RunError if the file is missing, is a folder or a pipe, cannot be read, or has an event of more than MAX_EVENT
    characters.
    """
    events: list[Event] = []
    damaged: list[int] = []
    marked: list[int] = []
    number = last = 1
    try:
        if path.exists() and not path.is_file():
            raise RunError(f"{path}: not a file")
        # Latin-1, like the official parser, decodes any byte. Unlike the official parser, carriage returns do not
        # end a line: progress bars print them, and editors do not count them.
        with path.open(encoding="latin-1", newline="") as lines:
            for line in lines:
                last = number
                number += line.endswith("\n")
                if TOKEN not in line:
                    continue
                _check_length(path, last, line)
                marked.append(last)
                event = parse_event(last, line.rpartition(TOKEN)[2], timed=timed)
                if event is None:
                    damaged.append(last)
                else:
                    events.append(event)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None
    return Log(path, tuple(events), tuple(damaged), tuple(marked), last)


def parse_event(number: int, text: str, *, timed: bool = True) -> Event | None:
    """Return the event in the JSON after the token of line `number`, or None if it is malformed."""
    try:
        content = json.loads(text)
        given = content["time_ms"] if timed else content.get("time_ms", math.nan)
        event = Event(number, str(content["key"]), content["value"], dict(content["metadata"] or {}), float(given))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    is_valid = type(given) is int and 0 <= given < _MAX_TIME
    return event if is_valid or "time_ms" not in content else replace(event, invalid_time=as_text(given))


def _check_length(path: Path, number: int, line: str) -> None:
    """Raise RunError if an event is too long for the official checkers.

    They end a line at carriage returns, too.
    """
    if len(line) > MAX_EVENT:
        length = max(map(len, line.rstrip("\n").partition(TOKEN)[2].split("\r")))
        if length > MAX_EVENT:
            raise RunError(
                f"{path}:{number}: an event of {length:,} characters; at most {MAX_EVENT:,} are allowed"
            )
