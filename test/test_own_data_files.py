"""A user's click log in several files is prepared like one in a single file."""

from __future__ import annotations

import csv
import random
from pathlib import Path

from mlperf.data.prepare.pipeline import prepare
from mlperf.settings.dataset import PreparationSettings

COLUMNS = """
[label]
column = "clicked"
[[dense]]
column = "price"
type = "decimal"
transform = "standardize"
[[dense]]
column = "age"
[[categorical]]
column = "site"
[[categorical]]
column = "user"
type = "integer"
[[categorical]]
column = "tags"
separator = "|"
ids = 2
[split]
"""
BY_VALUE = 'column = "day"\ntest = ["7"]\nval = ["8"]\n'
FILES = 'train = ["a.csv", "b.csv"]\ntest = ["c.csv"]\nval = ["d.csv"]\n'


def rows(count: int) -> list[list[str]]:
    """Return rows in order of the day, 1 to 8."""
    draw = random.Random(count)
    return [
        [
            str(draw.randrange(2)),
            draw.choice(["", f"{draw.gauss(5, 2):.4f}"]),
            str(draw.randrange(100)),
            draw.choice(["site 1", "site, 2", 'site "3"', ""]),
            str(draw.randrange(10**15)),
            "|".join(draw.choices(["x", "y", "z"], k=draw.randrange(1, 4))),
            str(1 + 8 * row // count),
        ]
        for row in range(count)
    ]


def write(path: Path, some: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["clicked", "price", "age", "site", "user", "tags", "day"], *some])


def prepared(folder: Path, name: str, split: str = BY_VALUE) -> list[bytes]:
    """Prepare a file; return the rows of the splits and the ids."""
    (folder / "columns.toml").write_text(COLUMNS + split)
    settings = PreparationSettings(
        "columns", folder / name, folder / f"{name}_x", columns=folder / "columns.toml", randomize="none"
    )
    prepare(settings)
    return [(folder / f"{name}_x{end}").read_bytes() for end in ("_train.bin", "_test.bin", "_val.bin", ".ids")]


def test_splits_of_several_files_have_their_rows_in_order(tmp_path: Path) -> None:
    some = rows(800)
    write(tmp_path / "log.csv", some)
    for name, part in (("a", some[:250]), ("b", some[250:600]), ("c", some[600:700]), ("d", some[700:])):
        write(tmp_path / f"{name}.csv", part)
    assert prepared(tmp_path, "a.csv", FILES) == prepared(tmp_path, "log.csv")
