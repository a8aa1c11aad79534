"""Click logs of users: several files of a split, the sample described by a file, and the example of the docs."""

from __future__ import annotations

import csv
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_columns import COLUMNS
from preparations import read_rows
from program import ROOT, run_program

from mlperf.data.criteo.sample.generate import SampleSettings, make_sample
from mlperf.data.prepare.pipeline import prepare
from mlperf.settings.dataset import PreparationSettings
from mlperf.util.errors import RunError

BY_DEFAULT = COLUMNS.replace("[text]\nheader = true\n", "") + "[split]\n"  # columns given by name have a header
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
    (folder / "columns.toml").write_text(BY_DEFAULT + split)
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


def test_column_that_the_text_lacks_is_named_with_the_description(tmp_path: Path) -> None:
    write(tmp_path / "log.csv", rows(10))
    message = (
        f"--columns={tmp_path / 'columns.toml'}: {tmp_path / 'log.csv'}: there is no column 'hour'; the columns"
    )
    with pytest.raises(RunError, match=f"^{re.escape(message)}"):
        prepared(tmp_path, "log.csv", BY_VALUE.replace("day", "hour"))


def test_described_sample_has_the_rows_of_the_terabyte_preparation(tmp_path: Path) -> None:
    """The ids are numbered in the same order, but from 1, and the empty id has row 0."""
    make_sample(SampleSettings(tmp_path, rows=24_000, seed=3))
    flags: dict[str, Any] = {"randomize": "none"}
    prepare(PreparationSettings("terabyte", tmp_path / "day", tmp_path / "a", **flags))
    description = ROOT / "input" / "columns_sample.toml"
    prepare(PreparationSettings("columns", tmp_path / "day_0", tmp_path / "b", columns=description, **flags))
    days = read_rows(tmp_path / "a_train.bin"), read_rows(tmp_path / "b_train.bin")
    assert np.array_equal(days[0][:, :14], days[1][:, :14])
    last_day = np.concatenate([read_rows(tmp_path / f"a_{split}.bin") for split in ("test", "val")])
    both = np.concatenate([days[0], last_day]), np.concatenate([days[1], read_rows(tmp_path / "b_test.bin")])
    for column in range(14, 40):
        pairs = np.unique(np.stack([rows[:, column] for rows in both]), axis=1)
        assert np.array_equal(np.unique(pairs[0]), pairs[0])  # each id has one number
        differences = pairs[1] - pairs[0]
        empty = np.flatnonzero(pairs[1] == 0)
        assert set(differences[: empty[0]] if len(empty) else differences) <= {1}
        assert not len(empty) or set(differences[empty[0] + 1 :]) <= {0}


def test_example_of_the_docs_prints_what_they_say(tmp_path: Path) -> None:
    page = (ROOT / "mlperf" / "docs" / "own_data.md").read_text()
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (script,) = [block for block in blocks if block.startswith("# make_clicks.py")]
    (description,) = [block for block in blocks if block.startswith("[label]")]
    (printed,) = [block for block in blocks if block.startswith("clicks_train.bin")]
    (head,) = [block for block in blocks if block.startswith("day,clicked")]
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    assert (tmp_path / "clicks.csv").read_text().startswith(head)
    (tmp_path / "columns.toml").write_text(description)
    flags = ("--data-set=columns", "--columns=columns.toml", "--raw-data-file=clicks.csv")
    run = run_program(*flags, "--processed-data-file=clicks", cwd=tmp_path, program="tools/prepare_criteo.py")
    assert (run.status, run.stdout) == (0, printed)
