"""Creation of the model of a run: architecture, memory check and weights."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mlperf.data.criteo.prepared.dataset import PreparedData
from mlperf.models.dlrm import Architecture, DLRM_Net
from mlperf.models.initialization import initialize
from mlperf.registry import OPTIMIZERS, load
from mlperf.runner.data import table_rows
from mlperf.settings.settings import Settings
from mlperf.training import checkpoint
from mlperf.training.checkpoint_flags import recorded_flags
from mlperf.util.errors import RunError
from mlperf.util.memory import require_memory

_log = logging.getLogger(__name__)


def architecture_of(settings: Settings, prepared: PreparedData | None) -> Architecture:
    """Return the architecture given by the flags, with the table sizes of the data set."""
    return replace(settings.model.architecture, rows_per_table=table_rows(settings, prepared))


def build_model(settings: Settings, architecture: Architecture, device: torch.device) -> DLRM_Net:
    """Return a model with uninitialized weights. RunError if it does not fit into memory."""
    uncompressed = 4 * sum(architecture.rows_per_table) * architecture.dimension
    needed = uncompressed
    if architecture.compression is not None:
        needed = DLRM_Net(architecture, torch.device("meta")).table_bytes()
        _log.info(
            f"embedding tables: {needed // 4:,} parameters, {needed / 1e6:,.3f} MB; without compression "
            f"{uncompressed // 4:,} parameters, {uncompressed / 1e6:,.3f} MB: "
            f"{100 * (1 - needed / uncompressed):.1f} % saved"
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


def fill_weights(
    settings: Settings, model: DLRM_Net, stream: np.random.RandomState, prepared: PreparedData | None
) -> dict[str, Any] | None:
    """Load the weights and return the rest of the checkpoint, or initialize the weights and return None.

    RunError if the checkpoint belongs to another model, or was saved with flags that contradict those of this run.
    """
    if settings.load_model is not None:
        flags = recorded_flags(settings, prepared)
        return checkpoint.load_weights(settings.load_model, model, flags, trains=not settings.inference_only)
    initialize_model(settings, model, stream)
    return None


def initialize_model(settings: Settings, model: DLRM_Net, stream: np.random.RandomState) -> None:
    """Initialize the weights from `stream`; --embedding-init may select another generator for the tables."""
    initialize(
        model,
        stream,
        mlp_init=settings.mlp_init,
        embedding_init=settings.model.embedding_init,
        seed=settings.seed,
    )
