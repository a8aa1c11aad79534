"""Models and settings that the layer-by-layer engines (CPU and GPU) support."""

from __future__ import annotations

from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.embedding.flat_tables import FlatTables
from mlperf.settings.settings import Settings


def unsupported_setting(settings: Settings) -> str | None:
    """Return why neither engine supports `settings`, None if both do."""
    training = settings.training
    if settings.data.generation != "dataset":
        return f"--data-generation={settings.data.generation} can have several ids per table and sample"
    if settings.quantization.requested:
        return "quantized weights need PyTorch's own operators"
    if settings.inference_only:
        return None
    if training.optimizer != "sgd":  # the others need the sum of a row's gradients
        return f"--optimizer={training.optimizer} is not supported by the cpu and gpu engines"
    if training.accumulate > 1:
        return f"--mlperf-grad-accum-iter={training.accumulate} is not supported by the cpu and gpu engines"
    return None


def unsupported_model(model: DLRM_Net) -> str | None:
    """Return why neither engine supports `model`, None if both do. They are written for MLPerf's DLRM."""
    architecture = model.architecture
    if not isinstance(model.tables, FlatTables):
        return "the embedding tables are compressed"
    if architecture.weighted_pooling is not None:
        return f"--weighted-pooling={architecture.weighted_pooling} is not supported by the cpu and gpu engines"
    if architecture.interaction_op != "dot":
        return f"--arch-interaction-op={architecture.interaction_op} is not supported by the cpu and gpu engines"
    if architecture.activation != "relu":
        return f"--activation-function={architecture.activation} is not supported by the cpu and gpu engines"
    return None
