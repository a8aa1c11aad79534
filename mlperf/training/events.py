"""The events of a run, and the interface of the listeners that receive them (console, compliance log, ...)."""

from __future__ import annotations

from dataclasses import dataclass

from mlperf.data.source import BatchSource
from mlperf.evaluation.metrics import Metrics
from mlperf.training.outcome import Outcome


@dataclass(frozen=True)
class Position:
    """Where in the run an event happened, between steps.

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
    """Receives the events of a run. The base class ignores all of them; a subclass overrides those it needs."""

    def init_stop(self) -> None:
        """The model is built and warm; the timed part begins with the next event."""

    def run_start(self) -> None:
        """The timed part begins. The data has not been opened yet."""

    def data_opened(self, train: BatchSource, test: BatchSource | None) -> None:
        """The training and test data are open; random and synthetic data have no test split."""

    def epoch_start(self, position: Position) -> None:
        """A pass over the training data begins or, in a continued run, goes on."""

    def step_stop(self, position: Position) -> None:
        """A batch has been trained on, as far as the host knows: a GPU may still be computing."""

    def progress(self, position: Position, loss: float, accuracy: float, ms_per_iteration: float) -> None:
        """A progress report is due: means over the samples since the last one; accuracy is a share in [0, 1]."""

    def evaluation_start(self, position: Position) -> None:
        """An evaluation of the whole test split begins."""

    def evaluation_stop(self, position: Position, metrics: Metrics, best: Metrics, improved: bool) -> None:
        """An evaluation ended. `best` holds the best AUC and the best accuracy so far, including this one's."""

    def epoch_stop(self, position: Position) -> None:
        """A pass over the training data ended, or the target was reached within it."""

    def run_stop(self, position: Position | None, outcome: Outcome) -> None:
        """The timed part ends. Called once, however the run ended; `position` is None if training never began."""
