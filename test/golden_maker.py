"""Make small golden data of DLRM-DCNv2, whose results the NumPy implementation computes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from dlrm_dcnv2_numpy import TEST_DAY, Data, lookup_tables, train
from golden_folder import DAYS, MULTI_HOT_DAYS
from numpy_layers import Array

_INTEGERS = 13


@dataclass(frozen=True)
class Sizes:
    """Sizes of the data and the model. bottom, top: without the widths that follow from the others."""

    rows_per_day: int = 12
    dimension: int = 4
    bottom: tuple[int, ...] = (6,)
    cross_layers: int = 2
    cross_rank: int = 3
    top: tuple[int, ...] = (16,)
    batch: int = 32
    steps: int = 4
    optimizers: tuple[str, ...] = ("adagrad",)
    rate: float = 0.01
    epsilon: float = 1e-8


def make_golden(folder: Path, sizes: Sizes, seed: int = 1) -> Path:
    """Write golden data to `folder`, which is laid out like test/golden/dcnv2, and return it."""
    stream = np.random.RandomState(seed)
    rows = [int(stream.randint(3, 60)) for _ in range(26)]
    ids = [int(stream.randint(1, 5)) for _ in range(26)]
    golden: dict[str, Any] = {"model": {"table_rows": rows, "multi_hot_sizes": ids}, "batch": sizes.batch}
    golden |= {"steps": sizes.steps, "runs": {}, "files": {}}
    (folder / "onehot").mkdir(parents=True)
    (folder / "multihot").mkdir()
    integers = _write_days(folder / "onehot", sizes.rows_per_day, stream)
    weights = _initial_weights(rows, sizes, stream)
    for path in (folder / "onehot").iterdir():
        golden["files"][path.name] = {"md5": hashlib.md5(path.read_bytes()).hexdigest()}
    np.savez(folder / "initial.npz", **weights)  # type: ignore[arg-type]
    for name in sizes.optimizers:
        epsilon = sizes.epsilon if name == "adagrad" else None
        golden["runs"][name] = {"lr": sizes.rate, "eps": epsilon}
        run = train(folder, golden, name)
        golden["runs"][name]["loss"] = run.losses
        labels = Data.read(folder / "onehot", [TEST_DAY]).labels
        half = (len(labels) + 1) // 2
        for split, part in (("val", labels[:half]), ("test", labels[half:])):
            facts = {"samples": len(part), "positives": int(part.sum()), "auc": run.auc[split]}
            golden["runs"][name][split] = facts
        np.savez(folder / f"final_{name}.npz", **run.weights)  # type: ignore[arg-type]
    _write_ids(folder, golden, rows, ids)
    _write_binary(folder, integers, rows)
    (folder / "golden.json").write_text(json.dumps(golden))
    return folder


def _write_days(folder: Path, rows_per_day: int, stream: np.random.RandomState) -> Array:
    """Write the prepared rows of all days. Return the integers of the training rows."""
    drawn = []
    for day in DAYS:
        rows = rows_per_day + day % 3
        integers = stream.randint(-2 - day % 2, 50, (rows, _INTEGERS))
        integers[0, 0] = -2 - day % 2  # the smallest of the day
        drawn.append(integers)
        np.save(folder / f"day_{day}_dense.npy", np.log((integers + 4 + day % 2).astype(np.float32)))
        dtype = np.int64 if day == TEST_DAY else np.int32
        np.save(folder / f"day_{day}_sparse.npy", stream.randint(2, 200, (rows, 26)).astype(dtype))
        labels = (np.arange(rows) % 3 == 0).astype(np.int32)[:, None]
        np.save(folder / f"day_{day}_labels.npy", labels)
    return np.concatenate(drawn[:TEST_DAY])


def _initial_weights(rows: list[int], sizes: Sizes, stream: np.random.RandomState) -> dict[str, Array]:
    """Return weights of the model."""
    width, rank = 27 * sizes.dimension, sizes.cross_rank
    shapes: dict[str, tuple[int, ...]] = {
        f"emb.{table}.weight": (n, sizes.dimension) for table, n in enumerate(rows)
    }
    widths = {"bottom": (_INTEGERS, *sizes.bottom, sizes.dimension), "top": (width, *sizes.top, 1)}
    for mlp, layers in widths.items():
        for layer in range(len(layers) - 1):
            shapes[f"{mlp}.{layer}.weight"] = (layers[layer + 1], layers[layer])
            shapes[f"{mlp}.{layer}.bias"] = (layers[layer + 1],)
    for layer in range(sizes.cross_layers):
        shapes[f"cross.{layer}.W"], shapes[f"cross.{layer}.V"] = (width, rank), (rank, width)
        shapes[f"cross.{layer}.bias"] = (width,)
    weights = {name: stream.normal(0.0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}
    for name, weight in weights.items():
        if name.endswith("bias"):
            np.abs(weight, out=weight)  # so that no layer is all zeros after its ReLU
    return weights


def _write_ids(folder: Path, golden: dict[str, Any], rows: list[int], sizes: list[int]) -> None:
    """Write the expanded ids of two days, and the checksums of all."""
    tables = lookup_tables(rows, sizes)
    golden["multi_hot"] = {
        "lookup_tables": [
            {"feature": number, "sha256": hashlib.sha256(table.tobytes()).hexdigest()}
            for number, table in enumerate(tables)
        ]
    }
    for day in DAYS:
        sparse = np.load(folder / "onehot" / f"day_{day}_sparse.npy")
        ids = [table[one % len(table)] for table, one in zip(tables, sparse.T, strict=True)]
        name = f"day_{day}_sparse_multi_hot.npz"
        joined = b"".join(part.tobytes() for part in ids)
        golden["files"][name] = {"arrays_sha256": hashlib.sha256(joined).hexdigest()}
        if day in MULTI_HOT_DAYS:
            np.savez(folder / "multihot" / name, **{str(number): part for number, part in enumerate(ids)})


def _write_binary(folder: Path, integers: Array, rows: list[int]) -> None:
    """Write the first training rows in the binary format."""
    data = Data.read(folder / "onehot", range(TEST_DAY))
    columns = np.concatenate([data.labels, integers, data.sparse % np.array(rows)], 1)[:20]
    columns.astype("<i4").tofile(folder / "onehot_train_20.bin")
