"""What the layer-by-layer engines (CPU and GPU) both need of a run."""

from __future__ import annotations

from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.embedding.flat_tables import FlatTables
from mlperf.settings.settings import Settings


def unsupported_setting(settings: Settings) -> str | None:
    """Return why neither engine supports `settings`, None if both do."""
    training = settings.training
    if settings.data.generation != "dataset":
        return f"--data-generation={settings.data.generation} can have several ids per table and sample"
    if settings.quantization.asked:
        return "quantized weights need PyTorch's own operators"
    if settings.inference_only:
        return None
    if training.optimizer != "sgd":
        return f"--optimizer={training.optimizer} needs summed gradients"
    if training.accumulate > 1:
        return f"--mlperf-grad-accum-iter={training.accumulate} sums gradients over batches"
    return None


def unsupported_model(model: DLRM_Net) -> str | None:
    """Return why neither engine supports `model`, None if both do: they are written for MLPerf's."""
    architecture = model.architecture
    if not isinstance(model.tables, FlatTables):
        return "the embedding tables are compressed"
    if architecture.weighted_pooling is not None:
        return f"--weighted-pooling={architecture.weighted_pooling} needs a product per row"
    if architecture.interaction_op != "dot":
        return f"--arch-interaction-op={architecture.interaction_op} has no fused loops"
    if architecture.activation != "relu":
        return f"--activation-function={architecture.activation} has no fused loops"
    return None
