"""DLRM-DCNv2, the recommendation model of MLPerf Training 3.0 to 6.0."""

from __future__ import annotations

from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.cross import CrossInteraction


class DLRM_DCNv2(DLRM_Net):
    """DLRM with a low-rank cross network (DCN v2, arXiv 2008.13535) instead of the dot products.

    Bottom MLP and embedding tables are those of DLRM. The benchmark has several ids per table and sample; their
    rows are summed. The bottom MLP's output and the pooled vectors are concatenated, [B, (T + 1) * D], the cross
    network keeps this width, and the top MLP follows. The benchmark trains it with the loss "bce_logits".

    The state_dict contains, besides the names of DLRM, `interaction.V.L.weight` [r, N], `interaction.W.L.weight`
    [N, r] and `interaction.W.L.bias` [N] of each cross layer L.
    """

    interaction: CrossInteraction
