"""The deep learning recommendation model (arXiv 1906.00091).

B batch, T tables, D embedding dimension.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import torch
from torch import nn

from mlperf.data.batch import Batch
from mlperf.models.layers.embedding.compressed_tables import CompressedTables
from mlperf.models.layers.embedding.flat_tables import FlatTables
from mlperf.models.layers.embedding.interface import EmbeddingTables
from mlperf.models.layers.embedding.pooling import PoolingWeights
from mlperf.models.layers.embedding.rows import Lookup, RowParameter
from mlperf.models.layers.embedding.shards import ShardedTable
from mlperf.models.layers.interaction import Interaction
from mlperf.models.layers.mlp import make_mlp
from mlperf.registry import INTERACTIONS, load
from mlperf.settings.model import Architecture


def make_interaction(architecture: Architecture, device: torch.device | None = None) -> Interaction:
    """Return the interaction of the bottom MLP's output and the tables."""
    cls: type[Interaction] = load(INTERACTIONS[architecture.interaction_op])
    return cls.of(architecture, device)


def top_widths(architecture: Architecture) -> tuple[int, ...]:
    """Return the widths of the top MLP with the first, which follows from the interaction."""
    width: int = load(INTERACTIONS[architecture.interaction_op]).width(
        len(architecture.rows_per_table) + 1,
        architecture.feature_size,
        self_interaction=architecture.interaction_itself,
    )
    return (width, *architecture.mlp_top)


# Types of stored embedding rows, by the values of --embedding-precision.
ROW_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def _make_tables(architecture: Architecture, device: torch.device) -> EmbeddingTables:
    """Return flat tables, which are faster, unless some are compressed."""
    rows, size = architecture.rows_per_table, architecture.feature_size
    if architecture.compression is None:
        return FlatTables(rows, size, device, ROW_TYPES[architecture.embedding_precision])
    return CompressedTables(rows, size, architecture.compression, device)


class DLRM_Net(nn.Module):
    """Bottom MLP, embedding tables, interaction, top MLP; named as in the original implementation.

    The state_dict contains `emb_l.K.weight`, `v_W_l.K` with weighted pooling, `bot_l.N.*` and `top_l.N.*`, as in
    existing checkpoints. `emb_l` is a ModuleList subclass and `v_W_l` a ParameterList, so `state_dict` has these
    names without hooks. The model is built on `device` and must not be moved, since the tables are views of one
    block. Weights are undefined until `initialize` or `load_state_dict` fills them.
    """

    def __init__(
        self, architecture: Architecture, device: torch.device, tables: EmbeddingTables | None = None
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.emb_l = _make_tables(architecture, device) if tables is None else tables
        if architecture.weighted_pooling is not None:
            learned = architecture.weighted_pooling == "learned"
            self.v_W_l = PoolingWeights(architecture.rows_per_table, learned=learned, device=device)
        self.interaction = make_interaction(architecture, device)
        self.top_widths = (self.interaction.out_features, *architecture.mlp_top)
        self.bot_l = make_mlp(architecture.mlp_bot, architecture.activation).to(device)
        self.top_l = make_mlp(self.top_widths, architecture.activation, last="sigmoid").to(device)

    @property
    def tables(self) -> EmbeddingTables:
        """The embedding tables."""
        return self.emb_l

    @property
    def pooling(self) -> PoolingWeights | None:
        """The pooling weights of the tables' rows, None without weighted pooling."""
        return None if self.architecture.weighted_pooling is None else self.v_W_l

    @property
    def interaction_name(self) -> str:
        """What is between the MLPs, for people."""
        return "cross network" if self.architecture.has_cross_network else "interaction"

    @property
    def dense_name(self) -> str:
        """What the model has besides its tables, for people."""
        return "MLPs and the cross network" if self.architecture.has_cross_network else "MLPs"

    def row_parameters(self) -> Sequence[RowParameter]:
        """Return the parameters trained row by row: tables and learned pooling weights."""
        pooling = [] if self.pooling is None else self.pooling.row_parameters()
        return [*self.tables.row_parameters(), *pooling]

    def dense_parameters(self) -> Sequence[nn.Parameter]:
        """Return the parameters trained from their `.grad`: maps of mixed-dimension tables, interaction, MLPs."""
        layers = (self.bot_l, self.interaction, self.top_l)
        return [*self.tables.dense_parameters(), *(one for layer in layers for one in layer.parameters())]

    def sharded_tables(self) -> Sequence[ShardedTable]:
        """Return the tables that are divided among the processes: all or none."""
        return self.tables.sharded_tables()

    def table_bytes(self) -> int:
        """Return the memory of tables and pooling weights in bytes."""
        return self.tables.nbytes() + (0 if self.pooling is None else self.pooling.nbytes())

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the probability of a click, float32 [B, 1]."""
        return self.predict(batch.dense, self.look_up(batch).pooled)

    def look_up(self, batch: Batch) -> Lookup:
        """Return the pooled embeddings of `batch` and, after the backward pass, the gradients of their rows."""
        return self.tables.look_up(batch, self.pooling)

    def predict(self, dense: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Return the probability [B, 1] for dense features and pooled embeddings [B, T, D]."""
        return self.probability(self.logits(dense, pooled))

    def logits(self, dense: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Return the output before the sigmoid, float32 [B, 1]; the arguments are those of `predict`."""
        return self.run_top(self.interact(self.bottom(dense), pooled))

    def bottom(self, dense: torch.Tensor) -> torch.Tensor:
        """Return the output of the bottom MLP, [B, D], for dense features."""
        output: torch.Tensor = self.bot_l(dense)
        return output

    def interact(self, bottom: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Return the interaction [B, top_widths[0]] of the bottom MLP's output [B, D] and the rows [B, T, D]."""
        interacted: torch.Tensor = self.interaction(bottom, pooled)
        return interacted

    def run_top(self, interacted: torch.Tensor) -> torch.Tensor:
        """Return the logits, float32 [B, 1], for the interaction."""
        logits: torch.Tensor = self.top_l[:-1](interacted).float()  # in float32 under autocast too
        return logits

    def probability(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the probability [B, 1] for `logits`, float32 [B, 1]."""
        probability: torch.Tensor = self.top_l[-1](logits)
        threshold = self.architecture.loss_threshold
        return probability.clamp(threshold, 1 - threshold) if threshold > 0 else probability

    def __repr__(self) -> str:
        """Return the published listing of the model: the modules that have weights."""
        modules = dict(self.named_children())
        if next(self.interaction.parameters(), None) is None:
            del modules["interaction"]
        shown = (f"({name}): {module}" for name, module in modules.items())
        listing = textwrap.indent("\n".join(shown), "  ")
        return f"{self._get_name()}(\n{listing}\n)"
