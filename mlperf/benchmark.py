"""What a run is: data, model, train or evaluate, report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mlperf.data.batch import Batch
from mlperf.data.binary import BinaryFile
from mlperf.data.criteo.prepare import PreparationSettings, PreparedData, open_prepared, prepare
from mlperf.data.random_batches import Gaussian, RandomBatches, RandomDataSettings, random_data_samples
from mlperf.data.source import BatchSource
from mlperf.errors import RunError, UsageError
from mlperf.evaluation.evaluate import evaluate
from mlperf.evaluation.metrics import Metrics, binary_metrics
from mlperf.memory import require_memory
from mlperf.model.dlrm import Architecture, DLRM_Net
from mlperf.model.initialization import initialize
from mlperf.model.loss import Loss
from mlperf.reporting.compliance_log import ComplianceLog, ComplianceSettings
from mlperf.reporting.console import Console, note, print_metrics
from mlperf.settings import DataSettings, Settings
from mlperf.training import checkpoint
from mlperf.training.events import Listener, Outcome
from mlperf.training.loop import LoopSettings, TrainingLoop, TrainingState, Window
from mlperf.training.optimizers import Optimizer
from mlperf.training.schedule import LearningRateSchedule

# The MLPerf rule for the schedule of evaluations: every 1/20 of an epoch.
EVALUATIONS_PER_EPOCH = 20


@dataclass(frozen=True)
class Splits:
    """The batches to train on and those to evaluate on (none for random data)."""

    train: BatchSource
    test: BatchSource | None


def run(settings: Settings) -> Outcome:
    """Train or evaluate as `settings` say. RunError or UsageError if it cannot be done."""
    device = _device(settings)
    if settings.load_model is not None and not settings.load_model.is_file():
        raise RunError(f"--load-model={settings.load_model}: no such file")
    if settings.data.generation == "random":
        return _train(settings, device, None)
    prepared = _prepared_data(settings.data, settings.seed)
    if settings.inference_only:
        _evaluate_only(settings, device, prepared)
        return Outcome.SUCCESS
    return _train(settings, device, prepared)


def _device(settings: Settings) -> torch.device:
    if not settings.use_gpu:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UsageError("--use-gpu: no GPU is visible to PyTorch; leave the flag out to run on the CPU")
    return torch.device("cuda")


def _prepared_data(data: DataSettings, seed: int) -> PreparedData:
    """Return the prepared data, making it from the raw data where it is missing."""
    place = data.processed_data_file
    if place is None:
        assert data.raw_data_file is not None
        names = {"kaggle": "kaggleAdDisplayChallenge_processed", "terabyte": "terabyte_processed"}
        place = data.raw_data_file.parent / names[data.data_set]
    found = open_prepared(place, raw_data_file=data.raw_data_file)
    if found is not None:
        _check_limit(found, data.max_ind_range)
        return found
    if data.raw_data_file is None:
        raise RunError(f"{place}: no prepared data there, and no --raw-data-file to make it from")
    return prepare(
        PreparationSettings(
            data_set=data.data_set,
            raw_data_file=data.raw_data_file,
            processed_data_file=place,
            max_ind_range=data.max_ind_range,
            randomize=data.randomize,
            seed=seed,
        )
    )


def _check_limit(prepared: PreparedData, max_ind_range: int) -> None:
    """The limit comes before the numbering: data prepared with another one cannot be brought to it any more."""
    if max_ind_range > 0 and prepared.max_ind_range not in (None, max_ind_range):
        raise UsageError(
            f"--max-ind-range={max_ind_range}: {prepared.train} was prepared with {prepared.max_ind_range}; "
            "allowed is that, or leaving the flag out; to prepare anew, name another --processed-data-file"
        )


def _architecture(settings: Settings, prepared: PreparedData | None) -> Architecture:
    model = settings.model
    rows = model.embedding_rows if prepared is None else _table_rows(prepared, settings.data.max_ind_range)
    architecture = Architecture(
        rows_per_table=rows,
        dimension=model.dimension,
        mlp_bot=model.mlp_bot,
        mlp_top=model.mlp_top,
        interaction_op=model.interaction_op,
        interaction_itself=model.interaction_itself,
        activation=model.activation,
        weighted_pooling=model.weighted_pooling,
        loss_threshold=model.loss_threshold,
    )
    return architecture


def _table_rows(prepared: PreparedData, max_ind_range: int) -> tuple[int, ...]:
    if max_ind_range < 0:
        return tuple(prepared.counts)
    return tuple(min(count, max_ind_range) for count in prepared.counts)


def _build_model(settings: Settings, architecture: Architecture, device: torch.device) -> DLRM_Net:
    needed = 4 * sum(architecture.rows_per_table) * architecture.dimension
    if settings.training.optimizer == "adagrad" and not settings.inference_only:
        needed *= 2  # a sum of squares for each weight
    what = "the embedding tables (--arch-sparse-feature-size, --max-ind-range, --arch-embedding-size)"
    if device.type == "cpu":
        require_memory(needed, what)
    try:
        return DLRM_Net(architecture, device)
    except (RuntimeError, MemoryError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(f"{what}: need {needed / 1e9:.1f} GB on {device}: {reason}") from None


def _split(settings: Settings, prepared: PreparedData, which: str) -> BinaryFile:
    data = settings.data
    train = which == "train"
    return BinaryFile(
        path=prepared.train if train else prepared.test,
        rows=prepared.train_rows if train else prepared.test_rows,
        batch_size=data.batch_size if train else data.test_batch_size,
        rows_per_table=_table_rows(prepared, data.max_ind_range),
        max_ind_range=data.max_ind_range,
        shuffle_seed=settings.seed if train and data.shuffle_batches else None,
        limit=data.num_batches if train else 0,
        readers=data.readers if train else data.test_readers,
        pin_memory=settings.use_gpu,
    )


def _evaluate_only(settings: Settings, device: torch.device, prepared: PreparedData) -> None:
    model = _build_model(settings, _architecture(settings, prepared), device)
    if settings.load_model is not None:
        checkpoint.load_weights(settings.load_model, model)
    else:
        note("--inference-only without --load-model: the model has its initial weights")
        _initialize(settings, model, np.random.RandomState(settings.seed))
    print("Testing for inference only", flush=True)
    metrics = evaluate(model, _split(settings, prepared, "test"), all_metrics=settings.report.all_metrics)
    print_metrics(metrics, metrics, all_metrics=settings.report.all_metrics)


def _initialize(settings: Settings, model: DLRM_Net, stream: np.random.RandomState) -> None:
    initialize(
        model,
        stream,
        mlp_init=settings.model.mlp_init,
        embedding_init=settings.model.embedding_init,
        seed=settings.seed,
    )


def _train(settings: Settings, device: torch.device, prepared: PreparedData | None) -> Outcome:
    listeners: list[Listener] = [
        Console(
            print_time=settings.report.print_time,
            print_wall_time=settings.report.print_wall_time,
            all_metrics=settings.report.all_metrics,
        )
    ]
    if settings.report.all_metrics:
        listeners.append(ComplianceLog(_compliance_settings(settings)))
    loop: TrainingLoop | None = None
    outcome = Outcome.FAILED
    try:
        stream = np.random.RandomState(settings.seed)
        # Random data comes first in the one stream it shares with the weights: published output relies on it.
        made_up = None if prepared is not None else _random_batches(settings, stream)
        model = _build_model(settings, _architecture(settings, prepared), device)
        loaded = None
        if settings.load_model is not None:
            loaded = checkpoint.load_weights(settings.load_model, model)
        else:
            _initialize(settings, model, stream)
        loss = Loss(settings.model.loss, settings.model.loss_weights)
        _warm_up(model, loss, settings.data.batch_size)
        for listener in listeners:
            listener.init_stop()
        for listener in listeners:
            listener.run_start()
        splits = _open_splits(settings, prepared, made_up)
        test_samples = 0 if splits.test is None else splits.test.samples
        for listener in listeners:
            listener.data_opened(splits.train.samples, test_samples)
        loop = _make_loop(settings, model, loss, splits, loaded, listeners)
        outcome = loop.run(splits.train)
    except BaseException as error:
        if not isinstance(error, Exception):  # Ctrl-C or SIGTERM
            outcome = Outcome.INTERRUPTED
        raise
    finally:
        for listener in listeners:
            listener.run_stop(loop.position if loop is not None else None, outcome)
    if outcome is Outcome.TARGET_MISSED:
        note("the target was not reached")
    return outcome


def _random_batches(settings: Settings, stream: np.random.RandomState) -> RandomBatches:
    data = settings.data
    return RandomBatches(
        RandomDataSettings(
            samples=random_data_samples(data.data_size, data.num_batches, data.batch_size),
            batch_size=data.batch_size,
            dense_features=settings.model.mlp_bot[0],
            rows_per_table=settings.model.embedding_rows,
            lookups=data.lookups,
            fixed=data.lookups_fixed,
            round_targets=data.round_targets,
            gaussian=None if data.gaussian is None else Gaussian(*data.gaussian),
        ),
        stream,
    )


def _open_splits(settings: Settings, prepared: PreparedData | None, made_up: RandomBatches | None) -> Splits:
    if prepared is None:
        assert made_up is not None
        return Splits(made_up, None)
    return Splits(_split(settings, prepared, "train"), _split(settings, prepared, "test"))


def _make_loop(
    settings: Settings,
    model: DLRM_Net,
    loss: Loss,
    splits: Splits,
    loaded: dict[str, object] | None,
    listeners: Sequence[Listener],
) -> TrainingLoop:
    training = settings.training
    batches = splits.train.batches_per_epoch
    optimizer = Optimizer(training.optimizer, model)
    state = TrainingState(Window.empty(model.tables.weight.device))
    if loaded is not None:
        assert settings.load_model is not None
        state = checkpoint.load_training(
            settings.load_model,
            loaded,
            optimizer=optimizer,
            batches_per_epoch=batches,
            accumulate=training.accumulate,
            batch_size=settings.data.batch_size,
            seed=settings.seed if settings.data.shuffle_batches else None,
        )

    all_metrics = settings.report.all_metrics or training.auc_threshold > 0

    def evaluate_test() -> Metrics:
        assert splits.test is not None
        return evaluate(model, splits.test, all_metrics=all_metrics)

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
        model=model,
        loss=loss,
        optimizer=optimizer,
        schedule=LearningRateSchedule(
            training.learning_rate, training.warmup_steps, training.decay_start_step, training.decay_steps
        ),
        settings=LoopSettings(
            epochs=training.epochs,
            test_frequency=_test_frequency(training.test_frequency, batches, training.accumulate),
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


def _test_frequency(asked: int | None, batches: int, accumulate: int) -> int:
    """Return the batches between evaluations; None asks for 20 an epoch, at whole optimizer steps."""
    if asked is not None:
        return asked
    return max(1, math.ceil(batches / EVALUATIONS_PER_EPOCH / accumulate)) * accumulate


def _warm_up(model: DLRM_Net, loss: Loss, batch_size: int) -> None:
    """Run every kernel once on made-up data, so that none is loaded or compiled in the timed part."""
    device = model.tables.weight.device
    tables = len(model.architecture.rows_per_table)
    batch = Batch(
        torch.zeros(batch_size, model.architecture.mlp_bot[0], device=device),
        torch.zeros(tables, batch_size, dtype=torch.int64, device=device),
        None,
        (torch.arange(batch_size, device=device) % 2).float().unsqueeze(1),
    )
    lookup = model.tables.look_up(batch)
    lookup.pooled.requires_grad_()
    probability = model.predict(batch.dense, lookup.pooled)
    loss(probability, batch.labels).backward()
    model.zero_grad(set_to_none=True)
    if batch_size > 1:
        binary_metrics(probability.detach(), batch.labels)


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
        division=report.division,
        submitter=report.submitter,
        platform=report.platform,
        cache_cleared=report.cache_cleared,
        has_target=training.accuracy_threshold > 0 or training.auc_threshold > 0,
    )
