"""What an engine is: it decides whether it can run a model, trains it step by step, and scores batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from mlperf.evaluation.evaluate import Scorer
from mlperf.models.dlrm import DLRM_Net
from mlperf.optim.optimizer import Optimizer
from mlperf.settings.settings import Settings


@dataclass(frozen=True)
class LossSums:
    """Sums over training samples, float64 on the device, so that no step waits for them.

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

    def clear(self) -> None:
        """Set both sums to 0 in place."""
        self.both.zero_()


class TrainingStep(Scorer, Protocol):
    """Trains and predicts. sums: of the samples trained on since they were last cleared."""

    sums: LossSums

    def warm_up(self, batch_size: int) -> None:
        """Run every kernel once on synthetic data, so that nothing is compiled or allocated in the timed part.

        Weights and sums stay unchanged.
        """
        ...

    def train(self, batch: Any, rate: float | None) -> None:
        """Add the gradients of `batch`, and apply all added so far with learning rate `rate` unless it is None."""
        ...


class Engine(Protocol):
    """One way to run a model. `description` completes the sentence "the engine is ..."."""

    description: str

    def supports(self, model: DLRM_Net, settings: Settings) -> str | None:
        """Return why this engine cannot do the run that `settings` describe with `model`; None if it can.

        What only training needs counts only if the run trains (`settings.inference_only` is False).
        """
        ...

    def make_step(self, model: DLRM_Net, settings: Settings, optimizer: Optimizer) -> TrainingStep:
        """Return the training step of a run that `supports` accepts."""
        ...

    def make_scorer(self, model: DLRM_Net, settings: Settings) -> Scorer:
        """Return the scorer of a run that `supports` accepts."""
        ...
