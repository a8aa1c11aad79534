"""How a model is trained: optimizer, learning rate, length, evaluations and target."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlperf.registry import OPTIMIZERS
from mlperf.settings.flags import flag, part
from mlperf.settings.kinds import at_least, between, choice, positive


@dataclass(frozen=True)
class ScheduleSettings:
    """The learning rate: linear warm-up, then polynomial decay of power 2. Counts are optimizer steps."""

    learning_rate: float = flag("--learning-rate", positive, 0.01, "base learning rate")
    warmup_steps: int = flag("--lr-num-warmup-steps", at_least(0), 0, "steps of the linear warm-up")
    decay_start_step: int = flag("--lr-decay-start-step", at_least(0), 0, "first step of the decay of power 2")
    decay_steps: int = flag("--lr-num-decay-steps", at_least(0), 0, "steps of the decay; 0: none")


@dataclass(frozen=True)
class TrainingSettings:
    """Optimizer, schedule, length, evaluations and target.

    accumulate: batches whose gradients are summed before a step. test_freq: in batches, -1: see
    `batches_between_tests`. Thresholds are shares in [0, 1], 0: off.
    """

    epochs: int = flag("--nepochs", at_least(1), 1, "passes over the training data")
    optimizer: str = flag(
        "--optimizer", choice(*OPTIMIZERS), "sgd", "rwsadagrad: row-wise Adagrad; on every device"
    )
    schedule: ScheduleSettings = part(ScheduleSettings)
    accumulate: int = flag(
        "--mlperf-grad-accum-iter", at_least(1), 1, "batches whose gradients are summed before a step"
    )
    test_freq: int = flag(
        "--test-freq",
        at_least(1, or_value=-1),
        -1,
        "evaluate every N batches and at the end of each epoch; -1: never, or with a threshold 20 times per epoch",
    )
    accuracy_threshold: float = flag(
        "--mlperf-acc-threshold", between(0, 1), 0.0, "stop at this test accuracy, a share in [0, 1]; 0: off"
    )
    auc_threshold: float = flag(
        "--mlperf-auc-threshold", between(0, 1), 0.0, "stop at this test AUC, a share in [0, 1]; 0: off"
    )

    @property
    def has_target(self) -> bool:
        """Whether the run can miss a target."""
        return self.accuracy_threshold > 0 or self.auc_threshold > 0

    @property
    def evaluates(self) -> bool:
        """Whether the model is evaluated during training."""
        return self.test_freq > 0 or self.has_target

    def batches_between_tests(self, batches_per_epoch: int, evaluations_per_epoch: int) -> int:
        """Return the number of batches from one evaluation to the next, 0: none during training.

        It is --test-freq or, with a threshold, the edition's number of evaluations per epoch, at whole optimizer
        steps.
        """
        if self.test_freq > 0:
            return self.test_freq
        if not self.has_target:
            return 0
        steps = math.ceil(batches_per_epoch / evaluations_per_epoch / self.accumulate)
        return max(1, steps) * self.accumulate
