"""What a run is: data, model, train or evaluate, report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mlperf.benchmarks import EDITIONS
from mlperf.data.criteo.prepared.dataset import PreparedData
from mlperf.data.source import BatchSource
from mlperf.engines.autograd.scorer import GeneralScorer
from mlperf.engines.protocol import TrainingStep
from mlperf.evaluation.evaluate import evaluate
from mlperf.evaluation.metrics import Metrics
from mlperf.export.onnx import ONNX_FILE, require_onnx, save_onnx
from mlperf.export.quantize import mlp_bytes, quantize_mlps
from mlperf.models.dlrm import DLRM_Net
from mlperf.optim.optimizer import Optimizer, make_optimizer
from mlperf.plots.compute_graph import GRAPH_FILE, plot_compute_graph, require_graphviz
from mlperf.reporting.compliance_log import ComplianceLog, ComplianceSettings
from mlperf.reporting.console import Console, note, print_metrics
from mlperf.reporting.debug import DebugReport
from mlperf.reporting.profile import Profile
from mlperf.reporting.tensorboard import TensorBoard
from mlperf.run.building import build_model, initialize_model, make_architecture, make_scorer, make_step, warm_up
from mlperf.run.inputs import Splits, made_up_batches, open_split, open_splits, prepared_data, table_rows
from mlperf.settings.settings import Settings
from mlperf.training import checkpoint
from mlperf.training.events import Listener, Outcome
from mlperf.training.loop import LoopSettings, TrainingLoop, TrainingState, Window
from mlperf.training.schedule import LearningRateSchedule
from mlperf.util.errors import DivergedError, RunError, UsageError

# Of a data set --debug-mode prints no more than this; random data it prints whole.
DEBUG_BATCHES = 3


def run(settings: Settings) -> Outcome:
    """Train or evaluate as `settings` say. RunError or UsageError if it cannot be done."""
    device = _device(settings)
    _check_load_model(settings)
    if settings.report.save_onnx:
        require_onnx()
    if settings.report.plot_compute_graph:
        require_graphviz("--plot-compute-graph")
    if settings.data.generation != "dataset":
        return _train(settings, device, None)
    prepared = prepared_data(settings.data, settings.seed)
    if settings.inference_only:
        _evaluate_only(settings, device, prepared)
        return Outcome.SUCCESS
    return _train(settings, device, prepared)


def _check_load_model(settings: Settings) -> None:
    if settings.load_model is not None and not settings.load_model.is_file():
        raise RunError(f"--load-model={settings.load_model}: no such file")


def _device(settings: Settings) -> torch.device:
    if not settings.use_gpu:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UsageError("--use-gpu: no GPU is visible to PyTorch; leave the flag out to run on the CPU")
    return torch.device("cuda")


def load_for_inference(settings: Settings) -> tuple[DLRM_Net, Splits]:
    """Return the model with its weights and the data, for whoever wants to look at them."""
    _check_load_model(settings)
    prepared = prepared_data(settings.data, settings.seed)
    model = _load_model(settings, _device(settings), prepared)
    return model, open_splits(settings, prepared, None)


def _load_model(settings: Settings, device: torch.device, prepared: PreparedData) -> DLRM_Net:
    model = build_model(settings, make_architecture(settings, table_rows(settings, prepared)), device)
    if settings.load_model is None:
        note("--inference-only without --load-model: the model has its initial weights")
    _fill_weights(settings, model, np.random.RandomState(settings.seed))
    return model


def _evaluate_only(settings: Settings, device: torch.device, prepared: PreparedData) -> None:
    model = _load_model(settings, device, prepared)
    if settings.report.plot_compute_graph:
        _plot(model)
    test = open_split(settings, prepared, "test")
    all_metrics = settings.report.all_metrics
    print("Testing for inference only", flush=True)
    if settings.quantization.asked:
        metrics = _quantize_and_evaluate(settings, model, test)
    else:
        metrics = evaluate(make_scorer(settings, model), test, all_metrics=all_metrics)
    print_metrics(metrics, metrics, all_metrics=all_metrics)
    if settings.report.save_onnx:
        _save_onnx(settings, model)


def _fill_weights(settings: Settings, model: DLRM_Net, stream: np.random.RandomState) -> dict[str, object] | None:
    """Load or initialize the weights; return what else a checkpoint holds."""
    if settings.load_model is not None:
        return checkpoint.load_weights(settings.load_model, model)
    initialize_model(settings, model, stream)
    return None


def _quantize_and_evaluate(settings: Settings, model: DLRM_Net, test: BatchSource) -> Metrics:
    """Return the metrics of the quantized model; say on stderr what that saves and costs."""
    bits = settings.quantization
    scorer = GeneralScorer(model, settings.precision)
    before = evaluate(scorer, test, all_metrics=True)
    if bits.mlp_bits != 32:
        size = mlp_bytes(model)
        quantize_mlps(model, bits.mlp_bits)
        note(f"MLPs: {size / 1e6:,.3f} MB in 32 bits, {mlp_bytes(model) / 1e6:,.3f} MB in {bits.mlp_bits} bits")
    if bits.embedding_bits != 32:
        size = model.table_bytes()
        model.tables.quantize(bits.embedding_bits)
        quantized = model.table_bytes()
        megabytes = f"{size / 1e6:,.3f} MB in 32 bits, {quantized / 1e6:,.3f} MB in {bits.embedding_bits} bits"
        note(f"embedding tables: {megabytes}")
    after = evaluate(scorer, test, all_metrics=True)
    note(f"AUC: {before.auc:.6f} before, {after.auc:.6f} quantized, change {after.auc - before.auc:+.6f}")
    return after


def _plot(model: DLRM_Net) -> None:
    plot_compute_graph(model, GRAPH_FILE)
    note(f"compute graph in {GRAPH_FILE}")


def _save_onnx(settings: Settings, model: DLRM_Net) -> None:
    save_onnx(model, ONNX_FILE, several=settings.data.generation != "dataset")
    note(f"model in {ONNX_FILE}")


def _listeners(settings: Settings, device: torch.device) -> list[Listener]:
    report = settings.report
    listeners: list[Listener] = [
        Console(
            print_time=report.print_time,
            print_wall_time=report.print_wall_time,
            all_metrics=report.all_metrics,
        )
    ]
    if report.tensor_board_folder is not None:
        listeners.append(TensorBoard(report.tensor_board_folder))
    if report.profile:
        listeners.append(Profile(device))
    if report.all_metrics:
        listeners.append(ComplianceLog(_compliance_settings(settings)))
    return listeners


def _train(settings: Settings, device: torch.device, prepared: PreparedData | None) -> Outcome:
    listeners = _listeners(settings, device)
    loop: TrainingLoop | None = None
    outcome = Outcome.FAILED
    try:
        stream = np.random.RandomState(settings.seed)
        # Random data comes first in the one stream it shares with the weights: published output relies on it.
        made_up = None if prepared is not None else made_up_batches(settings, stream)
        model = build_model(settings, make_architecture(settings, table_rows(settings, prepared)), device)
        loaded = _fill_weights(settings, model, stream)
        optimizer = make_optimizer(settings.training.optimizer, model)
        step = make_step(settings, model, optimizer)
        warm_up(step, settings.data.batch_size)
        if settings.report.plot_compute_graph:
            _plot(model)
        if settings.report.debug:
            most = None if prepared is None else DEBUG_BATCHES
            debug = DebugReport(model, precision=settings.report.print_precision, most_batches=most)
            listeners.insert(0, debug)
        for listener in listeners:
            listener.init_stop()
        for listener in listeners:
            listener.run_start()
        splits = open_splits(settings, prepared, made_up)
        for listener in listeners:
            listener.data_opened(splits.train, splits.test)
        loop = _make_loop(settings, model, step, optimizer, splits, loaded, listeners)
        outcome = loop.run(splits.train)
    except BaseException as error:
        if isinstance(error, DivergedError):
            outcome = Outcome.DIVERGED
        elif not isinstance(error, Exception):  # Ctrl-C or SIGTERM
            outcome = Outcome.INTERRUPTED
        raise
    finally:
        for listener in listeners:
            listener.run_stop(loop.position if loop is not None else None, outcome)
    if outcome is Outcome.TARGET_MISSED:
        note("the target was not reached")
    if settings.report.save_onnx:
        _save_onnx(settings, model)
    return outcome


def _make_loop(
    settings: Settings,
    model: DLRM_Net,
    step: TrainingStep,
    optimizer: Optimizer,
    splits: Splits,
    loaded: dict[str, object] | None,
    listeners: Sequence[Listener],
) -> TrainingLoop:
    training = settings.training
    batches = splits.train.batches_per_epoch
    state = TrainingState(Window(step.sums))
    if loaded is not None:
        assert settings.load_model is not None
        state = checkpoint.load_training(
            settings.load_model,
            loaded,
            optimizer=optimizer,
            sums=step.sums,
            batches_per_epoch=batches,
            accumulate=training.accumulate,
            seed=settings.seed if settings.data.shuffle_batches else None,
        )

    all_metrics = settings.report.all_metrics or training.auc_threshold > 0

    def evaluate_test() -> Metrics:
        assert splits.test is not None
        return evaluate(step, splits.test, all_metrics=all_metrics)

    def save(path: Path, metrics: Metrics) -> None:
        assert splits.test is not None
        checkpoint.save(
            path,
            model=model,
            optimizer=optimizer,
            state=state,
            metrics=metrics,
            epochs=training.epochs,
            batches_per_epoch=batches,
            test_batches=splits.test.batches_per_epoch,
            seed=settings.seed,
        )

    save_to = settings.report.save_model
    return TrainingLoop(
        step=step,
        schedule=LearningRateSchedule(
            training.learning_rate, training.warmup_steps, training.decay_start_step, training.decay_steps
        ),
        settings=LoopSettings(
            epochs=training.epochs,
            test_frequency=_test_frequency(settings, batches),
            print_frequency=settings.report.print_frequency,
            accumulate=training.accumulate,
            accuracy_threshold=training.accuracy_threshold,
            auc_threshold=training.auc_threshold,
            save_on_auc=settings.report.all_metrics,
        ),
        state=state,
        listeners=listeners,
        evaluate=evaluate_test,
        save=None if save_to is None else lambda metrics: save(save_to, metrics),
    )


def _test_frequency(settings: Settings, batches: int) -> int:
    """Return the batches between evaluations: as asked, or as the edition's schedule, at whole optimizer steps."""
    asked, accumulate = settings.training.test_frequency, settings.training.accumulate
    if asked is not None:
        return asked
    per_epoch = EDITIONS[settings.report.edition].evaluations_per_epoch
    return max(1, math.ceil(batches / per_epoch / accumulate)) * accumulate


def _compliance_settings(settings: Settings) -> ComplianceSettings:
    training, report = settings.training, settings.report
    return ComplianceSettings(
        path=report.log_file,
        seed=settings.seed,
        global_batch_size=settings.data.batch_size * training.accumulate,
        learning_rate=training.learning_rate,
        warmup_steps=training.warmup_steps,
        decay_start_step=training.decay_start_step,
        decay_steps=training.decay_steps,
        accumulate=training.accumulate,
        optimizer=training.optimizer,
        bottom_layers=len(settings.model.mlp_bot) - 1,
        top_layers=len(settings.model.mlp_top),
        edition=EDITIONS[report.edition],
        division=report.division,
        status=report.status,
        submitter=report.submitter,
        platform=report.platform,
        cache_cleared=report.cache_cleared,
        has_target=training.accuracy_threshold > 0 or training.auc_threshold > 0,
    )
