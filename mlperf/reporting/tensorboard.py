"""TensorBoard: curves of the training and of the test metrics over all iterations, and the settings."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from mlperf.reporting.metrics_reader import Record
from mlperf.reporting.points import iteration_of
from mlperf.reporting.records import RecordListener
from mlperf.settings.settings import Settings
from mlperf.training.events import Outcome, Position
from mlperf.util.errors import RunError, UsageError

_log = logging.getLogger(__name__)

# The entries of the records that are drawn, and the names of their curves.
_TRAIN_CURVES = {
    "loss": "Train/Loss",
    "accuracy": "Train/Acc",
    "ms_per_iteration": "Train/ms per iteration",
    "learning_rate": "Train/learning rate",
}
_TEST_CURVES = {
    "accuracy": "Test/Acc",
    "auc": "Test/AUC",
    "f1": "Test/F1",
    "recall": "Test/recall",
    "precision": "Test/precision",
    "average_precision": "Test/average_precision",
}


class TensorBoard(RecordListener):
    """Writes TensorBoard event files into a folder. UsageError if it is a file or tensorboard is missing.

    The constructor and all methods raise RunError if the folder cannot be written.
    """

    def __init__(self, settings: Settings, device: torch.device, folder: Path) -> None:
        super().__init__(settings, device)
        self._folder = folder
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--tensor-board-filename={folder} is a file; must be a folder")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError(
                f"--tensor-board-filename={folder}: needs tensorboard (pip install tensorboard): {error}"
            ) from None
        if any(folder.glob("events.out.tfevents.*")):
            _log.warning(
                "%s: has the curves of an earlier run, which TensorBoard shows together with these", folder
            )
        self._report_thread = threading.excepthook
        threading.excepthook = self._report_other_thread
        try:
            with self._failures():
                self._writer = SummaryWriter(str(folder))
        except BaseException:
            threading.excepthook = self._report_thread
            raise

    def add(self, record: Record) -> None:
        """Add a progress report or the metrics of an evaluation to the curves; write the settings as a text."""
        event = record["event"]
        with self._failures():
            if event == "run_start":
                self._writer.add_text("settings", _table(record))
            if event in ("progress", "evaluation_stop"):
                self._add_points(record, _TRAIN_CURVES if event == "progress" else _TEST_CURVES)
            if event in ("run_start", "evaluation_stop"):
                self._writer.flush()

    def _add_points(self, record: Record, curves: Mapping[str, str]) -> None:
        for key, name in curves.items():
            if record[key] is not None:
                self._writer.add_scalar(name, record[key], iteration_of(record))

    def run_stop(self, position: Position | None, outcome: Outcome) -> None:
        """Write pending events and close the files."""
        try:
            with self._failures():
                self._writer.flush()
                self._writer.close()
        finally:
            threading.excepthook = self._report_thread

    def _report_other_thread(self, failed: threading.ExceptHookArgs) -> None:
        """Print no traceback for an OSError of TensorBoard's thread: the next call of the writer raises it."""
        is_writer = type(failed.thread).__module__.startswith("tensorboard.")
        if not (is_writer and isinstance(failed.exc_value, OSError)):
            self._report_thread(failed)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn an OSError into a RunError."""
        try:
            yield
        except OSError as error:
            raise RunError(
                f"--tensor-board-filename={self._folder}: cannot be written: {error.strerror or error}"
            ) from None


def _table(start: Record) -> str:
    """Return what a run is and its flags as a table in Markdown, which TensorBoard shows."""
    facts = {key: start[key] for key in ("version", "engine", "benchmark", "edition", "seed")}
    flags = {f"--{name}": value for name, value in start["settings"].items()}
    rows = [f"| {key} | {str(value).replace('|', chr(92) + '|')} |" for key, value in {**facts, **flags}.items()]
    return "\n".join(["| | |", "|---|---|", *rows])
