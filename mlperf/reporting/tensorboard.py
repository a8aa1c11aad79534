"""TensorBoard curves of training loss, training accuracy and test metrics over all iterations."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict
from pathlib import Path

from mlperf.evaluation.metrics import Metrics
from mlperf.training.events import Listener, Outcome, Position
from mlperf.util.errors import UsageError

_log = logging.getLogger(__name__)


class TensorBoard(Listener):
    """Writes TensorBoard event files into a folder. UsageError if that is not possible."""

    def __init__(self, folder: Path) -> None:
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
        try:
            self._writer = SummaryWriter(str(folder))
        except OSError as error:
            raise UsageError(f"--tensor-board-filename={folder}: cannot be written: {error.strerror}") from None

    def progress(self, position: Position, loss: float, accuracy: float, ms_per_iteration: float) -> None:
        """Add a point to each training curve."""
        iteration = _iteration(position)
        self._writer.add_scalar("Train/Loss", loss, iteration)
        self._writer.add_scalar("Train/Acc", accuracy, iteration)
        self._writer.add_scalar("Train/ms per iteration", ms_per_iteration, iteration)

    def evaluation_stop(self, position: Position, metrics: Metrics, best: Metrics, improved: bool) -> None:
        """Log all metrics that are not NaN."""
        names = {"accuracy": "Acc", "auc": "AUC", "f1": "F1"}
        for name, value in asdict(metrics).items():
            if isinstance(value, float) and not math.isnan(value):
                self._writer.add_scalar(f"Test/{names.get(name, name)}", value, _iteration(position))
        self._writer.flush()

    def run_stop(self, position: Position | None, outcome: Outcome) -> None:
        """Write pending events and close the files."""
        self._writer.close()


def _iteration(position: Position) -> int:
    return position.epoch * position.batches_per_epoch + position.iteration
