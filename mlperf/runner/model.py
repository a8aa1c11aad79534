"""Creation of the model of a run: architecture and weights."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlperf.data.prepared.dataset import PreparedData
from mlperf.engines.choose import uses_torchrec
from mlperf.models.dlrm import Architecture, DLRM_Net
from mlperf.models.initialization import initialize
from mlperf.models.make import make_model
from mlperf.optim.optimizer import Optimizer
from mlperf.runner.data_shape import ids_per_table, table_rows
from mlperf.runner.memory import RunSizes, memory_for_tables, table_bytes
from mlperf.settings.settings import Settings
from mlperf.training import checkpoint
from mlperf.training.checkpoint_flags import recorded_flags
from mlperf.training.initial_weights import is_archive_of_arrays, load_initial_weights
from mlperf.util.failures import system_failures

_log = logging.getLogger(__name__)


def architecture_of(settings: Settings, prepared: PreparedData | None) -> Architecture:
    """Return the architecture given by the flags, with the table sizes and numbers of ids of the data set."""
    return replace(
        settings.model.architecture,
        rows_per_table=table_rows(settings, prepared),
        ids_per_table=ids_per_table(settings, prepared),
    )


def build_model(settings: Settings, architecture: Architecture, device: torch.device, sizes: RunSizes) -> DLRM_Net:
    """Return a model with uninitialized weights. sizes: of the data, which also needs memory."""
    if architecture.compression is not None:
        uncompressed = 4 * sum(architecture.rows_per_table) * architecture.dimension
        needed = table_bytes(architecture)
        _log.info(
            f"embedding tables: {needed // 4:,} parameters, {needed / 1e6:,.3f} MB; without compression "
            f"{uncompressed // 4:,} parameters, {uncompressed / 1e6:,.3f} MB: "
            f"{100 * (1 - needed / uncompressed):.1f} % saved"
        )
    if uses_torchrec(settings):
        from mlperf.engines.torchrec.tables import ShardedTables  # needs torchrec

        memory = memory_for_tables(settings, architecture, device, sizes)
        return make_model(architecture, device, ShardedTables(architecture, settings, device, memory))
    return make_model(architecture, device)


def fill_weights(
    settings: Settings,
    model: DLRM_Net,
    stream: np.random.RandomState,
    prepared: PreparedData | None,
    optimizer: Optimizer | None = None,
) -> dict[str, Any] | None:
    """Load a checkpoint and return its other entries, or load or draw initial weights and return None.

    optimizer: of a run that trains. RunError if the file is damaged, belongs to another model or optimizer, or was
    saved with flags that contradict those of this run.
    """
    if settings.load_model is not None:
        flags = recorded_flags(settings, prepared)
        return checkpoint.load_weights(
            settings.load_model, model, flags, trains=not settings.inference_only, optimizer=optimizer
        )
    if settings.load_weights is not None:
        _load_initial(settings, settings.load_weights, model, prepared)
        return None
    initialize_model(settings, model, stream)
    return None


def _load_initial(settings: Settings, path: Path, model: DLRM_Net, prepared: PreparedData | None) -> None:
    """Fill the model with the weights of --load-weights, and log where they are from."""
    with system_failures(path, "the weights cannot be read"):
        is_arrays = path.is_file() and is_archive_of_arrays(path)
    if is_arrays:
        load_initial_weights(path, model)
        return
    contents = checkpoint.load_initial(path, model, recorded_flags(settings, prepared))
    position = checkpoint.described_position(contents)
    of = "" if position is None else f", which was saved after {position}"
    then = "" if settings.inference_only else "; the training starts anew, with a new optimizer"
    _log.info("--load-weights=%s: the weights are those of this checkpoint%s%s", path, of, then)


def initialize_model(settings: Settings, model: DLRM_Net, stream: np.random.RandomState) -> None:
    """Initialize the weights from `stream`; --embedding-init may select another generator for the tables."""
    initialize(
        model,
        stream,
        mlp_init=settings.mlp_init,
        embedding_init=settings.model.embedding_init,
        seed=settings.seed,
    )
