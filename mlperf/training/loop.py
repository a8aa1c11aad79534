"""The training loop: steps, progress, evaluations, early stop. It knows no log format and prints nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from mlperf.data.batch import Batch, RawBatch
from mlperf.data.source import BatchSource
from mlperf.engines.protocol import LossSums, TrainingStep
from mlperf.evaluation.metrics import Metrics
from mlperf.training.events import Listener, Outcome, Position
from mlperf.training.schedule import LearningRateSchedule
from mlperf.util.errors import DivergedError


@dataclass(frozen=True)
class LoopSettings:
    """How long to train and when to report.

    test_frequency, print_frequency: in batches; 0: no evaluation during training. Thresholds are shares in
    [0, 1], 0: off. accumulate: batches whose gradients are summed before a step; those left over at the end
    of an epoch make a step of their own.
    """

    epochs: int
    test_frequency: int
    print_frequency: int
    accumulate: int = 1
    accuracy_threshold: float = 0.0
    auc_threshold: float = 0.0
    save_on_auc: bool = False

    @property
    def has_target(self) -> bool:
        """Whether the run can miss a target."""
        return self.accuracy_threshold > 0 or self.auc_threshold > 0

    def reached(self, metrics: Metrics) -> bool:
        """Whether `metrics` meet one of the thresholds that are on."""
        return (0 < self.accuracy_threshold <= metrics.accuracy) or (0 < self.auc_threshold <= metrics.auc)


@dataclass
class Window:
    """The samples since the last progress line; their sums are the step's."""

    sums: LossSums
    samples: int = 0
    iterations: int = 0
    started: float = field(default_factory=time.perf_counter)

    def clear(self) -> None:
        """Begin again."""
        self.sums.clear()
        self.samples = self.iterations = 0
        self.started = time.perf_counter()


@dataclass
class TrainingState:
    """Everything besides weights and optimizer state that a continued run needs to go on exactly."""

    window: Window
    epoch: int = 0
    iteration: int = 0  # batches of this epoch done
    step: int = 0  # optimizer steps done
    last_loss: float = math.nan
    best: Metrics = field(
        default_factory=lambda: Metrics(
            accuracy=-math.inf,
            recall=math.nan,
            precision=math.nan,
            f1=math.nan,
            average_precision=math.nan,
            auc=-math.inf,
        )
    )


class TrainingLoop:
    """Trains with `step`, evaluating with `evaluate`, saving with `save` at each improvement."""

    def __init__(
        self,
        *,
        step: TrainingStep,
        schedule: LearningRateSchedule,
        settings: LoopSettings,
        state: TrainingState,
        listeners: Sequence[Listener],
        evaluate: Callable[[], Metrics],
        save: Callable[[Metrics], None] | None = None,
    ) -> None:
        self.step = step
        self.schedule = schedule
        self.settings = settings
        self.state = state
        self.listeners = listeners
        self.evaluate = evaluate
        self.save = save
        self.batches_per_epoch = 0

    def run(self, data: BatchSource) -> Outcome:
        """Train until a threshold is met or all epochs are done. DivergedError if the loss is not finite."""
        self.batches_per_epoch = data.batches_per_epoch
        if self.state.iteration >= self.batches_per_epoch:  # saved at the very end of an epoch
            self._next_epoch()
        while self.state.epoch < self.settings.epochs:
            self._tell(lambda listener: listener.epoch_start(self.position))
            reached = self._train_epoch(data)
            self._tell(lambda listener: listener.epoch_stop(self.position))
            if reached:
                return Outcome.SUCCESS
            if self.state.epoch + 1 == self.settings.epochs:
                break
            self._next_epoch()
        return Outcome.TARGET_MISSED if self.settings.has_target else Outcome.SUCCESS

    @property
    def position(self) -> Position:
        """Where the run is."""
        state = self.state
        return Position(state.epoch, state.iteration, self.batches_per_epoch)

    def _next_epoch(self) -> None:
        self.state.epoch += 1
        self.state.iteration = 0

    def _train_epoch(self, data: BatchSource) -> bool:
        state, settings = self.state, self.settings
        state.window.started = time.perf_counter()
        for batch in self.step.batches(data, state.epoch, state.iteration):
            self._train_batch(batch)
            self._tell(lambda listener: listener.step_stop(self.position))
            last = state.iteration == self.batches_per_epoch
            test_due = settings.test_frequency > 0 and (last or state.iteration % settings.test_frequency == 0)
            if last or test_due or state.iteration % settings.print_frequency == 0:
                self._report_progress()
            if test_due and self._test():
                return True
        return False

    def _train_batch(self, batch: Batch | RawBatch) -> None:
        state = self.state
        state.iteration += 1
        state.window.samples += batch.size
        state.window.iterations += 1
        rate = None
        if state.iteration % self.settings.accumulate == 0 or state.iteration == self.batches_per_epoch:
            state.step += 1
            rate = self.schedule.rate(state.step)
        self.step.train(batch, rate)

    def _report_progress(self) -> None:
        state, window = self.state, self.state.window
        self.step.check()
        loss = float(window.sums.loss) / window.samples  # waits for the device
        accuracy = float(window.sums.correct) / window.samples
        milliseconds = 1e3 * (time.perf_counter() - window.started) / window.iterations
        if not math.isfinite(loss):
            raise DivergedError(
                f"the training loss is {loss} by batch {state.iteration} of epoch {state.epoch}: "
                "a smaller --learning-rate or --loss-threshold > 0 usually helps"
            )
        state.last_loss = loss
        window.clear()
        self._tell(lambda listener: listener.progress(self.position, loss, accuracy, milliseconds))

    def _test(self) -> bool:
        state = self.state
        self._tell(lambda listener: listener.evaluation_start(self.position))
        metrics = self.evaluate()
        previous = state.best
        state.best = replace(
            metrics,
            accuracy=max(metrics.accuracy, previous.accuracy),
            auc=max(metrics.auc, previous.auc),
        )
        if self.settings.save_on_auc:
            improved = metrics.auc > previous.auc
        else:
            improved = metrics.accuracy > previous.accuracy
        self._tell(lambda listener: listener.evaluation_stop(self.position, metrics, state.best, improved))
        state.window.started = time.perf_counter()
        reached = self.settings.reached(metrics)
        if improved and self.save is not None:
            self.save(metrics)
        return reached

    def _tell(self, event: Callable[[Listener], None]) -> None:
        for listener in self.listeners:
            event(listener)
