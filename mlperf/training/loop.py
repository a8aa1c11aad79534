"""Training loop: steps, progress, evaluations and early stopping. Listeners do all logging and printing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from mlperf.data.batch import Batch, RawBatch
from mlperf.data.source import BatchSource
from mlperf.engines.protocol import LossSums, TrainingStep
from mlperf.evaluation.metrics import Metrics, is_better
from mlperf.settings.training import TrainingSettings
from mlperf.training.events import Listener, Outcome, Position, Progress
from mlperf.training.regular_saves import RegularSaves
from mlperf.training.schedule import learning_rate
from mlperf.training.state import TrainingState, no_metrics
from mlperf.training.stopping import target_reached
from mlperf.util.errors import DivergedError


class _Window:
    """Samples and time since the last progress report. `sums` are shared with the step."""

    def __init__(self, sums: LossSums) -> None:
        self.sums = sums
        self.samples = 0
        self.iterations = 0
        self.started = time.perf_counter()

    def clear(self) -> None:
        """Start a new window."""
        self.sums.clear()
        self.samples = self.iterations = 0
        self.started = time.perf_counter()


class TrainingLoop:
    """Trains with `step`, evaluates with `evaluate`, and calls `save` after each improvement.

    test_frequency, print_frequency: in batches; a test frequency of 0 means no evaluation during training.
    save_on_auc: whether an improvement is a higher AUC or, if False or if the AUC is undefined, a higher accuracy.
    regular_saves: of the newest weights, after progress reports without pending gradients and at the end; a
    resumed run then prints what this one prints.

    If `settings.accumulate` does not divide the batches of an epoch, the remaining gradients are applied in an
    extra step.
    """

    def __init__(
        self,
        *,
        step: TrainingStep,
        settings: TrainingSettings,
        test_frequency: int,
        print_frequency: int,
        state: TrainingState,
        listeners: Sequence[Listener],
        evaluate: Callable[[], Metrics],
        save: Callable[[Metrics], None] | None = None,
        save_on_auc: bool = False,
        regular_saves: RegularSaves | None = None,
    ) -> None:
        self.step = step
        self.settings = settings
        self.test_frequency = test_frequency
        self.print_frequency = print_frequency
        self.state = state
        self.listeners = listeners
        self.evaluate = evaluate
        self.save = save
        self.save_on_auc = save_on_auc
        self.regular_saves = regular_saves
        self.batches_per_epoch = 0
        self.last_metrics: Metrics | None = None
        self.last_saved: Position | None = None  # by `save`
        self.newest_saved: Position | None = None  # by either
        self._window = _Window(step.sums)

    def run(self, data: BatchSource) -> Outcome:
        """Train until a threshold is reached or all epochs are done. DivergedError if the loss is not finite."""
        outcome = self._train(data)
        if self.regular_saves is not None:
            self._save_newest(self.regular_saves)
        return outcome

    def _train(self, data: BatchSource) -> Outcome:
        self.batches_per_epoch = data.batches_per_epoch
        if self.state.iteration >= self.batches_per_epoch:  # the checkpoint was saved at the end of an epoch
            self._next_epoch()
        while self.state.epoch < self.settings.epochs:
            self._notify(lambda listener: listener.epoch_start(self.position))
            reached = self._train_epoch(data)
            self._notify(lambda listener: listener.epoch_stop(self.position))
            if reached:
                return Outcome.SUCCESS
            if self.state.epoch + 1 == self.settings.epochs:
                break
            self._next_epoch()
        return Outcome.TARGET_MISSED if self.settings.has_target else Outcome.SUCCESS

    @property
    def position(self) -> Position:
        """The current position."""
        return Position(self.state.epoch, self.state.iteration, self.batches_per_epoch)

    def _next_epoch(self) -> None:
        self.state.epoch += 1
        self.state.iteration = 0

    def _train_epoch(self, data: BatchSource) -> bool:
        """Return whether the target was reached."""
        state = self.state
        self._window.started = time.perf_counter()
        for batch in self.step.training_batches(data, state.epoch, state.iteration):
            self._train_batch(batch)
            self._notify(lambda listener: listener.step_stop(self.position))
            if self.regular_saves is not None:
                self.regular_saves.step_stop()
            last = state.iteration == self.batches_per_epoch
            test_due = self.test_frequency > 0 and (last or state.iteration % self.test_frequency == 0)
            reports = last or test_due or state.iteration % self.print_frequency == 0
            if reports:
                self._report_progress()
            if test_due and self._test():
                return True
            if reports:
                self._save_if_due()
        return False

    def _train_batch(self, batch: Batch | RawBatch) -> None:
        state = self.state
        state.iteration += 1
        state.samples += batch.size
        self._window.samples += batch.size
        self._window.iterations += 1
        rate = None
        if state.iteration % self.settings.accumulate == 0 or state.iteration == self.batches_per_epoch:
            state.step += 1
            rate = learning_rate(self.settings.schedule, state.step)
        self.step.train(batch, rate)

    def _report_progress(self) -> None:
        state, window = self.state, self._window
        self.step.check()
        loss, correct = window.sums.totals()  # waits for the device
        loss, accuracy = loss / window.samples, correct / window.samples
        milliseconds = 1e3 * (time.perf_counter() - window.started) / window.iterations
        if not math.isfinite(loss):
            raise DivergedError(
                f"the training loss is {loss} by batch {state.iteration} of epoch {state.epoch}: "
                "a smaller --learning-rate usually helps, or --loss-threshold > 0, which bce_logits does not have"
            )
        state.last_loss = loss
        window.clear()
        rate = learning_rate(self.settings.schedule, max(state.step, 1))
        progress = Progress(loss, accuracy, milliseconds, state.samples, rate)
        self._notify(lambda listener: listener.progress(self.position, progress))

    def _test(self) -> bool:
        """Evaluate; return whether the target was reached."""
        state = self.state
        self._notify(lambda listener: listener.evaluation_start(self.position))
        metrics = self.last_metrics = self.evaluate()
        previous = state.best
        by_auc = is_better(metrics.auc, previous.auc)
        by_accuracy = is_better(metrics.accuracy, previous.accuracy)
        state.best = replace(
            metrics,
            accuracy=metrics.accuracy if by_accuracy else previous.accuracy,
            auc=metrics.auc if by_auc else previous.auc,
        )
        improved = by_auc if self.save_on_auc and not math.isnan(metrics.auc) else by_accuracy
        self._notify(lambda listener: listener.evaluation_stop(self.position, metrics, state.best, improved))
        self._window.started = time.perf_counter()
        if improved and self.save is not None:
            self.save(metrics)
            self.last_saved = self.newest_saved = self.position
        return target_reached(self.settings, metrics)

    def _save_if_due(self) -> None:
        """Save the newest weights if it is time. Called after a progress report, when no loss is summed."""
        state, saves = self.state, self.regular_saves
        if saves is None:
            return
        pending = state.iteration % self.settings.accumulate and state.iteration < self.batches_per_epoch
        if not pending and saves.is_due():
            self._save_newest(saves)
            self._window.started = time.perf_counter()

    def _save_newest(self, saves: RegularSaves) -> None:
        if saves.save(self.last_metrics or no_metrics()):
            self.newest_saved = self.position

    def _notify(self, event: Callable[[Listener], None]) -> None:
        for listener in self.listeners:
            event(listener)
