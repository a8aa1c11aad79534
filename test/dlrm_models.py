"""Small models with tables of every kind, and batches for them."""

from __future__ import annotations

import numpy as np
import torch

from mlperf.data.batch import Batch
from mlperf.models.dlrm import Architecture, DLRM_Net
from mlperf.models.initialization import initialize
from mlperf.models.layers.embedding.compressed_table import Compression, MixedDimension, QuotientRemainder
from mlperf.models.loss import Loss
from mlperf.models.make import make_model as make_any_model
from mlperf.optim.optimizer import Optimizer

ROWS = (23, 2, 9)
COMPRESSIONS: dict[str, Compression | None] = {
    "none": None,
    "mult": QuotientRemainder(5, "mult", 4),
    "add": QuotientRemainder(5, "add", 3),
    "concat": QuotientRemainder(5, "concat", 4),
    "md": MixedDimension(0, 0.5, round_dimensions=False),
}


def make_model(
    compression: str = "none",
    weighted_pooling: str | None = None,
    interaction_op: str = "dot",
    *,
    embedding_init: str = "numpy",
    embedding_precision: str = "fp32",
    device: torch.device | None = None,
) -> DLRM_Net:
    """Return an initialized model of three tables, 3 dense features and dimension 4, on the CPU by default."""
    architecture = Architecture(
        rows_per_table=ROWS,
        dimension=4,
        mlp_bot=(3, 8 if compression == "concat" else 4),
        mlp_top=(5, 1),
        interaction_op=interaction_op,
        cross_layers=2,
        cross_rank=3,
        compression=COMPRESSIONS[compression],
        weighted_pooling=weighted_pooling,
        loss_threshold=0.01,
        embedding_precision=embedding_precision,
    )
    model = make_any_model(architecture, device or torch.device("cpu"))
    initialize(model, np.random.RandomState(3), mlp_init="normal", embedding_init=embedding_init, seed=3)
    return model


def make_batch(seed: int, several: bool, size: int = 6) -> Batch:
    """Return a batch with one id per table and sample, or with none to three (`several`)."""
    stream = np.random.default_rng(seed)
    dense = torch.from_numpy(stream.random((size, 3)).astype(np.float32))
    labels = torch.from_numpy((stream.random((size, 1)) < 0.5).astype(np.float32))
    if not several:
        ids = np.stack([stream.integers(0, rows, size) for rows in ROWS])
        return Batch(dense, torch.from_numpy(ids), None, labels)
    counts = stream.integers(0, 4, (3, size))
    ids = np.concatenate([stream.integers(0, rows, counts[t].sum()) for t, rows in enumerate(ROWS)])
    offsets = np.concatenate(([0], counts.ravel().cumsum()[:-1])).reshape(3, size)
    return Batch(dense, torch.from_numpy(ids), torch.from_numpy(offsets), labels)


def train_steps(model: DLRM_Net, optimizer: Optimizer, steps: range, rate: float = 0.3) -> None:
    """Take one step per number in `steps`, which seeds its batch, of several ids per table and sample."""
    for number in steps:
        batch = make_batch(number, several=True)
        lookup = model.look_up(batch)
        Loss("bce")(model.predict(batch.dense, lookup.pooled), batch.labels).backward()
        optimizer.add(lookup)
        optimizer.step(rate)
