"""Reads MLPerf logs, this project's and others', and keeps the line number of each event."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from mlperf.util.errors import RunError

TOKEN = ":::MLLOG "
_MAX_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class Event:
    """One event of a log. `line` counts from 1; `time_ms` is in milliseconds since the epoch of Unix."""

    line: int
    key: str
    value: Any
    metadata: dict[str, Any]
    time_ms: float


@dataclass(frozen=True)
class Log:
    """The events of one log file.

    damaged: numbers of the lines with the token whose event cannot be read.
    marked: numbers of all lines with the token, in order. The official checker counts only these, from 0.
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
        """The status of run_stop, or None without one. Each node may log one; any that is not "success" wins."""
        statuses = [str(event.metadata.get("status")) for event in self.all("run_stop")]
        return next((status for status in statuses if status != "success"), statuses[0] if statuses else None)

    @property
    def best(self) -> Event | None:
        """The evaluation with the highest AUC; values that are not an AUC are ignored."""
        evaluations = [event for event in self.all("eval_accuracy") if is_share(event.value)]
        return max(evaluations, key=lambda event: event.value, default=None)

    @property
    def invalid_values(self) -> list[tuple[int, str]]:
        """Line and description of each value that is not valid. The official checker lets some of them pass."""
        found = []
        for event in self.all("eval_accuracy"):
            if not is_share(event.value):
                found.append((event.line, f"eval_accuracy is {as_text(event.value)}, not a number from 0 to 1"))
            if "epoch_num" in event.metadata and not is_number(event.metadata["epoch_num"]):
                found.append((event.line, f"epoch_num is {as_text(event.metadata['epoch_num'])}, not a number"))
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            line = self.all("run_stop")[0].line
            found.append((line, f"the run took {self.minutes:g} minutes from run_start to run_stop"))
        return found


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a value read from JSON is a finite number. Python reads NaN and Infinity from JSON too."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_share(value: object) -> TypeGuard[int | float]:
    """Return whether a value read from JSON is a number from 0 to 1, as an AUC is."""
    return is_number(value) and 0 <= value <= 1


def as_text(value: object) -> str:
    """Return a value read from JSON as short text for a message."""
    too_long = isinstance(value, int) and abs(value) > sys.float_info.max  # Python refuses to print so many digits
    text = "a number out of range" if too_long else repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


def describe_evaluation(event: Event) -> str:
    """Return AUC and epoch of an evaluation, the epoch to 3 digits as the convergence checker rounds it."""
    epoch = event.metadata.get("epoch_num")
    return f"AUC {event.value:.5f} at epoch_num {f'{epoch:.3f}' if is_number(epoch) else 'unknown'}"


def read_log(path: Path) -> Log:
    """Read a log. Text before the token on a line, such as a launcher's prefix, is ignored.

    RunError if there is no such file, if it is a folder or a pipe, or if it cannot be read.
    """
    events: list[Event] = []
    damaged: list[int] = []
    marked: list[int] = []
    number = last = 1
    try:
        if path.exists() and not path.is_file():
            raise RunError(f"{path}: not a file")
        # The official parser reads any byte as a character and ends a line at a carriage return too. Line numbers
        # follow editors, which do not: progress bars print carriage returns within a line.
        with path.open(encoding="latin-1", newline="") as lines:
            for line in lines:
                last = number
                number += line.endswith("\n")
                if TOKEN not in line:
                    continue
                marked.append(last)
                event = _parse(last, line.rpartition(TOKEN)[2])
                if event is None:
                    damaged.append(last)
                else:
                    events.append(event)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None
    return Log(path, tuple(events), tuple(damaged), tuple(marked), last)


def _parse(number: int, text: str) -> Event | None:
    try:
        content = json.loads(text)
        time_ms = float(content["time_ms"])
        return Event(number, str(content["key"]), content["value"], dict(content["metadata"] or {}), time_ms)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
