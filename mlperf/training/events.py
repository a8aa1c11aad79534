"""What the training loop reports, and the interface of those who listen (console, compliance log, ...)."""

from __future__ import annotations

from dataclasses import dataclass

from mlperf.data.source import BatchSource
from mlperf.evaluation.metrics import Metrics
from mlperf.training.outcome import Outcome


@dataclass(frozen=True)
class Position:
    """Where in the run something happened, between steps.

    epoch: index of the current epoch, from 0. iteration: batches of this epoch already trained, from 0 to
    `batches_per_epoch`.
    """

    epoch: int
    iteration: int
    batches_per_epoch: int

    @property
    def epochs_done(self) -> float:
        """Epochs trained so far, with the share of the current one: 1.25 is a quarter into the second."""
        return self.epoch + self.iteration / self.batches_per_epoch


class Listener:
    """Hears what happens in a run. The base class ignores everything; a listener overrides what it wants."""

    def init_stop(self) -> None:
        """The model is built and warm; the timed part begins with the next event."""

    def run_start(self) -> None:
        """The timed part begins. The data has not been opened yet."""

    def data_opened(self, train: BatchSource, test: BatchSource | None) -> None:
        """The training and test data are open; made-up data has no test split."""

    def epoch_start(self, position: Position) -> None:
        """A pass over the training data begins or, in a continued run, goes on."""

    def step_stop(self, position: Position) -> None:
        """A batch has been trained on, as far as the host knows: a GPU may still be at it."""

    def progress(self, position: Position, loss: float, accuracy: float, ms_per_iteration: float) -> None:
        """A progress line is due: means over the samples since the last; accuracy is a share in [0, 1]."""

    def evaluation_start(self, position: Position) -> None:
        """An evaluation of the whole test split begins."""

    def evaluation_stop(self, position: Position, metrics: Metrics, best: Metrics, improved: bool) -> None:
        """An evaluation is done. `best` holds the best AUC and accuracy so far, this one included."""

    def epoch_stop(self, position: Position) -> None:
        """A pass over the training data ended, or was cut short by the end of the run."""

    def run_stop(self, position: Position | None, outcome: Outcome) -> None:
        """The timed part ends; `position` is None if training never began. Called once whatever happened."""
