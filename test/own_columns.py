"""A small click log with columns of its own, its description, and a simple preparation of it for comparison."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from preparations import preparation

from mlperf.data.schema import RowSchema
from mlperf.settings.dataset import PreparationSettings

Row = list[str]

HEADER = ["day", "clicked", "price", "age", "site", "user", "tags"]
COLUMNS = """
[text]
header = true
[label]
column = "clicked"
[[dense]]
column = "price"
type = "decimal"
transform = "standardize"
[[dense]]
column = "age"
type = "integer"
[[categorical]]
column = "site"
[[categorical]]
column = "user"
type = "integer"
[[categorical]]
column = "tags"
separator = "|"
ids = 2
"""
SHARES = "[split]\ntest_share = 0.2\nval_share = 0.1\n"
SCHEMA = RowSchema(2, (1, 1, 2))


def random_rows(count: int, seed: int = 1) -> list[Row]:
    """Return rows with missing values, empty ids, quotes and more or fewer tags than are kept."""
    stream = np.random.default_rng(seed)

    def some(text: str) -> str:
        return "" if stream.random() < 0.15 else text

    return [
        [
            f"d{5 * number // count}",
            str(int(stream.random() < 0.4)),
            some(repr(float(np.float32(stream.normal(20, 5))))),
            some(str(stream.integers(-3, 90))),
            some(f'site {stream.zipf(1.5) % 40}, "{stream.integers(3)}"'),
            some(str(int(stream.integers(0, 30)) << int(stream.integers(0, 58)))),
            "|".join(f"tag{stream.integers(6)}" for _ in range(stream.integers(0, 4))),
        ]
        for number in range(count)
    ]


def write_log(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows as CSV with a header."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([HEADER, *rows])
    path.write_bytes(text.getvalue().encode())


def write_description(folder: Path, split: str = SHARES, columns: str = COLUMNS) -> Path:
    """Write a file for --columns."""
    path = folder / "columns.toml"
    path.write_text(columns + split)
    return path


def own_preparation(folder: Path, name: str = "x", **flags: Any) -> PreparationSettings:
    """Return the settings of a preparation of clicks.csv in a folder, by default without shuffling."""
    chosen = {"data_set": "columns", "columns": folder / "columns.toml", **flags}
    raw = chosen.pop("raw_data_file", folder / "clicks.csv")
    assert isinstance(raw, Path)
    return preparation(raw, folder / name, **chosen)


def read_own_rows(path: Path) -> npt.NDArray[np.int32]:
    """Return the rows of a binary file, int32 [rows, columns]."""
    return np.fromfile(path, SCHEMA.dtype).reshape(-1, SCHEMA.columns)


class PlainNumbering:
    """Numbers ids from 1 in order of first appearance; the empty id is 0. known: whether new ids are unknown."""

    def __init__(self) -> None:
        self.numbers: list[dict[str, int]] = [{} for _ in range(3)]
        self.known = False
        self.unknown = [0, 0, 0]
        self.cut = [0, 0, 0]

    def __call__(self, table: int, text: str) -> int:
        """Return the number of an id."""
        if text == "":
            return 0
        seen = self.numbers[table]
        if self.known and text not in seen:
            self.unknown[table] += 1
            return 0
        return seen.setdefault(text, len(seen) + 1)


def prepare_plainly(rows: Sequence[Row], number: PlainNumbering) -> npt.NDArray[np.int32]:
    """Return the rows of the binary file, one field at a time, as the format is described."""
    prepared = []
    for _, label, price, age, site, user, tags in rows:
        parts = tags.split("|") if tags else []
        number.cut[2] += len(parts) > 2
        ids = [number(0, site), number(1, user), *(number(2, tag) for tag in [*parts, "", ""][:2])]
        dense = np.array([price or "nan", age or "nan"], np.float32).view(np.int32)
        prepared.append([int(label), *dense.tolist(), *ids])
    return np.array(prepared, np.int32).reshape(-1, SCHEMA.columns)
