"""Time of a training step and of an evaluation, measured with rows that are drawn at random."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch

from mlperf.data.batch import Batch
from mlperf.data.source import BatchSource
from mlperf.engines.choose import choose_engine, make_step_of
from mlperf.engines.protocol import TrainingStep
from mlperf.engines.warm_up import synthetic_batch, warm_up
from mlperf.evaluation.evaluate import metrics_of_run
from mlperf.models.dlrm import Architecture, DLRM_Net
from mlperf.optim.optimizer import make_optimizer
from mlperf.runner.data import generated_batches
from mlperf.runner.memory import RunSizes, table_bytes
from mlperf.runner.model import build_model, initialize_model
from mlperf.settings.settings import Settings
from mlperf.training.schedule import learning_rate

_MAX_TABLE_BYTES = 1 << 29  # far beyond most caches, and quick to initialize
_SECONDS = 1.0  # of steps that are timed
_MIN_STEPS, _MAX_STEPS = 3, 100
_BATCHES = 4  # different ones
_MAX_METRICS_SAMPLES = 1 << 20


@dataclass(frozen=True)
class StepTime:
    """Times in seconds.

    engine: its description. train: of a training step, 0 without training. score: of scoring a test batch.
    metrics: of computing the metrics of the test split. max_rows: rows that a table had at most, None if the
    tables had their own size.
    """

    engine: str
    train: float
    score: float
    metrics: float
    max_rows: int | None


def measure_steps(
    settings: Settings,
    architecture: Architecture,
    device: torch.device,
    sizes: RunSizes,
) -> StepTime:
    """Create a model and time it. Large tables are made smaller, so that the model needs less than 2 GB."""
    limited, max_rows = _limited(architecture)
    settings = replace(settings, model=replace(settings.model, architecture=limited))
    stream = np.random.RandomState(settings.seed)
    generated = None if settings.data.generation == "dataset" else generated_batches(settings, stream)
    model = build_model(settings, limited, device, sizes)
    initialize_model(settings, model, stream)
    training = settings.training
    optimizer = make_optimizer(training.optimizer, model, settings.seed, training.adagrad_epsilon)
    engine = choose_engine(model, settings)
    step = make_step_of(engine, model, settings, optimizer)
    size, test_size = sizes.train_batch(settings), sizes.test_batch(settings)
    warm_up(step, size)
    batches = _random_batches(settings, model, size) if generated is None else _first(step, generated)
    rates = cycle([*[None] * (training.accumulate - 1), learning_rate(training.schedule, 1)])
    score = metrics = 0.0
    if test_size:
        test_batches = _random_batches(settings, model, test_size)
        score = _seconds(step, test_batches, step.score)
        metrics = _metrics_seconds(settings, sizes.test_samples, step)
    train = 0.0
    if not settings.inference_only:
        train = _seconds(step, batches, lambda batch: step.train(batch, next(rates)))
    return StepTime(engine.description, train, score, metrics, max_rows)


def _limited(architecture: Architecture) -> tuple[Architecture, int | None]:
    """Return the architecture with tables of together at most 512 MB, and the rows to which they were limited."""
    limit: int | None = None
    limited = architecture
    while table_bytes(limited) > _MAX_TABLE_BYTES:
        limit = max(limited.rows_per_table) // 2
        rows = tuple(min(rows, limit) for rows in architecture.rows_per_table)
        limited = replace(architecture, rows_per_table=rows)
    return limited, limit


def _random_batches(settings: Settings, model: DLRM_Net, size: int) -> list[Batch]:
    """Return batches as of a data set. Their ids are uniformly distributed, so that few are in a cache."""
    architecture, device = model.architecture, model.tables.device
    generator = torch.Generator(device).manual_seed(settings.seed)
    ids_per_table = settings.data.multi_hot.sizes or architecture.ids_per_table
    batches = []
    for _ in range(_BATCHES):
        batch = synthetic_batch(model, size, ids_per_table)
        counts = ids_per_table or (1,) * len(architecture.rows_per_table)
        ids = [
            torch.randint(rows, (size * count,), generator=generator, device=device)
            for rows, count in zip(architecture.rows_per_table, counts, strict=True)
        ]
        dense = torch.rand(batch.dense.shape, generator=generator, device=device)
        batches.append(replace(batch, dense=dense, indices=torch.cat(ids).view(batch.indices.shape)))
    return batches


def _first(step: TrainingStep, generated: BatchSource) -> list[Any]:
    return list(islice(step.training_batches(generated, 0), _BATCHES))


def _seconds(step: TrainingStep, batches: Sequence[Any], work: Callable[[Any], object]) -> float:
    """Return the mean time of `work` with one of the batches."""

    def timed(count: int) -> float:
        started = time.perf_counter()
        for batch in islice(cycle(batches), count):
            work(batch)
        step.sums.totals()  # waits for the device
        return (time.perf_counter() - started) / count

    first = timed(_MIN_STEPS)
    return timed(max(_MIN_STEPS, min(_MAX_STEPS, round(_SECONDS / first))))


def _metrics_seconds(settings: Settings, samples: int, step: TrainingStep) -> float:
    """Return the time of computing the metrics of the test split, which is nearly proportional to its samples."""
    count = min(samples, _MAX_METRICS_SAMPLES)
    scores = torch.rand(count, device=step.device)
    labels = (torch.arange(count, device=step.device) % 2).float()
    all_metrics = settings.compliance.enabled or settings.training.auc_threshold > 0
    started = time.perf_counter()
    metrics_of_run(scores, labels, all_metrics=all_metrics)
    return (time.perf_counter() - started) * samples / count
