"""The three preparation steps of DLRM-DCNv2's reference, in memory and one field at a time, to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from raw_text import Row

from mlperf.data.prepare.reference.logarithm import natural_logarithm

Array = npt.NDArray[np.generic]


def logarithm(values: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """Return numpy.log(values, dtype=numpy.float32), which depends on the CPU, as on one with AVX2."""
    logarithms = [natural_logarithm(np.float32(value)) for value in values.ravel()]
    return np.array(logarithms, np.float32).reshape(values.shape)


def prepare_like_the_reference(days: Sequence[Sequence[Row]]) -> list[tuple[Array, Array, Array]]:
    """Return the dense features, ids and labels of each day."""
    numbers: list[dict[int, int]] = [{} for _ in range(26)]
    arrays: list[tuple[Array, Array, Array]] = []
    for day in days:
        integers = np.array([[int(field or 0) for field in row[1:14]] for row in day], np.int32)
        integers -= integers.min() - 2
        ids = [[int(field or "0", 16) for field in row[14:]] for row in day]
        contiguous = [
            [seen.setdefault(value, len(seen) + 2) for seen, value in zip(numbers, row, strict=True)]
            for row in ids
        ]
        labels = np.array([[int(row[0])] for row in day], np.int32)
        arrays.append((logarithm(integers), np.array(contiguous), labels))
    return [*shuffled(arrays[:-1]), arrays[-1]]


def shuffled(days: Sequence[tuple[Array, Array, Array]]) -> list[tuple[Array, Array, Array]]:
    """Shuffle the rows of all days as one float32 array; return days of the old lengths."""
    full = np.concatenate([np.concatenate([part.astype(np.float32) for part in day], axis=1) for day in days])
    np.random.RandomState(0).shuffle(full)
    parts = np.split(full, np.cumsum([len(labels) for _, _, labels in days])[:-1])
    return [(part[:, :13], part[:, 13:39].astype(np.int32), part[:, 39:].astype(np.int32)) for part in parts]


def write_days(folder: Path, days: Sequence[tuple[Array, Array, Array]]) -> None:
    """Write the arrays as the reference does."""
    folder.mkdir()
    for day, arrays in enumerate(days):
        for kind, array in zip(("dense", "sparse", "labels"), arrays, strict=True):
            np.save(folder / f"day_{day}_{kind}.npy", array)
