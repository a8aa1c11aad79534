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
    if (generation := settings.data.generation) != "dataset":
        return f"--data-generation={generation} can have several ids per table and sample"
    if settings.quantization.requested:
        return "quantized weights need PyTorch's own operators"
    if settings.inference_only:
        return None
    if training.optimizer not in OPTIMIZERS:
        return _unsupported("--optimizer", training.optimizer)
    if training.accumulate > 1:
        return _unsupported("--mlperf-grad-accum-iter", training.accumulate)
    return None


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
