"""From settings to a model: its architecture, memory and weights, and the engine that runs it."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mlperf.data.criteo.prepared.dataset import PreparedData
from mlperf.engines.autograd.scorer import GeneralScorer, Scorer
from mlperf.engines.cpu import products
from mlperf.engines.cpu import step as cpu_step
from mlperf.engines.cpu.step import CpuScorer, CpuStep
from mlperf.engines.protocol import GeneralStep, TrainingStep
from mlperf.evaluation.metrics import binary_metrics
from mlperf.models.dlrm import Architecture, DLRM_Net
from mlperf.models.initialization import initialize
from mlperf.models.loss import Loss
from mlperf.optim.optimizer import Optimizer
from mlperf.registry import OPTIMIZERS, load
from mlperf.runner.data import table_rows
from mlperf.settings.settings import Settings
from mlperf.training import checkpoint
from mlperf.util.errors import RunError
from mlperf.util.memory import require_memory

_log = logging.getLogger(__name__)


def architecture_of(settings: Settings, prepared: PreparedData | None) -> Architecture:
    """Return the architecture that the flags ask for, with the number of rows per table that the data has."""
    return replace(settings.model.architecture, rows_per_table=table_rows(settings, prepared))


def build_model(settings: Settings, architecture: Architecture, device: torch.device) -> DLRM_Net:
    """Return a model whose weights are still undefined. RunError if it does not fit into the memory."""
    plain = 4 * sum(architecture.rows_per_table) * architecture.dimension
    needed = plain
    if architecture.compression is not None:
        needed = DLRM_Net(architecture, torch.device("meta")).table_bytes()
        _log.info(
            f"embedding tables: {needed // 4:,} parameters, {needed / 1e6:,.3f} MB; without compression "
            f"{plain // 4:,} parameters, {plain / 1e6:,.3f} MB: {100 * (1 - needed / plain):.1f} % saved"
        )
    if not settings.inference_only:
        needed *= 1 + load(OPTIMIZERS[settings.training.optimizer]).state_per_value
    what = "the embedding tables (--arch-sparse-feature-size, --max-ind-range, --arch-embedding-size)"
    if device.type == "cpu":
        require_memory(needed, what)
    try:
        return DLRM_Net(architecture, device)
    except (RuntimeError, MemoryError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(f"{what}: need {needed / 1e9:.1f} GB on {device}: {reason}") from None


def fill_weights(settings: Settings, model: DLRM_Net, stream: np.random.RandomState) -> dict[str, Any] | None:
    """Load the weights and return the rest of the checkpoint, or initialize the weights and return None."""
    if settings.load_model is not None:
        return checkpoint.load_weights(settings.load_model, model)
    initialize_model(settings, model, stream)
    return None


def initialize_model(settings: Settings, model: DLRM_Net, stream: np.random.RandomState) -> None:
    """Initialize the weights, from `stream` or as --embedding-init asks."""
    initialize(
        model,
        stream,
        mlp_init=settings.mlp_init,
        embedding_init=settings.model.embedding_init,
        seed=settings.seed,
    )


def make_step(settings: Settings, model: DLRM_Net, optimizer: Optimizer) -> TrainingStep:
    """Return the fastest training step that supports the settings."""
    loss = Loss(settings.model.loss, settings.model.loss_weights)
    training = settings.training
    if training.optimizer == "sgd" and training.accumulate == 1:
        if _fast_on_cpu(settings, model):
            return CpuStep(model, loss, optimizer, settings.precision)
        if _fast_on_gpu(settings, model):
            from mlperf.engines.gpu.step import GpuStep

            return GpuStep(model, loss, optimizer, settings.precision, settings.data.max_ind_range)
    if training.optimizer != "sgd" and not settings.use_gpu:
        products.sum_as_published()
    return GeneralStep(model, loss, optimizer, settings.precision)


def make_scorer(settings: Settings, model: DLRM_Net) -> Scorer:
    """Return the fastest scorer that supports the settings."""
    if _fast_on_cpu(settings, model):
        return CpuScorer(model, settings.precision)
    if _fast_on_gpu(settings, model):
        from mlperf.engines.gpu.step import GpuScorer

        return GpuScorer(model, settings.precision, settings.data.max_ind_range)
    return GeneralScorer(model, settings.precision)


def _fast_on_cpu(settings: Settings, model: DLRM_Net) -> bool:
    """Data sets have one id per table and sample, as the fast ways ask for."""
    return not settings.use_gpu and settings.data.generation == "dataset" and cpu_step.serves(model)


def _fast_on_gpu(settings: Settings, model: DLRM_Net) -> bool:
    if not settings.use_gpu or settings.data.generation != "dataset":
        return False
    try:
        from mlperf.engines.gpu import launch as gpu
        from mlperf.engines.gpu import step as gpu_step
    except ImportError as error:
        obstacle: str | None = str(error)
    else:
        obstacle = gpu.obstacle()
    if obstacle is not None:
        _log.info(
            f"the general, slower way is taken on the GPU; the fast one needs Triton, a part of PyTorch's CUDA "
            f"build, and a C compiler: {obstacle}"
        )
        return False
    return gpu_step.serves(model)


def warm_up(step: TrainingStep, batch_size: int) -> None:
    """Run every kernel once on made-up data, so that none is loaded or compiled in the timed part."""
    step.warm_up(batch_size)
    labels = (torch.arange(max(batch_size, 2)) % 2).to(step.device, torch.float32)
    binary_metrics(labels, labels)
