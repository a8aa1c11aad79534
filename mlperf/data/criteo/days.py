"""How the Criteo logs are divided into days, and the rows into training, test and validation splits."""

from __future__ import annotations

from collections.abc import Sequence

SPLITS = ("train", "test", "val")
TRAINING_SPLITS = ("train", "test")  # those that a training run reads


def divide(rows: int, days: int) -> list[int]:
    """Return the rows of each day if `rows` are divided equally; the first days get the remainder."""
    rows_per_day, remainder = divmod(rows, days)
    return [rows_per_day + (day < remainder) for day in range(days)]


def split_rows(rows_per_day: Sequence[int]) -> dict[str, int]:
    """Return the rows of each split: the last day is divided into test and val, the others are for training."""
    last_day = rows_per_day[-1]
    test = (last_day + 1) // 2
    return {"train": sum(rows_per_day[:-1]), "test": test, "val": last_day - test}
