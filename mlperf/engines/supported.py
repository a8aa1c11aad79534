"""Models and settings that the layer-by-layer engines (CPU and GPU) support."""

from __future__ import annotations

from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.embedding.flat_tables import FlatTables
from mlperf.settings.settings import Settings

# Those for which the engines have loops and kernels; others can be registered.
OPTIMIZERS = ("sgd", "adagrad", "rwsadagrad")
INTERACTIONS = ("dot", "dcn")


def unsupported_setting(settings: Settings) -> str | None:
    """Return why neither engine supports `settings`, None if both do."""
    training = settings.training
    if (reason := _unsupported_ids(settings)) is not None:
        return reason
    if settings.inference_only:
        return None
    if training.optimizer not in OPTIMIZERS:
        return _unsupported("--optimizer", training.optimizer)
    if training.accumulate > 1:
        return _unsupported("--mlperf-grad-accum-iter", training.accumulate)
    return None


def _unsupported_ids(settings: Settings) -> str | None:
    """Return why the ids of the run are not supported, or are left to the autograd engine unless one is chosen."""
    data, architecture = settings.data, settings.model.architecture
    if data.generation != "dataset":
        return f"--data-generation={data.generation} can have several ids per table and sample"
    is_new = architecture.has_cross_network or settings.processes.engine != "auto"
    if data.multi_hot.sizes is None or is_new:
        return None
    return (
        f"--multi-hot-sizes with --arch-interaction-op={architecture.interaction_op} reproduces earlier results; "
        "--engine can choose a faster one"
    )


def unsupported_model(model: DLRM_Net) -> str | None:
    """Return why neither engine supports `model`, None if both do. They are written for MLPerf's two models."""
    architecture = model.architecture
    if not isinstance(model.tables, FlatTables):
        return "the embedding tables are compressed"
    if architecture.weighted_pooling is not None:
        return _unsupported("--weighted-pooling", architecture.weighted_pooling)
    if architecture.interaction_op not in INTERACTIONS:
        return _unsupported("--arch-interaction-op", architecture.interaction_op)
    if architecture.activation != "relu":
        return _unsupported("--activation-function", architecture.activation)
    return None


def _unsupported(flag: str, value: object) -> str:
    return f"{flag}={value} is not supported by the cpu and gpu engines"
