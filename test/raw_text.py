"""Small text in the Criteo format, and a simple preparation of it in Python for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Row = list[str]


def random_rows(count: int, seed: int) -> list[Row]:
    """Return rows of 40 fields, with empty and negative integers, empty ids, and skewed 32-bit ids."""
    stream = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        integers = [
            "" if stream.random() < 0.2 else str(int(stream.integers(-3, 10 ** int(stream.integers(1, 9)))))
            for _ in range(13)
        ]
        ids = [
            "" if stream.random() < 0.05 else f"{(int(stream.zipf(1.3)) * 2654435761 + table) % 2**32:08x}"
            for table in range(26)
        ]
        rows.append([str(int(stream.random() < 0.3)), *integers, *ids])
    return rows


def text(rows: Sequence[Row], line_end: str = "\n") -> bytes:
    """Return the rows as the bytes of a file."""
    return "".join("\t".join(row) + line_end for row in rows).encode()


def write_days(folder: Path, rows_per_day: Sequence[int], seed: int) -> list[list[Row]]:
    """Write day_0, day_1, ... to `folder` and return their rows."""
    days = [random_rows(count, 100 * seed + day) for day, count in enumerate(rows_per_day)]
    for day, rows in enumerate(days):
        (folder / f"day_{day}").write_bytes(text(rows))
    return days


def read_days(folder: Path) -> list[list[Row]]:
    """Return the rows of day_0, day_1, ... in a folder."""
    days = sorted(folder.glob("day_*"), key=lambda path: int(path.name.removeprefix("day_")))
    return [[line.split("\t") for line in path.read_text().splitlines()] for path in days]


@dataclass(frozen=True)
class Expected:
    """The rows of each split, int32 [rows, 40], and the number of distinct ids of each table."""

    train: npt.NDArray[np.int32]
    test: npt.NDArray[np.int32]
    val: npt.NDArray[np.int32]
    counts: list[int]


def prepare_slowly(days: Sequence[Sequence[Row]], max_ind_range: int = -1, *, dcnv2: bool = False) -> Expected:
    """Prepare in text order, one field at a time, as the format is described.

    dcnv2: as for DLRM-DCNv2: negative integers are kept, and ids are numbered from 2.
    """
    numbers: list[dict[int, int]] = [{} for _ in range(26)]
    prepared = []
    for day in days:
        for row in day:
            integers = [int(field or 0) for field in row[1:14]]
            if not dcnv2:
                integers = [max(value, 0) for value in integers]
            ids = [int(field or "0", 16) for field in row[14:]]
            if max_ind_range > 0:
                ids = [value % max_ind_range for value in ids]
            first = 2 if dcnv2 else 0
            indices = [seen.setdefault(value, len(seen) + first) for seen, value in zip(numbers, ids, strict=True)]
            prepared.append([int(row[0]), *integers, *indices])
    everything = np.array(prepared, np.int32)
    last = len(days[-1])
    train, test = len(everything) - last, (last + 1) // 2
    return Expected(
        everything[:train],
        everything[train : train + test],
        everything[train + test :],
        [len(seen) for seen in numbers],
    )
