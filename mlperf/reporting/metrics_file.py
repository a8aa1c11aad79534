"""The metrics of a run for other programs: one JSON object per event and line (--metrics-file)."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import torch

from mlperf.distributed.launchers import attempts
from mlperf.reporting.metrics_reader import MAX_LINE, Record, read_records
from mlperf.reporting.records import RecordListener
from mlperf.settings.settings import Settings
from mlperf.training.events import Outcome, Position
from mlperf.util.errors import RunError, UsageError
from mlperf.util.files import has_content, open_regular
from mlperf.util.new_file import NewFile, open_new
from mlperf.util.output_files import require_writable_file, try_to_write
from mlperf.util.whole_lines import WholeLines

_as_json = json.JSONEncoder(allow_nan=False).encode
_ABANDON_SECONDS = 1.0  # for a record that is being written


class MetricsFile(RecordListener):
    """Writes each record to the file at once. The constructor creates the file.

    A file with content is never overwritten: UsageError. With `continues`, the records of a resumed run follow
    those in the file. A run that ends before it starts leaves no file, or the earlier one.

    All methods raise RunError if the file cannot be written. It then ends with the last complete line.
    """

    def __init__(self, settings: Settings, device: torch.device, path: Path, *, continues: bool = False) -> None:
        super().__init__(settings, device)
        self._path = path
        self._file = _open(path, continues=continues)
        self._lines = WholeLines(self._file.fileno())
        if continues and has_content(path):
            self._lines.continue_after(_complete_size(path))
        self._lock = threading.RLock()  # held while a record is written
        self._is_empty = True
        self._stopped = False

    def add(self, record: Record) -> None:
        """Write one line."""
        with self._lock:
            try:
                self._lines.write(_as_json(record))
            except OSError as error:
                raise _failure(self._path, error) from None
            self._is_empty = False

    def run_stop(self, position: Position | None, outcome: Outcome) -> None:
        """Write the outcome and close the file."""
        with self._lock:
            self._stopped = True
            if self._is_empty:
                self._file.discard()
                return
            with self._file:
                super().run_stop(position, outcome)
                try:
                    self._lines.sync()
                except OSError as error:
                    raise _failure(self._path, error) from None

    def abandon(self, position: Position | None, outcome: Outcome) -> None:
        """Do what `run_stop` does, unless it was called. The file then stays locked against further records."""
        if self._lock.acquire(timeout=_ABANDON_SECONDS) and not self._stopped:
            self.run_stop(position, outcome)


def continues_metrics(settings: Settings) -> bool:
    """Return whether the run is a part of an earlier one, whose records are kept.

    It is with --resume, and if torchrun has started it again after a failure (--max-restarts).
    """
    return settings.run.resume or attempts() > 0


def check_metrics_file(path: Path, *, continues: bool = False) -> None:
    """Raise UsageError if the file cannot be written or has content, before anything is opened.

    continues: the records of an earlier part of the run are kept. RunError if the file has something else.
    """
    require_writable_file("--metrics-file", path, allow_streams=True)
    if has_content(path):
        if not continues:
            raise _refusal(path)
        _complete_size(path)
    if not path.exists():
        try_to_write("--metrics-file", path)


def _open(path: Path, *, continues: bool) -> NewFile:
    try:
        return open_new(path, continues=continues)
    except FileExistsError:
        raise _refusal(path) from None
    except OSError as error:
        raise _failure(path, error) from None


def _complete_size(path: Path) -> int:
    """Return the bytes of the complete lines of a metrics file, 0 if it has none."""
    with open_regular(path) as file:
        if b"\n" not in file.read(MAX_LINE):
            return 0
    return read_records(path).size


def _refusal(path: Path) -> UsageError:
    return UsageError(
        f"--metrics-file={path}: exists and is not overwritten; name another file, or remove this one"
    )


def _failure(path: Path, error: OSError) -> RunError:
    return RunError(f"--metrics-file={path}: cannot be written: {error.strerror}")
