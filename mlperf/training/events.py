"""Events of a run, and the interface of the listeners that receive them (console, compliance log, ...)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlperf.data.source import BatchSource
from mlperf.evaluation.metrics import Metrics
from mlperf.training.outcome import Outcome


@dataclass(frozen=True)
class Position:
    """Position of an event in the run, between two steps.

    epoch: index of the current epoch, from 0. iteration: batches of this epoch already trained, from 0 to
    `batches_per_epoch`.
    """

    epoch: int
    iteration: int
    batches_per_epoch: int

    @property
    def epochs_done(self) -> float:
        """Epochs trained so far, including the fraction of the current one: 1.25 is a quarter into the second."""
        return self.epoch + self.iteration / self.batches_per_epoch


@dataclass(frozen=True)
class RunStart:
    """What a run starts with.

    started_from: None for a run that starts from initial weights; otherwise what a file provided, "weights" or the
    position, such as "epoch 0, iteration 300". engine: description of the engine.
    """

    started_from: str | None
    engine: str


@dataclass(frozen=True)
class Progress:
    """A progress report.

    loss, accuracy (in [0, 1]): means over the samples since the last report. ms_per_iteration: mean milliseconds
    per batch since then, without evaluations. samples: training samples since the start of the run, in all
    epochs. learning_rate: that of the last optimizer step; before the first one, the rate that it will have.
    """

    loss: float
    accuracy: float
    ms_per_iteration: float
    samples: int
    learning_rate: float


# A checkpoint of the best test metric so far, or one of the newest weights.
CheckpointKind = Literal["best", "last"]


class Listener:
    """Receives the events of a run. The base class ignores all events; subclasses override those they need."""

    def init_stop(self) -> None:
        """The model is initialized and warmed up. Called right before run_start."""

    def run_start(self, start: RunStart) -> None:
        """The timed part starts. The data has not been opened yet."""

    def data_opened(self, train: BatchSource, test: BatchSource | None) -> None:
        """The training and test data are open. Generated data has no test split."""

    def epoch_start(self, position: Position) -> None:
        """An epoch starts or, in a resumed run, continues."""

    def step_stop(self, position: Position) -> None:
        """A batch was trained. GPU work may still be pending."""

    def progress(self, position: Position, progress: Progress) -> None:
        """A progress report is due."""

    def evaluation_start(self, position: Position) -> None:
        """An evaluation of the whole test split starts."""

    def evaluation_stop(self, position: Position, metrics: Metrics, best: Metrics, improved: bool) -> None:
        """An evaluation ended. best: the best AUC and accuracy so far, including this evaluation."""

    def checkpoint_saved(self, position: Position, path: Path, kind: CheckpointKind) -> None:
        """A checkpoint was saved. It is complete and on disk."""

    def time_breakdown(self, breakdown: Mapping[str, Any]) -> None:
        """The time of the run was divided among its parts. breakdown: values that JSON can represent."""

    def epoch_stop(self, position: Position) -> None:
        """An epoch ended, or the target was reached within it."""

    def run_stop(self, position: Position | None, outcome: Outcome) -> None:
        """The timed part ends. Always called exactly once; `position` is None if training never started."""

    def abandon(self, position: Position | None, outcome: Outcome) -> None:
        """The process ends at once, because the thread that trains does not.

        Called by another thread, possibly while that one is in any method of the listener, at most once. Events
        that follow must not be written.
        """
