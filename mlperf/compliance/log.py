"""Reading MLPerf logs, this project's and others', with the line each event stands on."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlperf.util.errors import RunError

TOKEN = ":::MLLOG "


@dataclass(frozen=True)
class Event:
    """One event: `line` counts from 1 in its file, `time_ms` is None where the log gives no number."""

    line: int
    key: str
    value: Any
    metadata: dict[str, Any]
    time_ms: float | None


@dataclass(frozen=True)
class Log:
    """A log: its events, the lines with an event that cannot be read, and where every event line stands.

    marked: the lines that hold the token, in order; the official checker counts in these, from 0.
    lines: the lines of the file, at least 1.
    """

    path: Path
    events: tuple[Event, ...]
    damaged: tuple[int, ...]
    marked: tuple[int, ...]
    lines: int

    def all(self, key: str) -> list[Event]:
        """Return the events of this key, in order."""
        return [event for event in self.events if event.key == key]

    def value(self, key: str) -> Any:
        """Return the first value logged under this key, or None."""
        return next((event.value for event in self.events if event.key == key), None)

    @property
    def minutes(self) -> float | None:
        """The time from the first run_start to the first run_stop."""
        times = [next((event.time_ms for event in self.all(key)), None) for key in ("run_start", "run_stop")]
        start, stop = times
        return None if start is None or stop is None else (stop - start) / 60_000

    @property
    def stopped(self) -> str | None:
        """The status of run_stop; None without one. Of several, as every node logs one, the worst."""
        statuses = [str(event.metadata.get("status")) for event in self.all("run_stop")]
        return next((status for status in statuses if status != "success"), statuses[0] if statuses else None)

    @property
    def best(self) -> Event | None:
        """The evaluation with the highest AUC; what is no AUC does not count."""
        areas = [event for event in self.all("eval_accuracy") if is_share(event.value)]
        return max(areas, key=lambda event: event.value, default=None)

    @property
    def oddities(self) -> list[tuple[int, str]]:
        """Lines and what is wrong there that the official checker may let pass: it compares without looking."""
        found = []
        for event in self.all("eval_accuracy"):
            if not is_share(event.value):
                found.append((event.line, f"eval_accuracy is {shown(event.value)}, not a number from 0 to 1"))
            if "epoch_num" in event.metadata and not is_number(event.metadata["epoch_num"]):
                found.append((event.line, f"epoch_num is {shown(event.metadata['epoch_num'])}, not a number"))
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            line = self.all("run_stop")[0].line
            found.append((line, f"the run took {self.minutes:g} minutes from run_start to run_stop"))
        return found


def is_number(value: object) -> bool:
    """Say whether a value read from JSON is a finite number; JSON as Python reads it has NaN and Infinity."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_share(value: object) -> bool:
    """Say whether a value read from JSON is a number from 0 to 1, as an AUC is."""
    return is_number(value) and 0 <= value <= 1  # type: ignore[operator]


def shown(value: object) -> str:
    """Return a value read from JSON as text for a line of a report."""
    huge = isinstance(value, int) and abs(value) > sys.float_info.max  # its digits may be too many to print
    text = "a number out of range" if huge else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def evaluated(event: Event) -> str:
    """Return what an evaluation found, and when: to three digits, as the convergence checker rounds epochs."""
    epoch = event.metadata.get("epoch_num")
    return f"AUC {event.value:.5f} at epoch {f'{epoch:.3f}' if is_number(epoch) else 'unknown'}"


def read_log(path: Path) -> Log:
    """Read a log; what stands before the token on a line, as launchers print it, is passed over.

    RunError if there is no such file, it is a folder or a pipe, or it cannot be read.
    """
    events: list[Event] = []
    damaged: list[int] = []
    marked: list[int] = []
    number = last = 1
    try:
        if path.exists() and not path.is_file():
            raise RunError(f"{path}: not a file")
        # As the official parser reads: every byte is a character, and a carriage return ends a line. Numbered,
        # as in an editor, are the lines that a newline ends: progress bars return within one.
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
