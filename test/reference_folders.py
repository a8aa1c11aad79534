"""Folders with the files of the DLRM-DCNv2 reference, for tests."""

from __future__ import annotations

import json
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from program import GOLDEN

from mlperf.data.multi_hot import MultiHotShape, MultiHotTables

FOLDER = GOLDEN / "dcnv2"
ONE_HOT = FOLDER / "onehot"
FACTS: dict[str, Any] = json.loads((FOLDER / "golden.json").read_text())
ROWS = tuple(FACTS["model"]["table_rows"])
SIZES = tuple(FACTS["model"]["multi_hot_sizes"])
DAYS = range(24)


@lru_cache(maxsize=1)
def tables() -> MultiHotTables:
    """Return the tables that expand the golden ids."""
    return MultiHotTables.drawn(MultiHotShape(ROWS, SIZES))


def read_days(*days: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return dense features, ids and labels of the golden data."""
    dense, ids, labels = (
        np.concatenate([np.load(ONE_HOT / f"day_{day}_{part}.npy") for day in days])
        for part in ("dense", "sparse", "labels")
    )
    return dense, ids, labels


def copy_folder(folder: Path) -> Path:
    """Copy the golden files with one id per table to `folder`, to be changed."""
    shutil.copytree(ONE_HOT, folder)
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder


def write_multi_hot_folder(folder: Path) -> Path:
    """Write the golden data with several ids per table to `folder`, as the reference does."""
    copy_folder(folder)
    expanded = tables()
    for day in DAYS:
        path = folder / f"day_{day}_sparse.npy"
        rows = np.load(path)
        arrays: dict[str, Any] = {}
        start, ids = 0, expanded.expand(rows)
        for table, size in enumerate(SIZES):
            arrays[str(table)] = ids[start : start + len(rows) * size].reshape(len(rows), size)
            start += len(rows) * size
        np.savez(folder / f"day_{day}_sparse_multi_hot.npz", **arrays)
        path.unlink()
    return folder
