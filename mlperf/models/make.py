"""Creation of a model from its architecture."""

from __future__ import annotations

import torch

from mlperf.models.dlrm import DLRM_Net
from mlperf.models.dlrm_dcnv2 import DLRM_DCNv2
from mlperf.models.layers.embedding.interface import EmbeddingTables
from mlperf.settings.model import Architecture


def make_model(
    architecture: Architecture, device: torch.device, tables: EmbeddingTables | None = None
) -> DLRM_Net:
    """Return DLRM or, with a cross network, DLRM-DCNv2; its weights are undefined. tables: default: new ones."""
    return (DLRM_DCNv2 if architecture.has_cross_network else DLRM_Net)(architecture, device, tables)
