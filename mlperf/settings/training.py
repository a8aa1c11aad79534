"""Settings of training: optimizer, learning rate, length, evaluations and target."""

from __future__ import annotations

from dataclasses import dataclass

from mlperf.benchmarks import Benchmark
from mlperf.registry import OPTIMIZERS
from mlperf.settings.flags import flag, part
from mlperf.settings.kinds import at_least, between, choice, positive

EPSILON = 1e-10  # of torch.optim.Adagrad


@dataclass(frozen=True)
class ScheduleSettings:
    """Learning rate: linear warm-up, then polynomial decay of power 2. All counts are optimizer steps."""

    learning_rate: float = flag("--learning-rate", positive, 0.01, "base learning rate")
    warmup_steps: int = flag("--lr-num-warmup-steps", at_least(0), 0, "number of linear warm-up steps")
    decay_start_step: int = flag(
        "--lr-decay-start-step", at_least(0), 0, "step at which polynomial decay (power 2) starts"
    )
    decay_steps: int = flag("--lr-num-decay-steps", at_least(0), 0, "number of decay steps; 0: no decay")


@dataclass(frozen=True)
class TrainingSettings:
    """Optimizer, schedule, length, evaluations and target.

    accumulate: number of batches whose gradients are summed before a step. test_freq: batches between evaluations;
    if 0, there are none, and if -1, see `batches_between_tests`. Thresholds are in [0, 1]; 0 disables them.
    """

    epochs: int = flag("--nepochs", at_least(1), 1, "passes over the training data")
    optimizer: str = flag("--optimizer", choice(*OPTIMIZERS), "sgd", "optimizer (rwsadagrad: row-wise Adagrad)")
    adagrad_epsilon: float = flag(
        "--adagrad-epsilon", positive, EPSILON, "Adagrad: number added to the square root of the sum of squares"
    )
    schedule: ScheduleSettings = part(ScheduleSettings)
    accumulate: int = flag(
        "--mlperf-grad-accum-iter", at_least(1), 1, "number of batches whose gradients are summed before a step"
    )
    test_freq: int = flag(
        "--test-freq",
        at_least(0, or_value=-1),
        -1,
        "evaluate every N batches and at the end of each epoch; 0: never; -1: never, or with a threshold as often "
        "as the edition requires",
    )
    accuracy_threshold: float = flag(
        "--mlperf-acc-threshold", between(0, 1), 0.0, "stop at this test accuracy, a fraction in [0, 1]; 0: off"
    )
    auc_threshold: float = flag("--mlperf-auc-threshold", between(0, 1), 0.0, "stop at this test AUC; 0: off")

    @property
    def has_target(self) -> bool:
        """Whether an accuracy or AUC threshold is set."""
        return self.accuracy_threshold > 0 or self.auc_threshold > 0

    @property
    def evaluates(self) -> bool:
        """Whether the model is evaluated during training."""
        return self.test_freq > 0 or self.has_target

    def batches_between_tests(self, samples: int, batch_size: int, benchmark: Benchmark) -> int:
        """Return the number of batches between evaluations; 0 if there are none during training.

        This is --test-freq or, with a threshold, the interval that the benchmark requires. samples: of an epoch.
        """
        if self.test_freq > 0:
            return self.test_freq
        if not self.has_target:
            return 0
        return benchmark.steps_between_evaluations(samples, batch_size * self.accumulate) * self.accumulate
