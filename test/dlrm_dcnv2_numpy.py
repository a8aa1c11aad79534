"""Independent NumPy implementation of DLRM-DCNv2: ids of multi-hot tables, forward and backward pass, optimizers.

    python test/dlrm_dcnv2_numpy.py FOLDER

trains on golden data (test/golden/README.md) as its golden.json says, and prints the losses and the largest
differences from the golden ones. It shares no code with the package and does not use torch.

B batch, T tables, D embedding dimension, N = (T + 1) D width of the cross network.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy_layers import Array, CrossNetwork, Mlp, cross_entropy

TRAINING_DAYS = range(23)
TEST_DAY = 23


def lookup_tables(rows_per_table: Sequence[int], sizes: Sequence[int]) -> list[Array]:
    """Return the ids of each one-hot id, int32 [rows, size] per table: the id itself and random others."""
    stream = np.random.RandomState(0)
    tables = []
    for rows, size in zip(rows_per_table, sizes, strict=True):
        others = stream.randint(0, rows, size=(rows, size - 1))
        tables.append(np.concatenate([np.arange(rows)[:, None], others], 1).astype(np.int32))
    return tables


@dataclass
class Data:
    """Rows of some days: dense [R, n], one id per table [R, T] and labels [R, 1]."""

    dense: Array
    sparse: Array
    labels: Array

    @classmethod
    def read(cls, folder: Path, days: Sequence[int]) -> Data:
        parts = [
            np.concatenate([np.load(folder / f"day_{day}_{part}.npy") for day in days])
            for part in ("dense", "sparse", "labels")
        ]
        return cls(*parts)

    def rows(self, start: int, stop: int) -> Data:
        return Data(self.dense[start:stop], self.sparse[start:stop], self.labels[start:stop])


class DlrmDcnv2:
    """The model. The parameters are arrays that `train` changes in place.

    lookup: as `lookup_tables` returns. gradients: by the names of the parameters, after `backward`.
    """

    def __init__(self, weights: dict[str, Array], lookup: list[Array]) -> None:
        self.lookup = lookup
        self.tables = [weights[f"emb.{number}.weight"] for number in range(len(lookup))]
        self.bottom, self.top = (
            [
                (weights[f"{mlp}.{number}.weight"], weights[f"{mlp}.{number}.bias"])
                for number in _layers(weights, mlp)
            ]
            for mlp in ("bottom", "top")
        )
        self.bottom_mlp = Mlp(self.bottom, ["relu"] * len(self.bottom))
        self.top_mlp = Mlp(self.top, ["relu"] * (len(self.top) - 1) + ["none"])
        self.cross = CrossNetwork(
            [
                (weights[f"cross.{number}.V"], weights[f"cross.{number}.W"], weights[f"cross.{number}.bias"])
                for number in _layers(weights, "cross")
            ]
        )

    def expand(self, sparse: Array) -> list[Array]:
        """Return the ids [B, size] of each table for one id per table [B, T]."""
        return [table[ids % len(table)] for table, ids in zip(self.lookup, sparse.T, strict=True)]

    def forward(self, data: Data) -> Array:
        """Return the logits [B, 1]."""
        self.ids = self.expand(data.sparse)
        pooled = [table[ids].sum(1) for table, ids in zip(self.tables, self.ids, strict=True)]
        x0 = np.concatenate([self.bottom_mlp.forward(data.dense), *pooled], 1)  # (B, N)
        return self.top_mlp.forward(self.cross.forward(x0))

    def backward(self, gradient: Array) -> list[Array]:
        """Return the gradients of `parameters` for the gradient of the logits."""
        of_x0 = self.cross.backward(self.top_mlp.backward(gradient))
        of_bottom, *of_pooled = np.split(of_x0, len(self.tables) + 1, 1)
        self.bottom_mlp.backward(of_bottom)
        of_tables = []
        for table, ids, of_bag in zip(self.tables, self.ids, of_pooled, strict=True):
            total = np.zeros_like(table)
            np.add.at(total, ids.ravel(), np.repeat(of_bag, ids.shape[1], 0))
            of_tables.append(total)
        return [*of_tables, *self.bottom_mlp.gradients, *self.cross.gradients, *self.top_mlp.gradients]

    def parameters(self) -> list[Array]:
        return [
            *self.tables,
            *self.bottom_mlp.parameters(),
            *self.cross.parameters(),
            *self.top_mlp.parameters(),
        ]


def _layers(weights: dict[str, Array], part: str) -> range:
    return range(1 + max(int(name.split(".")[1]) for name in weights if name.startswith(f"{part}.")))


def area_under_curve(scores: Array, labels: Array) -> float:
    """Return how often a click has a larger score than a sample without click; ties count half."""
    clicks, others = scores[labels > 0][:, None], scores[labels == 0][None, :]
    return float(np.mean((clicks > others) + 0.5 * (clicks == others)))


class Optimizer:
    """SGD or, with `eps`, exact Adagrad for all parameters."""

    def __init__(self, parameters: list[Array], rate: float, eps: float | None) -> None:
        self.parameters = parameters
        self.rate = np.float32(rate)
        self.eps = None if eps is None else np.float32(eps)
        self.sums = [np.zeros_like(parameter) for parameter in parameters]

    def step(self, gradients: list[Array]) -> None:
        for parameter, gradient, total in zip(self.parameters, gradients, self.sums, strict=True):
            step = gradient
            if self.eps is not None:
                np.add(total, gradient * gradient, out=total)
                step = gradient / (np.sqrt(total) + self.eps)
            np.subtract(parameter, self.rate * step, out=parameter)


@dataclass
class Run:
    """Results of a golden run: losses, logits of the first batch, final weights, AUC and loss on val and test."""

    losses: list[float]
    first_logits: Array
    weights: dict[str, Array]
    auc: dict[str, float]
    logloss: dict[str, float]


def train(folder: Path, golden: dict[str, Any], name: str) -> Run:
    """Repeat the golden run `name`."""
    sizes, settings, batch = golden["model"], golden["runs"][name], golden["batch"]
    with np.load(folder / "initial.npz") as archive:
        weights = dict(archive)
    model = DlrmDcnv2(weights, lookup_tables(sizes["table_rows"], sizes["multi_hot_sizes"]))
    optimizer = Optimizer(model.parameters(), settings["lr"], settings["eps"] if name == "adagrad" else None)
    data = Data.read(folder / "onehot", TRAINING_DAYS)
    losses: list[float] = []
    first_logits: Array | None = None
    for start in range(0, golden["steps"] * batch, batch):
        rows = data.rows(start, start + batch)
        logits = model.forward(rows)
        first_logits = logits[:, 0] if first_logits is None else first_logits
        loss, gradient = cross_entropy(logits, rows.labels)
        optimizer.step(model.backward(gradient))
        losses.append(loss)
    assert first_logits is not None
    run = Run(losses, first_logits, weights, {}, {})
    for split, rows in _test_splits(Data.read(folder / "onehot", [TEST_DAY])):
        logits = model.forward(rows)
        run.logloss[split] = cross_entropy(logits, rows.labels)[0]
        # Rounding gives equal scores to some logits that differ in the last digits.
        run.auc[split] = area_under_curve(1 / (1 + np.exp(-logits[:, 0])), rows.labels[:, 0])
    return run


def _test_splits(data: Data) -> Iterator[tuple[str, Data]]:
    half = (len(data.labels) + 1) // 2
    yield "val", data.rows(0, half)
    yield "test", data.rows(half, len(data.labels))


def main() -> None:
    folder = Path(sys.argv[1])
    golden = json.loads((folder / "golden.json").read_text())
    for name, expected in golden["runs"].items():
        run = train(folder, golden, name)
        with np.load(folder / f"final_{name}.npz") as archive:
            weights = max(np.abs(run.weights[key] - archive[key]).max() for key in archive)
        print(f"{name}: losses {' '.join(f'{loss:.6f}' for loss in run.losses)}")
        print(
            f"{name}: largest difference of a loss {np.abs(np.subtract(run.losses, expected['loss'])).max():.1e}"
        )
        print(f"{name}: largest difference of a weight {weights:.1e}")
        for split in run.auc:
            auc, logloss = expected[split]["auc"], expected[split]["logloss"]
            print(
                f"{name}: {split} AUC {run.auc[split]:.6f} (golden {auc:.6f}), "
                f"log loss {run.logloss[split]:.6f} (golden {logloss:.6f})"
            )


if __name__ == "__main__":
    main()
