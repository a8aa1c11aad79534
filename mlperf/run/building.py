"""From settings to a model: its sizes, its memory, its initial weights, its kernels warm."""

from __future__ import annotations

import numpy as np
import torch

from mlperf.models.dlrm import Architecture, DLRM_Net
from mlperf.models.initialization import initialize
from mlperf.models.layers.embedding.compression import Compression, MixedDimension, QuotientRemainder
from mlperf.reporting.console import note
from mlperf.settings.settings import Settings
from mlperf.util.errors import RunError
from mlperf.util.memory import require_memory


def make_architecture(settings: Settings, rows_per_table: tuple[int, ...]) -> Architecture:
    """Return the sizes of the model; the data brings the rows of its tables."""
    model = settings.model
    return Architecture(
        rows_per_table=rows_per_table,
        dimension=model.dimension,
        mlp_bot=model.mlp_bot,
        mlp_top=model.mlp_top,
        interaction_op=model.interaction_op,
        interaction_itself=model.interaction_itself,
        activation=model.activation,
        weighted_pooling=model.weighted_pooling,
        loss_threshold=model.loss_threshold,
        compression=_compression(settings),
    )


def _compression(settings: Settings) -> Compression | None:
    how = settings.model.compression
    if how is None:
        return None
    if how.kind == "quotient-remainder":
        return QuotientRemainder(how.threshold, how.operation, how.collisions)
    return MixedDimension(how.threshold, how.temperature, how.round_dimensions)


def build_model(settings: Settings, architecture: Architecture, device: torch.device) -> DLRM_Net:
    """Return a model whose weights are still undefined. RunError if the memory does not hold it."""
    plain = 4 * sum(architecture.rows_per_table) * architecture.dimension
    needed = plain
    if architecture.compression is not None:
        needed = DLRM_Net(architecture, torch.device("meta")).tables.nbytes()
        note(
            f"embedding tables: {needed // 4:,} parameters, {needed / 1e6:,.3f} MB; without compression "
            f"{plain // 4:,} parameters, {plain / 1e6:,.3f} MB: {100 * (1 - needed / plain):.1f} % saved"
        )
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


def initialize_model(settings: Settings, model: DLRM_Net, stream: np.random.RandomState) -> None:
    """Fill the weights from `stream`, as the flags ask for."""
    initialize(
        model,
        stream,
        mlp_init=settings.model.mlp_init,
        embedding_init=settings.model.embedding_init,
        seed=settings.seed,
    )
