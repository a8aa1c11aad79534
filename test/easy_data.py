"""A small data set whose ids reveal the label, so that the benchmark's architecture meets its target quickly."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_easy_data(folder: Path) -> Path:
    """Write 4,096 training rows in the format of other programs; return the prefix of the files."""
    stream = np.random.default_rng(1)
    for split, count in (("train", 4096), ("test", 512), ("val", 512)):
        rows = stream.integers(0, 4, (count, 40), dtype=np.int32)
        rows[:, 0] = stream.integers(0, 2, count)
        hints = rows[:, :1] ^ (stream.random((count, 26)) < 0.4)
        rows[:, 14:] = hints + 2 * stream.integers(0, 2, (count, 26))
        rows.astype("<i4").tofile(folder / f"easy_{split}.bin")
    np.savez(folder / "easy_fea_count.npz", counts=np.full(26, 4))
    return folder / "easy"
