"""Bytes that a step of several processes sends, by formula.

P processes, B samples of a batch of all processes, T tables, D embedding dimension, W weights of the MLPs and the
interaction. All bytes are those that all processes together send to other processes, for one sample of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from mlperf.data.schema import CRITEO
from training_shapes import Shape

ID, LENGTH, VALUE = 8, 4, 4  # bytes of an id, of the number of ids in a bag, and of a float32


@dataclass(frozen=True)
class Network:
    """What the bytes of a step depend on.

    ids: of a sample in each table. kinds: kind of sharding of each table. parts: into which each table is divided.
    dimension: D. weights: W.
    """

    ids: tuple[int, ...]
    kinds: tuple[str, ...]
    parts: tuple[int, ...]
    dimension: int
    weights: int

    @property
    def divided(self) -> int:
        """Number of tables whose rows are divided among all processes."""
        return self.kinds.count("row-wise")

    @property
    def copies_of_ids(self) -> list[int]:
        """Ids that a sample sends for each table: all of them to each process that has a part of the columns."""
        return [
            ids * (parts if kind == "column-wise" else 1)
            for ids, kind, parts in zip(self.ids, self.kinds, self.parts, strict=True)
        ]


def sent_bytes(network: Network, processes: int, batch: int, *, reduce_factor: float) -> Mapping[str, float]:
    """Return the bytes per sample by what is sent.

    A bag belongs to a sample and is computed by the process that stores the table, the columns or the row: another
    one than that of the sample in (P - 1) / P of the cases.

    - ids: with the number of ids in each bag, which is sent to every process that stores a part of the table
    - rows: the sum of the rows of a bag. If rows are divided, each process sends its part of the sum, by
      reduce-scatter.
    - row gradients: the gradient of each of these sums; to all processes, by all-gather, if rows are divided
    - weight gradients: by a ring all-reduce, in which each process sends 2 (P - 1) / P times the weights

    reduce_factor: bytes that a reduce-scatter sends, relative to a ring: 2 with gloo, which calls all-reduce.
    """
    others, divided = processes - 1, network.divided
    whole = len(network.kinds) - divided
    vector = VALUE * network.dimension
    parts = sum(network.parts) - divided * processes  # of tables whose rows are not divided
    return {
        "ids": (ID * sum(network.copies_of_ids) + LENGTH * parts) * others / processes + LENGTH * divided * others,
        "rows": vector * (whole * others / processes + divided * others * reduce_factor),
        "row gradients": vector * (whole * others / processes + divided * others),
        "weight gradients": 2 * others * VALUE * network.weights / batch,
    }


def dense_weights(shape: Shape) -> int:
    """Return the number of weights and biases of the MLPs and the cross network."""
    network, features = shape.workload.network, len(shape.tables) + 1
    dimension = network.embedding_dimension
    layers, rank = network.cross_layers or 0, network.cross_rank or 0
    top = features * dimension if layers else dimension + features * (features - 1) // 2
    widths = [(CRITEO.dense_features, *network.bottom_mlp[1:]), (top, *network.top_mlp)]
    cross = layers * top * (2 * rank + 1)
    return cross + sum(a * b + b for mlp in widths for a, b in pairwise(mlp))
