"""TensorBoard curves of training loss, training accuracy and test metrics over all iterations."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from mlperf.evaluation.metrics import Metrics
from mlperf.training.events import Listener, Outcome, Position
from mlperf.util.errors import RunError, UsageError

_log = logging.getLogger(__name__)


class TensorBoard(Listener):
    """Writes TensorBoard event files into a folder. UsageError if it is a file or tensorboard is missing.

    The constructor and all methods raise RunError if the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
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

    def progress(self, position: Position, loss: float, accuracy: float, ms_per_iteration: float) -> None:
        """Add a point to each training curve."""
        iteration = _iteration(position)
        with self._failures():
            self._writer.add_scalar("Train/Loss", loss, iteration)
            self._writer.add_scalar("Train/Acc", accuracy, iteration)
            self._writer.add_scalar("Train/ms per iteration", ms_per_iteration, iteration)

    def evaluation_stop(self, position: Position, metrics: Metrics, best: Metrics, improved: bool) -> None:
        """Log all metrics that are not NaN."""
        names = {"accuracy": "Acc", "auc": "AUC", "f1": "F1"}
        with self._failures():
            for name, value in asdict(metrics).items():
                if isinstance(value, float) and not math.isnan(value):
                    self._writer.add_scalar(f"Test/{names.get(name, name)}", value, _iteration(position))
            self._writer.flush()

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


def _iteration(position: Position) -> int:
    return position.epoch * position.batches_per_epoch + position.iteration
