"""Predictions for a click log with columns of any kind: of its splits, of other files, and of arrays."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_columns import COLUMNS, SHARES
from program import Finished, run_program

import mlperf

NAMES = ["clicked", "age", "price", "site", "user", "tags"]
MODEL = (
    *("--arch-sparse-feature-size=8", "--arch-mlp-bot=2-16-8", "--arch-mlp-top=16-1", "--loss-function=bce"),
    *("--data-generation=dataset", "--data-set=columns", "--processed-data-file=x", "--mini-batch-size=8"),
)
ROWS = 100


def make_rows() -> list[list[str]]:
    stream = np.random.default_rng(4)
    rows = []
    for _ in range(ROWS):
        tags = "|".join(f"tag {number}" for number in stream.integers(0, 9, stream.integers(0, 4)))
        age = "" if stream.random() < 0.2 else str(stream.integers(18, 80))
        price = "" if stream.random() < 0.2 else f"{stream.lognormal(2, 1):.2f}"
        site = stream.choice(["Chad", "Congo, Republic", 'the "old" one', ""])
        rows.append([str(stream.integers(0, 2)), age, price, site, str(stream.integers(-5, 30)), tags])
    return rows


def write(path: Path, rows: Sequence[Sequence[str]], names: Sequence[str] | None = NAMES) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([*([] if names is None else [names]), *rows])
    return path


class OwnLog:
    """A prepared log with a model that was trained on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = make_rows()
        write(folder / "log.csv", self.rows)
        (folder / "columns.toml").write_text(COLUMNS + SHARES)
        given = ("--data-set=columns", "--columns=columns.toml", "--data-randomize=none")
        files = ("--raw-data-file=log.csv", "--processed-data-file=x")
        run = run_program(*given, *files, cwd=folder, program="tools/prepare_criteo.py")
        assert run.status == 0, run.stderr
        run = run_program(*MODEL, "--save-model=model.pt", "--test-freq=9", "--learning-rate=0.5", cwd=folder)
        assert run.status == 0, run.stderr

    def score(self, *flags: str) -> Finished:
        given = (*MODEL, "--inference-only", "--load-model=model.pt", *flags)
        return run_program(*given, "--save-predictions=p.npy", cwd=self.folder)

    def predictions(self, *flags: str) -> Any:
        run = self.score(*flags)
        assert run.status == 0, run.stderr
        return np.load(self.folder / "p.npy")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> OwnLog:
    return OwnLog(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def expected(log: OwnLog) -> Any:
    """Return the predictions of all rows, in the order of the log."""
    parts = [log.predictions(f"--split={split}", "--mini-batch-size=1") for split in ("train", "test", "val")]
    found = np.concatenate(parts)
    assert found["label"].tolist() == [int(row[0]) for row in log.rows]
    assert len(set(found["probability"].tolist())) > ROWS // 2
    return found["probability"].tolist()


def test_text_has_the_predictions_of_its_prepared_rows(log: OwnLog, expected: list[float]) -> None:
    found = log.predictions("--score-text=log.csv", "--mini-batch-size=1")
    assert found["probability"].tolist() == expected
    assert found["label"].tolist() == [int(row[0]) for row in log.rows]


def test_label_may_be_absent_and_columns_in_another_order(log: OwnLog, expected: list[float]) -> None:
    order = [5, 2, 1, 4, 3]
    write(log.folder / "new.csv", [[row[k] for k in order] for row in log.rows], [NAMES[k] for k in order])
    run = log.score("--score-text=new.csv", "--mini-batch-size=1")
    assert (run.status, run.stdout) == (0, ""), run.stderr
    found = np.load(log.folder / "p.npy")
    assert found["probability"].tolist() == expected
    assert set(found["label"]) == {-1}


def test_unknown_words_get_the_row_of_the_empty_id_and_cut_fields_are_counted(log: OwnLog) -> None:
    rows = [list(row) for row in log.rows]
    for row in rows:
        row[3], row[4], row[5] = "", "", "tag 1|tag 2"
    write(log.folder / "empty.csv", rows)
    for row in rows[:7]:
        row[3], row[4], row[5] = "Atlantis", "10000", "tag 1|tag 2|tag 3|tag 4"
    write(log.folder / "unknown.csv", rows)
    plain = log.predictions("--score-text=empty.csv")
    run = log.score("--score-text=unknown.csv")
    assert np.load(log.folder / "p.npy").tolist() == plain.tolist()
    assert run.stderr.splitlines()[-2:] == [
        "unknown.csv: ids that x.ids lacks: 14 (site 7, user 7); they get the row of the empty id",
        "unknown.csv: fields with more ids than are kept: tags 7",
    ]


def test_parquet_has_the_predictions_of_the_text(log: OwnLog, expected: list[float]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = dict(zip(NAMES, zip(*log.rows, strict=True), strict=True))
    table = {
        "clicked": [int(value) for value in columns["clicked"]],
        "age": [int(value) if value else None for value in columns["age"]],
        "price": [float(value) if value else None for value in columns["price"]],
        "site": list(columns["site"]),
        "user": [int(value) for value in columns["user"]],
        "tags": list(columns["tags"]),
    }
    parquet.write_table(pyarrow.table(table), log.folder / "log.parquet")
    del table["clicked"]
    parquet.write_table(pyarrow.table(table), log.folder / "new.parquet")
    found = log.predictions("--score-text=log.parquet", "--mini-batch-size=1")
    assert found["probability"].tolist() == expected
    unlabelled = log.predictions("--score-text=new.parquet", "--mini-batch-size=1")
    assert unlabelled["probability"].tolist() == expected


@pytest.mark.parametrize(
    ("rows", "names", "message"),
    [
        ([["1", "x", "2", "Chad", "3", ""]], NAMES, "bad.csv: line 2, column 2 ('age'): 'x'"),
        ([["1", "2", "2", "Chad", "3"]], NAMES, "bad.csv: line 2, column 5 ('user'): '3"),
        ([["1", "2", "2", "Chad", "3"]], NAMES[:-1], "bad.csv: there is no column 'tags'"),
        ([], NAMES, "bad.csv: has no rows"),
    ],
)
def test_bad_text_is_named(rows: list[list[str]], names: list[str], message: str, log: OwnLog) -> None:
    write(log.folder / "bad.csv", rows, names)
    run = log.score("--score-text=bad.csv")
    assert run.status == 1
    assert run.stderr.splitlines()[-1].startswith(f"dlrm_s_pytorch.py: error: {message}")


def test_loaded_model_predicts_arrays_and_text(log: OwnLog, expected: list[float]) -> None:
    with contextlib.chdir(log.folder):
        model = mlperf.load("model.pt", data="x", test_mini_batch_size=1)
        assert model.predict("log.csv").tolist() == expected
        rows = np.fromfile("x_train.bin", "<i4").reshape(-1, 7)
        dense = rows[:, 1:3].view(np.float32)
        assert np.isnan(dense).any()
        arrays = {"dense": dense, "ids": rows[:, 3:]}
        assert model.predict(arrays).tolist() == expected[: len(rows)]
        assert model.predict({"dense": dense.astype(float), "ids": rows[:, 3:]}).tolist() == expected[: len(rows)]
