"""Protocols of an engine and of its training step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from mlperf.data.source import BatchSource
from mlperf.engines.observer import Observed
from mlperf.evaluation.evaluate import Scorer
from mlperf.models.dlrm import DLRM_Net
from mlperf.optim.optimizer import Optimizer
from mlperf.settings.settings import Settings


@dataclass(frozen=True)
class LossSums:
    """Sums over training samples, float64, kept on the device so that no step waits for them.

    both: float64 [2], the sum of the losses and the number of predictions that round to their label.
    """

    both: torch.Tensor

    @classmethod
    def zeros(cls, device: torch.device) -> LossSums:
        """Return sums over no samples."""
        return cls(torch.zeros(2, dtype=torch.float64, device=device))

    @property
    def loss(self) -> torch.Tensor:
        """The sum of the losses, a scalar view that can be added to in place."""
        return self.both[0]

    @property
    def correct(self) -> torch.Tensor:
        """The number of correct predictions, a scalar view that can be added to in place."""
        return self.both[1]

    def totals(self) -> tuple[float, float]:
        """Return both sums, over all processes; waits for the device."""
        loss, correct = self.both.tolist()
        return loss, correct

    def clear(self) -> None:
        """Set both sums to 0 in place."""
        self.both.zero_()


class EngineScorer(Scorer, Observed, Protocol):
    """Predicts."""


class TrainingStep(EngineScorer, Protocol):
    """Trains and predicts.

    sums: loss and correct predictions since `sums.clear()`.
    """

    sums: LossSums

    def training_batches(self, data: BatchSource, epoch: int, first: int = 0) -> Iterator[Any]:
        """Return the batches of `epoch` from number `first` on, in the form that `train` accepts.

        Each has the attribute `size`, its number of samples over all processes. Each is trained before the next is
        taken.
        """
        ...

    def warm_up(self, batch_size: int) -> None:
        """Run every kernel once on synthetic data, so that the timed part neither compiles nor allocates.

        Does not change weights or sums.
        """
        ...

    def train(self, batch: Any, rate: float | None) -> None:
        """Accumulate the gradients of `batch`; if `rate` is given, apply them all with this learning rate."""
        ...


class Engine(Protocol):
    """One way to run a model. description: shown in the log line "engine: ..." and in the records of a run."""

    description: str

    def supports(self, model: DLRM_Net, settings: Settings) -> str | None:
        """Return why this engine does not support `model` with `settings`; None if it does.

        Training-only requirements are ignored if `settings.inference_only`.
        """
        ...

    def make_step(self, model: DLRM_Net, settings: Settings, optimizer: Optimizer) -> TrainingStep:
        """Return the training step of a run that `supports` accepts."""
        ...

    def make_scorer(self, model: DLRM_Net, settings: Settings) -> EngineScorer:
        """Return the scorer of a run that `supports` accepts."""
        ...
