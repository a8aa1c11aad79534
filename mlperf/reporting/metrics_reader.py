"""Reader of metrics files. Does not need PyTorch."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlperf.settings.run import METRICS_FILE
from mlperf.util.errors import RunError
from mlperf.util.files import open_regular
from mlperf.util.printable import shown
from mlperf.util.strict_json import SchemaError, parse_json, refuse, whole

Record = dict[str, Any]

METRICS_SUFFIX = METRICS_FILE.suffix
MAX_LINE = 1 << 24  # bytes; records have a few hundred, a run_start some thousand

MAX_NUMBER = 1e300  # larger numbers could not be computed with
# Events that a run repeats when it is resumed from an earlier position.
_REPEATED = ("epoch_start", "progress", "evaluation_start", "evaluation_stop", "checkpoint", "time_breakdown")


@dataclass(frozen=True)
class RunRecords:
    """The records of one run, which may have been resumed.

    records: in order. What a resumed run repeats occurs once. Each has the entry "elapsed": seconds of training
    since the start, without the time between the end of a run and its continuation.
    size: bytes of the complete lines; a line that is still being written, or was cut by a kill, is left out.
    """

    path: Path
    records: tuple[Record, ...]
    size: int

    @property
    def start(self) -> Record:
        """The first record of the run or, if it was resumed, of its last part."""
        return self.of("run_start")[-1]

    @property
    def outcome(self) -> str | None:
        """The outcome of the run; None if it is running or was killed."""
        last = self.records[-1]
        return last["outcome"] if last["event"] == "run_stop" else None

    def of(self, event: str) -> list[Record]:
        """Return the records of an event."""
        return [record for record in self.records if record["event"] == event]


def is_metrics_file(path: Path) -> bool:
    """Return whether the first line of a file is a record. RunError if it cannot be read."""
    try:
        with open_regular(path) as file:
            first, _, _ = file.read(MAX_LINE).partition(b"\n")
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None
    if not first.startswith(b"{"):
        return False
    try:
        record = parse_json(first)
    except SchemaError:
        return False
    return isinstance(record, dict) and isinstance(record.get("event"), str) and "time" in record


def read_records(path: Path) -> RunRecords:
    """Return the records of a metrics file. RunError if it cannot be read, or names the line that is wrong."""
    records: list[Record] = []
    part, offset, size = 0.0, 0.0, 0  # start and earlier seconds of this part of the run; bytes read
    resumes = False
    try:
        for number, line in enumerate(_lines(path), start=1):
            record = _checked(line, number)
            if record["event"] == "run_start":
                part, offset = record["time"], records[-1]["elapsed"] if records else 0.0
                resumes = bool(records)
            elif not records:
                raise SchemaError(
                    f"line {number}: the first event is {shown(record['event'])}, must be 'run_start'"
                )
            elif resumes and record["event"] == "epoch_start":
                records, offset = _continued(records, record)
                resumes = False
            records.append({**record, "elapsed": offset + max(record["time"] - part, 0.0)})
            size += len(line)
    except SchemaError as error:
        raise RunError(f"{path}: {error}") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None
    if not records:
        raise RunError(f"{path}: no metrics file: it has no complete line")
    return RunRecords(path, tuple(records), size)


def _continued(records: list[Record], resumed: Record) -> tuple[list[Record], float]:
    """Return the records without those that the resumed run repeats, and the seconds that led to its position."""
    start = next(index for index in reversed(range(len(records))) if records[index]["event"] == "run_start")
    where = (resumed["epoch"], resumed["iteration"])
    kept = [
        record
        for record in records[:start]
        if record["event"] not in _REPEATED
        or ("epoch" in record and (record["epoch"], record["iteration"]) <= where)
    ]
    earlier = [record["elapsed"] for record in kept if record["event"] in _REPEATED]
    offset = earlier[-1] if earlier else 0.0
    since = records[start]["elapsed"]
    later = [{**record, "elapsed": offset + record["elapsed"] - since} for record in records[start:]]
    return kept + later, offset


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the complete lines of a file."""
    with open_regular(path) as file, io.BufferedReader(file) as lines:
        number = 0
        while line := lines.readline(MAX_LINE):
            number += 1
            if not line.endswith(b"\n"):
                if len(line) == MAX_LINE:
                    raise SchemaError(f"line {number}: has more than {MAX_LINE:,} bytes")
                return
            yield line


def _checked(line: bytes, number: int) -> Record:
    """Return the record of a line. SchemaError, which names the line, if it is none."""
    try:
        record = parse_json(line)
        if not isinstance(record, dict):
            refuse("the record", record, "an object")
        _text(record.get("event"), "event")
        if _real(record.get("time"), "time") is None:
            refuse("time", None, "a number")
        entries = _ENTRIES.get(record["event"], {})
        if record["event"] in _EVALUATION and _POSITION.keys() & record.keys():
            entries = entries | _POSITION
        for key, check in entries.items():
            if key not in record:
                raise SchemaError(f"{shown(record['event'])} lacks {key}")
            check(record[key], key)
    except SchemaError as error:
        raise SchemaError(f"line {number}: {error}") from None
    return record


def _real(value: object, where: str) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        refuse(where, value, "a number or null")
    if value is not None and not abs(value) < MAX_NUMBER:
        refuse(where, value, f"a number below {MAX_NUMBER:g}")
    return value


def _count(value: object, where: str) -> None:
    whole(value, where, 0)


def _positive(value: object, where: str) -> None:
    whole(value, where, 1)


def _text(value: object, where: str) -> None:
    if not isinstance(value, str):
        refuse(where, value, "a text")


def _object(value: object, where: str) -> None:
    if not isinstance(value, dict):
        refuse(where, value, "an object")


_Check = Callable[[object, str], Any]
_POSITION: dict[str, _Check] = {"epoch": _count, "iteration": _count, "batches_per_epoch": _positive}
_METRICS = ("accuracy", "recall", "precision", "f1", "average_precision", "auc", "best_accuracy", "best_auc")
# Events with a position, unless the run does not train.
_EVALUATION = ("evaluation_start", "evaluation_stop")
# The entries that records of an event must have. Others are allowed, as are other events.
_ENTRIES: dict[str, dict[str, _Check]] = {
    "run_start": {"version": _text, "engine": _text, "benchmark": _text, "settings": _object, "system": _object}
    | {"auc_target": _real, "seed": _count},
    "epoch_start": _POSITION,
    "progress": _POSITION
    | dict.fromkeys(("loss", "accuracy", "ms_per_iteration", "learning_rate"), _real)
    | {"samples": _count},
    "evaluation_stop": dict.fromkeys((*_METRICS, "seconds"), _real),
    "checkpoint": _POSITION | {"path": _text, "kind": _text},
    "time_breakdown": {"breakdown": _object},
    "run_stop": {"outcome": _text},
}


def position_of(record: Record) -> tuple[float, float]:
    """Return the iterations and the epochs since the start of the run at which an event happened."""
    batches = record["batches_per_epoch"]
    iterations = record["epoch"] * batches + record["iteration"]
    return iterations, record["epoch"] + record["iteration"] / batches
