"""What `measure_inference.py` measures: a model and samples to score, drawn at random or those of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

import mlperf
from mlperf.data.batch import Batch, RawBatch, RowSource
from mlperf.data.memory_rows import MemoryRows
from mlperf.data.multi_hot import MultiHotShape, MultiHotTables
from mlperf.data.row_batches import RowBatches
from mlperf.engines.warm_up import bag_offsets
from mlperf.models.dlrm import Architecture, DLRM_Net
from mlperf.runner.benchmark import open_for_inference
from mlperf.runner.data import open_split
from mlperf.runner.memory import RunSizes, require_run_memory
from mlperf.runner.model import build_model, initialize_model
from mlperf.settings.from_flags import parse
from mlperf.settings.settings import Settings
from synthetic_rows import synthetic_rows
from training_shapes import Shape


@dataclass(frozen=True)
class Subject:
    """A model in float32 and the samples that are scored with it.

    pool: all samples as one batch, on the host. raw: the same, undecoded.
    """

    title: str
    settings: Settings
    model: DLRM_Net
    pool: Batch
    raw: RawBatch

    @property
    def samples(self) -> int:
        """Number of samples."""
        return self.pool.size

    @property
    def architecture(self) -> Architecture:
        """Sizes of the model."""
        return self.model.architecture

    def batch(self, start: int, size: int) -> Batch:
        """Return `size` samples from number `start` on."""
        stop, pool, counts = start + size, self.pool, self.architecture.ids_per_table
        dense, labels = pool.dense[start:stop].contiguous(), pool.labels[start:stop]
        if counts is None:
            return Batch(dense, pool.indices[:, start:stop].contiguous(), None, labels)
        ids = _bags(pool.indices, counts, pool.size, start, stop)
        return Batch(dense, ids, bag_offsets(counts, size, dense.device), labels, tuple(counts))

    def raw_batch(self, start: int, size: int) -> RawBatch:
        """Return the same samples as `batch`, undecoded and in pinned memory."""
        stop, raw, counts = start + size, self.raw, self.architecture.ids_per_table
        ids = None
        if raw.ids is not None:
            assert counts is not None
            ids = _bags(raw.ids, counts, raw.size, start, stop).pin_memory()
        return RawBatch(raw.rows[start:stop].pin_memory(), start, raw.source, ids)


def _bags(ids: torch.Tensor, counts: Sequence[int], samples: int, start: int, stop: int) -> torch.Tensor:
    """Return the ids of the samples from `start` to `stop`, table by table. ids: those of all `samples`."""
    of_tables = ids.split([samples * count for count in counts])
    return torch.cat([part[start * count : stop * count] for part, count in zip(of_tables, counts, strict=True)])


def random_subject(shape: Shape, samples: int, device: torch.device) -> Subject:
    """Return a model with drawn weights, and samples with log-uniform ids. RunError if memory is short."""
    use_gpu = ["--use-gpu"] if device.type == "cuda" else []
    data = ["--data-generation=dataset", "--processed-data-file=x", "--embedding-init=device", "--inference-only"]
    settings = parse([*shape.flags, *data, *use_gpu])
    architecture = replace(
        settings.model.architecture, rows_per_table=shape.tables, ids_per_table=shape.ids_per_table
    )
    sizes = RunSizes(0, samples)
    require_run_memory(settings, architecture, device, sizes)
    model = build_model(settings, architecture, device, sizes)
    initialize_model(settings, model, np.random.RandomState(1))
    ids = shape.ids_per_table
    rows = MemoryRows(
        synthetic_rows(samples, shape.tables, np.random.default_rng(1)),
        RowSource(Path("random rows"), shape.tables),
        samples,
        multi_hot=None if ids is None else MultiHotTables.drawn(MultiHotShape(shape.tables, ids)),
    )
    return _subject(shape.title, settings, model, rows)


def checkpoint_subject(checkpoint: Path, data: Path, samples: int, *, use_gpu: bool) -> Subject:
    """Return the model of a checkpoint and the first samples of the test split of prepared data.

    UsageError or RunError if they cannot be loaded.
    """
    settings = mlperf.load(checkpoint, data, use_gpu=use_gpu, test_mini_batch_size=samples).settings
    model, prepared = open_for_inference(settings, ())
    rows = open_split(settings, prepared, "test", is_evaluated=True)
    return _subject(str(checkpoint), settings, model, rows)


def _subject(title: str, settings: Settings, model: DLRM_Net, rows: RowBatches) -> Subject:
    """Return the subject whose samples are the first batch of `rows`."""
    return Subject(title, settings, model, next(iter(rows.batches(0))), next(iter(rows.raw_batches(0))))
