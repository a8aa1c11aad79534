"""The model as one module of tensors in and a tensor out, for tools that trace modules: ONNX, pictures."""

from __future__ import annotations

import torch
from torch import nn

from mlperf.data.batch import Batch
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.embedding.bag import EmbeddingBag
from mlperf.models.layers.embedding.compression import PrEmbeddingBag, QREmbeddingBag


class PlainDLRM(nn.Module):
    """The same weights, looked up table by table. Inputs as in a Batch: one id a table and sample, or several.

    One id a table and sample: forward(dense [B, n], indices [T, B]). Several: forward(dense, offsets [T, B],
    ids of table 0, ids of table 1, ...), offsets counting from each table's own first id. Returns the
    probability of a click [B, 1]. `inputs` makes these of a Batch.
    """

    @staticmethod
    def inputs(batch: Batch) -> dict[str, torch.Tensor]:
        """Return the arguments of `forward`, in order, under the names an exported model has for them."""
        if batch.offsets is None:
            return {"dense": batch.dense, "indices": batch.indices}
        first = batch.offsets[:, 0]
        counts = torch.diff(first, append=first.new_tensor([len(batch.indices)])).tolist()
        ids = {f"indices_{number}": part for number, part in enumerate(batch.indices.split(counts))}
        return {"dense": batch.dense, "offsets": batch.offsets - first.unsqueeze(1), **ids}

    pairs: torch.Tensor

    def __init__(self, model: DLRM_Net, *, several: bool) -> None:
        super().__init__()
        self.several = several
        self.threshold = model.architecture.loss_threshold
        self.op = model.architecture.interaction_op
        self.bot_l, self.emb_l, self.top_l = model.bot_l, model.emb_l, model.top_l
        self.v_W_l: nn.ParameterList | None = model.tables.pooling
        features = len(model.emb_l) + 1
        pairs = torch.tril_indices(features, features, 0 if model.architecture.interaction_itself else -1)
        self.register_buffer("pairs", pairs[0] * features + pairs[1], persistent=False)

    def forward(self, dense: torch.Tensor, *ids: torch.Tensor) -> torch.Tensor:
        """Return the probability of a click."""
        features = [self.bot_l(dense)]
        for number, table in enumerate(self.emb_l):
            if self.several:
                vectors = self._vectors(number, table, ids[number + 1])
                features.append(_pooled(vectors, ids[0][number], dense.shape[0]))
            else:
                features.append(self._vectors(number, table, ids[0][number]))
        probability: torch.Tensor = self.top_l(self._interact(features))
        return probability.clamp(self.threshold, 1 - self.threshold) if self.threshold > 0 else probability

    def _vectors(self, number: int, table: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        assert isinstance(table, QREmbeddingBag | PrEmbeddingBag | EmbeddingBag)
        rows = [nn.functional.embedding(part, weight) for weight, part in table.parts(ids)]
        vectors = table.combine(rows)
        if self.v_W_l is not None:
            pooling = self.v_W_l.get_parameter(str(number))
            vectors = vectors * pooling.index_select(0, ids).unsqueeze(1)
        return vectors

    def _interact(self, features: list[torch.Tensor]) -> torch.Tensor:
        if self.op == "cat":
            return torch.cat(features, 1)
        stacked = torch.stack(features, 1)  # (B, F, D)
        if self.op == "sum":
            return stacked.sum(1)
        products = torch.bmm(stacked, stacked.transpose(1, 2)).flatten(1)
        return torch.cat((features[0], products.index_select(1, self.pairs)), 1)


def _pooled(vectors: torch.Tensor, offsets: torch.Tensor, size: int) -> torch.Tensor:
    """Return the sums [B, D] of `vectors` [L, D] between one of `offsets` [B] and the next."""
    # An id's bag is the last that begins at or before it, which counts empty ones right; hence the place more.
    begun = offsets.new_zeros(vectors.shape[0] + 1).scatter_add(0, offsets, offsets.new_ones(size))
    bags = begun[:-1].cumsum(0) - 1
    return vectors.new_zeros(size, vectors.shape[1]).index_add(0, bags, vectors)
