"""Training run, in the order required by the rules: initialize, start the clock, open the data, train."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlperf.data.prepared.dataset import PreparedData
from mlperf.data.source import BatchSource
from mlperf.distributed.watch import closed_if_abandoned
from mlperf.engines.choose import choose_engine, make_step_of, uses_torchrec
from mlperf.engines.protocol import TrainingStep
from mlperf.engines.warm_up import warm_up
from mlperf.evaluation.evaluate import evaluate
from mlperf.evaluation.metrics import Metrics
from mlperf.models.dlrm import DLRM_Net
from mlperf.optim.optimizer import Optimizer, make_optimizer
from mlperf.reporting.compliance_log_file import is_default_log
from mlperf.reporting.time_breakdown import TimeBreakdown
from mlperf.runner.data import Splits, generated_batches, open_splits
from mlperf.runner.files import draw_compute_graph, draw_times, export_onnx
from mlperf.runner.listeners import (
    abandon_listeners,
    make_debug_report,
    make_listeners,
    make_time_breakdown,
    observer_of,
    stop_listeners,
)
from mlperf.runner.memory import RunSizes
from mlperf.runner.model import architecture_of, build_model, fill_weights
from mlperf.runner.output_folder import last_checkpoint
from mlperf.runner.remarks import report_end, report_length, report_replaced_checkpoint, report_unused_flags
from mlperf.runner.result import Result, outcome_of
from mlperf.settings.settings import Settings
from mlperf.training import checkpoint
from mlperf.training.checkpoint_flags import recorded_flags
from mlperf.training.events import CheckpointKind, Listener, Outcome, Position, RunStart
from mlperf.training.loop import TrainingLoop
from mlperf.training.regular_saves import RegularSaves
from mlperf.training.state import TrainingState
from mlperf.util.signals import deferred, delivered


def train(settings: Settings, device: torch.device, prepared: PreparedData | None) -> Result:
    """Train on `prepared`, or on generated data if it is None. Listeners are notified of the outcome."""
    loop: TrainingLoop | None = None
    failure: BaseException | None = None
    with deferred():  # no signal interrupts the creation and the closing of the log
        times = make_time_breakdown(settings, device)
        listeners = make_listeners(settings, device, times)

        def close(has_failed: bool) -> str | None:
            outcome = Outcome.FAILED if has_failed else Outcome.INTERRUPTED
            abandon_listeners(listeners, None if loop is None else loop.position, outcome)
            return None if has_failed else _continuation(settings, loop)

        with closed_if_abandoned(close):
            try:
                with delivered():
                    model, data, loop = _start(settings, device, prepared, listeners, times)
                    outcome = loop.run(data)
                    if times is not None:
                        times.stop()
            except BaseException as error:
                failure, outcome = error, outcome_of(error)
                if outcome is Outcome.INTERRUPTED and (how := _continuation(settings, loop)) is not None:
                    error.add_note(how)
            position = None if loop is None else loop.position
            stop_failure = stop_listeners(listeners, position, outcome, times)
        if (failure := failure or stop_failure) is not None:
            raise failure
    assert loop is not None
    report_end(settings, outcome, loop)
    if settings.report.save_onnx:
        export_onnx(settings, model)
    if times is not None:
        draw_times(times)
    return _result(outcome, loop)


def _start(
    settings: Settings,
    device: torch.device,
    prepared: PreparedData | None,
    listeners: list[Listener],
    times: TimeBreakdown | None,
) -> tuple[DLRM_Net, BatchSource, TrainingLoop]:
    """Initialize everything and start the clock. Return the model, the data to train on, and the loop."""
    architecture, sizes = architecture_of(settings, prepared), RunSizes.of(settings, prepared)
    stream = np.random.RandomState(settings.seed)
    # Random data and weights share one stream, data first, as in published runs.
    generated = generated_batches(settings, stream) if prepared is None else None
    model = build_model(settings, architecture, device, sizes)
    optimizer = make_optimizer(
        settings.training.optimizer, model, settings.seed, settings.training.adagrad_epsilon
    )
    loaded = fill_weights(settings, model, stream, prepared, optimizer)
    engine = choose_engine(model, settings)
    step = make_step_of(engine, model, settings, optimizer, observer_of(times))
    report_unused_flags(settings)
    warm_up(step, sizes.train_batch(settings))
    if settings.report.plot_compute_graph:
        draw_compute_graph(settings, model)
    if settings.report.debug:
        listeners.insert(0, make_debug_report(settings, model))
    for listener in listeners:
        listener.init_stop()
    for listener in listeners:
        listener.run_start(RunStart(_started_from(settings, loaded), engine.description))
    splits = _open(settings, prepared, generated)
    for listener in listeners:
        listener.data_opened(splits.train, splits.test)
    loop = _make_loop(settings, prepared, model, step, optimizer, splits, loaded, listeners, times)
    report_replaced_checkpoint(settings)
    report_length(settings, loop.state, splits.train.batches_per_epoch)
    return model, splits.train, loop


def _started_from(settings: Settings, loaded: dict[str, Any] | None) -> str | None:
    """Return what was loaded, as `RunStart` takes it. loaded: the contents of a checkpoint."""
    if loaded is not None:
        return checkpoint.saved_position(loaded)
    return None if settings.load_weights is None else "weights"


def _continuation(settings: Settings, loop: TrainingLoop | None) -> str | None:
    """Return how an interrupted run continues from its last checkpoint, None if it has saved none."""
    if loop is None or (saved := loop.newest_saved) is None:
        return None if settings.run.output_dir is None else "the same command with --resume starts it again"
    path = settings.save_model
    if settings.run.output_dir is not None:
        changes = [] if settings.run.resume else ["--resume"]
    else:
        changes = [] if settings.load_model == path else [f"--load-model={path}"]
    if settings.compliance.enabled and not is_default_log(settings) and settings.compliance.log_file.is_file():
        changes.append("another --mlperf-log-file")
    how = f"the same command with {' and '.join(changes)}" if changes else "the same command"
    return f"{how} continues after iteration {saved.iteration} of epoch {saved.epoch}"


def _open(settings: Settings, prepared: PreparedData | None, generated: BatchSource | None) -> Splits:
    if prepared is not None:
        return open_splits(settings, prepared)
    assert generated is not None
    return Splits(generated, None)


def _result(outcome: Outcome, loop: TrainingLoop) -> Result:
    state = loop.state
    return Result(
        outcome,
        metrics=loop.last_metrics,
        best_metrics=None if loop.last_metrics is None else state.best,
        training_loss=None if math.isnan(state.last_loss) else state.last_loss,
        epochs=loop.position.epochs_done,
        samples=state.samples,
    )


def _make_loop(
    settings: Settings,
    prepared: PreparedData | None,
    model: DLRM_Net,
    step: TrainingStep,
    optimizer: Optimizer,
    splits: Splits,
    loaded: dict[str, Any] | None,
    listeners: Sequence[Listener],
    times: TimeBreakdown | None,
) -> TrainingLoop:
    training, test = settings.training, splits.test
    batches = splits.train.batches_per_epoch
    state = _initial_state(settings, batches, loaded)
    optimizer.continue_at(state.step)
    all_metrics = settings.compliance.enabled or training.auc_threshold > 0

    def evaluate_test() -> Metrics:
        assert test is not None
        return evaluate(step, test, all_metrics=all_metrics)

    def save_to(path: Path, kind: CheckpointKind, metrics: Metrics) -> None:
        with nullcontext() if times is None else times.checkpoint():
            checkpoint.save(
                path,
                model=model,
                optimizer=optimizer,
                state=state,
                metrics=metrics,
                epochs=training.epochs,
                batches_per_epoch=batches,
                test_batches=0 if test is None else test.batches_per_epoch,
                seed=settings.seed,
                shuffled=settings.data.shuffle_batches,
                flags=recorded_flags(settings, prepared),
                sharded=uses_torchrec(settings),
            )
        position = Position(state.epoch, state.iteration, batches)
        for listener in listeners:
            listener.checkpoint_saved(position, path, kind)

    best, last, minutes = settings.save_model, last_checkpoint(settings), settings.run.checkpoint_minutes
    benchmark = settings.edition.benchmark
    return TrainingLoop(
        step=step,
        settings=training,
        test_frequency=training.batches_between_tests(splits.train.samples, settings.data.batch_size, benchmark),
        print_frequency=settings.report.print_frequency,
        state=state,
        listeners=listeners,
        evaluate=evaluate_test,
        save=None if best is None else partial(save_to, best, "best"),
        save_on_auc=settings.compliance.enabled,
        regular_saves=None
        if last is None or minutes is None
        else RegularSaves(minutes, partial(save_to, last, "last")),
    )


def _initial_state(settings: Settings, batches_per_epoch: int, loaded: dict[str, Any] | None) -> TrainingState:
    """Return the state of a new run or, given the contents of a checkpoint, of the resumed run."""
    if loaded is None:
        return TrainingState()
    assert settings.load_model is not None
    return checkpoint.load_training(
        settings.load_model,
        loaded,
        batches_per_epoch=batches_per_epoch,
        accumulate=settings.training.accumulate,
        batch_size=settings.data.batch_size,
        seed=settings.seed if settings.data.shuffle_batches else None,
    )
