"""The deep learning recommendation model (arXiv 1906.00091).

B batch, T tables, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mlperf.data.batch import Batch
from mlperf.models.layers.embedding.blocks import Tables
from mlperf.models.layers.embedding.compressed_tables import CompressedTables
from mlperf.models.layers.embedding.tables import EmbeddingTables
from mlperf.models.layers.interaction import FeatureInteraction, interaction_width
from mlperf.models.layers.mlp import make_mlp
from mlperf.settings.model import Architecture


def top_widths(architecture: Architecture) -> tuple[int, ...]:
    """Return the widths of the top MLP with the first, which follows from the interaction."""
    tables = len(architecture.rows_per_table)
    width = interaction_width(
        architecture.interaction_op, tables, architecture.feature_size, architecture.interaction_itself
    )
    return (width, *architecture.mlp_top)


def _make_tables(architecture: Architecture, device: torch.device) -> Tables:
    """Return flat tables, the fast path, wherever they can serve."""
    rows, size = architecture.rows_per_table, architecture.feature_size
    if architecture.compression is None:
        return EmbeddingTables(rows, size, architecture.weighted_pooling, device)
    return CompressedTables(rows, size, architecture.compression, architecture.weighted_pooling, device)


class DLRM_Net(nn.Module):
    """Bottom MLP, embedding tables, interaction, top MLP; named as in existing scripts and printed models.

    The state_dict holds `emb_l.K.weight`, `v_W_l.K` with weighted pooling, `bot_l.N.*` and `top_l.N.*`: the
    format of existing checkpoints. Built on `device` and not to be moved, since the tables are views of one
    block. Weights are undefined until `initialize` or `load_state_dict` fills them.
    """

    def __init__(self, architecture: Architecture, device: torch.device) -> None:
        super().__init__()
        self.architecture = architecture
        self.top_widths = top_widths(architecture)
        self.tables = _make_tables(architecture, device)
        self.emb_l = self.tables.modules
        if self.tables.pooling is not None:
            self.v_W_l = self.tables.pooling
        self.bot_l = make_mlp(architecture.mlp_bot, architecture.activation).to(device)
        self.top_l = make_mlp(self.top_widths, architecture.activation, last="sigmoid").to(device)
        # Kept out of the module tree: it has no weights and the printed model does not show it.
        self._interact = [
            FeatureInteraction(
                architecture.interaction_op,
                len(architecture.rows_per_table),
                architecture.interaction_itself,
                device,
            )
        ]

    def dense_parameters(self) -> Sequence[nn.Parameter]:
        """Return what is not trained row by row: maps of mixed-dimension tables, bottom and top MLP."""
        return [*self.tables.dense, *self.bot_l.parameters(), *self.top_l.parameters()]

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the probability of a click, float32 [B, 1]."""
        return self.predict(batch.dense, self.tables.look_up(batch).pooled)

    def predict(self, dense: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Return the probability [B, 1] for dense features and pooled embeddings [B, T, D]."""
        bottom = self.bot_l(dense)  # (B, D)
        interacted = self._interact[0](bottom, pooled)
        hidden = self.top_l[:-1](interacted)  # (B, 1), before the sigmoid
        probability: torch.Tensor = self.top_l[-1](hidden.float())  # float32 whatever the products are in
        threshold = self.architecture.loss_threshold
        return probability.clamp(threshold, 1 - threshold) if threshold > 0 else probability
