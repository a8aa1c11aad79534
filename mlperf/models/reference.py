"""Reference DLRM in plain PyTorch: slow, but traceable, exportable and differentiable by autograd.

The ONNX export traces it with the weights of a trained model, the measurements compare the training step with it,
and the tests check that both compute the same.

B batch, T tables, D embedding dimension, F = T + 1 features.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from mlperf.data.batch import Batch
from mlperf.models.dlrm import Architecture, DLRM_Net, make_interaction, top_widths
from mlperf.models.layers.interaction import Interaction
from mlperf.models.layers.mlp import make_mlp


class ReferenceDLRM(nn.Module):
    """Looks up one table after the other; autograd computes every gradient. Parameters are named as in DLRM_Net.

    tables: modules that are called like nn.EmbeddingBag with mode="sum".
    pooling: pooling weights [rows] of each table, or None.
    """

    def __init__(
        self,
        tables: Iterable[nn.Module],
        bottom: nn.Module,
        top: nn.Module,
        interaction: Interaction,
        *,
        pooling: Iterable[nn.Parameter] | None = None,
        loss_threshold: float = 0.0,
    ) -> None:
        super().__init__()
        self.emb_l = nn.ModuleList(tables)
        self.v_W_l = None if pooling is None else nn.ParameterList(pooling)
        self.interaction = interaction
        self.bot_l = bottom
        self.top_l = top
        self.loss_threshold = loss_threshold

    @classmethod
    def of(cls, model: DLRM_Net) -> ReferenceDLRM:
        """Return the reference of `model`; both share their weights."""
        return cls(
            model.emb_l,
            model.bot_l,
            model.top_l,
            model.interaction,
            pooling=model.pooling,
            loss_threshold=model.architecture.loss_threshold,
        )

    @classmethod
    def new(cls, architecture: Architecture, *, sparse: bool = False) -> ReferenceDLRM:
        """Return a model with PyTorch's tables and initial weights, on the default device.

        sparse: the tables get sparse gradients. Compression and weighted pooling are not supported.
        """
        size = architecture.feature_size
        return cls(
            (nn.EmbeddingBag(rows, size, mode="sum", sparse=sparse) for rows in architecture.rows_per_table),
            make_mlp(architecture.mlp_bot, architecture.activation),
            make_mlp(top_widths(architecture), architecture.activation, last="sigmoid"),
            make_interaction(architecture),
            loss_threshold=architecture.loss_threshold,
        )

    @staticmethod
    def inputs(batch: Batch) -> dict[str, torch.Tensor]:
        """Return the arguments of `forward` for `batch`, in order, by their names in an exported model."""
        if batch.offsets is None:
            return {"dense": batch.dense, "indices": batch.indices}
        first = batch.offsets[:, 0]
        counts = torch.diff(first, append=first.new_full((1,), len(batch.indices))).tolist()
        ids = {f"indices_{number}": part for number, part in enumerate(batch.indices.split(counts))}
        return {"dense": batch.dense, "offsets": batch.offsets - first.unsqueeze(1), **ids}

    def forward(self, dense: torch.Tensor, *ids: torch.Tensor) -> torch.Tensor:
        """Return the probability of a click, float32 [B, 1].

        With one id per table and sample: forward(dense [B, n], indices [T, B]). With several: forward(dense,
        offsets [T, B], ids of table 0, ids of table 1, ...); offsets count from the first id of each table.
        """
        return self.predict(dense, self.pooled(*ids))

    def pooled(self, *ids: torch.Tensor) -> torch.Tensor:
        """Return the pooled embeddings [B, T, D]; the arguments are those of `forward` after `dense`."""
        bags: Sequence[tuple[torch.Tensor, torch.Tensor | None]]
        if len(ids) == 1:
            bags = [(one.unsqueeze(1), None) for one in ids[0]]
        else:
            bags = list(zip(ids[1:], ids[0], strict=True))
        return torch.stack([self._pool(number, *bag) for number, bag in enumerate(bags)], 1)

    def _pool(self, number: int, ids: torch.Tensor, offsets: torch.Tensor | None) -> torch.Tensor:
        weights = None if self.v_W_l is None else self.v_W_l[number][ids]
        pooled: torch.Tensor = self.emb_l[number](ids, offsets, per_sample_weights=weights)
        return pooled

    def predict(self, dense: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Return the probability [B, 1] for dense features and pooled embeddings [B, T, D]."""
        combined = self.interaction.reference(self.bot_l(dense), pooled)
        probability: torch.Tensor = self.top_l(combined)
        if self.loss_threshold > 0:
            probability = probability.clamp(self.loss_threshold, 1 - self.loss_threshold)
        return probability
