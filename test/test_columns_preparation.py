"""Preparation of click logs whose columns a file describes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from interruption import Killed, killed_after_moves, killed_after_saves, result
from own_columns import (
    COLUMNS,
    PlainNumbering,
    own_preparation,
    prepare_plainly,
    random_rows,
    read_own_rows,
    write_description,
    write_log,
)

from mlperf.data.prepare.pipeline import prepare
from mlperf.data.prepared.dataset import PreparedData
from mlperf.runner.data import prepared_data
from mlperf.settings.from_flags import parse, parse_preparation
from mlperf.util.errors import RunError, UsageError

ROWS = random_rows(203)
KAGGLE = ["--data-generation=dataset", "--arch-mlp-bot=13-2"]
BY_VALUE = '[split]\ncolumn = "day"\ntest = ["d3"]\nval = ["d1", "d9"]\n'
BY_FILE = '[split]\ntrain = ["a.csv", "b.csv", "b2.csv"]\ntest = ["c.csv"]\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_log(tmp_path / "clicks.csv", ROWS)
    write_description(tmp_path)
    return tmp_path


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlperf.data.text.blocks.BLOCK_BYTES", 900)
    monkeypatch.setattr("mlperf.data.prepare.shuffle.SMALL_BUCKET_BYTES", 900)


def splits_of(made: PreparedData) -> list[list[list[int]]]:
    return [read_own_rows(path).tolist() for path in (made.train, made.test, made.val)]


def with_prices(prices: list[str]) -> list[list[str]]:
    return [[*row[:2], price, *row[3:]] for row, price in zip(ROWS, prices, strict=False)]


def manifest(folder: Path, name: str = "x") -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / f"{name}.json").read_text())
    return content


@pytest.mark.parametrize("cores", [1, 3])
@pytest.mark.parametrize("split", ["share", "value"])
def test_prepared_rows_are_those_of_a_simple_preparation(
    split: str, cores: int, folder: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores))
    number = PlainNumbering()
    expected = prepare_plainly(ROWS, number)
    if split == "share":
        parts = [expected[:142], expected[142:183], expected[183:]]
    else:
        write_description(folder, BY_VALUE)
        days = np.array([row[0] for row in ROWS])
        parts = [expected[(days != "d3") & (days != "d1")], expected[days == "d3"], expected[days == "d1"]]
    made = prepare(own_preparation(folder))
    assert splits_of(made) == [part.tolist() for part in parts]
    assert made.counts == tuple(map(len, number.numbers))
    assert manifest(folder)["cut_fields"] == number.cut
    assert number.cut[2] > 0


def test_splits_of_files_are_prepared_in_their_order(folder: Path) -> None:
    write_description(folder, BY_FILE)
    for name, part in (("a", ROWS[:50]), ("b", ROWS[50:70]), ("b2", ROWS[70:90]), ("c", ROWS[90:])):
        write_log(folder / f"{name}.csv", part)
    expected = prepare_plainly(ROWS, PlainNumbering())
    made = prepare(own_preparation(folder, raw_data_file=folder))
    assert splits_of(made) == [expected[:90].tolist(), expected[90:].tolist(), []]
    assert prepare(own_preparation(folder, raw_data_file=folder / "a.csv")) == made
    with pytest.raises(UsageError, match=r"clicks.csv is none of the files of the splits that --columns names"):
        prepare(own_preparation(folder))
    (folder / "c.csv").unlink()
    with pytest.raises(RunError, match=r"c.csv: no such file, .* requires the files that --columns=\S+ names"):
        prepare(own_preparation(folder, "y", raw_data_file=folder))


def test_random_splits_depend_on_the_seed_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_description(folder, "[split]\ntest_share = 0.25\nval_share = 0.25\nrandom = true\n")
    made = splits_of(prepare(own_preparation(folder, seed=4)))
    monkeypatch.setattr("mlperf.data.text.blocks.BLOCK_BYTES", 700)
    assert splits_of(prepare(own_preparation(folder, "y", seed=4))) == made
    assert splits_of(prepare(own_preparation(folder, "z", seed=5))) != made
    assert sorted([*made[0], *made[1], *made[2]]) == sorted(prepare_plainly(ROWS, PlainNumbering()).tolist())
    assert all(abs(len(part) - 203 * share) < 25 for part, share in zip(made, (0.5, 0.25, 0.25), strict=True))


def test_shuffled_training_rows_are_the_same_rows(folder: Path, small_blocks: None) -> None:
    plain = splits_of(prepare(own_preparation(folder)))
    shuffled = splits_of(prepare(own_preparation(folder, "y", randomize="total")))
    assert shuffled[0] != plain[0]
    assert (sorted(shuffled[0]), shuffled[1:]) == (sorted(plain[0]), plain[1:])


def test_means_and_deviations_are_those_of_the_training_rows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = prepare(own_preparation(folder))
    prices = np.array([float(row[2]) for row in ROWS[:142] if row[2]], np.float32).astype(np.float64)
    assert made.means == pytest.approx((prices.mean(), 0.0), rel=1e-14)
    assert made.deviations == pytest.approx((prices.std(), 1.0), rel=1e-13)
    monkeypatch.setattr("mlperf.data.text.blocks.BLOCK_BYTES", 700)
    other = prepare(own_preparation(folder, "y"))
    assert (made.means, made.deviations) == (other.means, other.deviations)


@pytest.mark.parametrize(("values", "expected"), [(["7.5"] * 12, (7.5, 1.0)), ([""] * 12, (0.0, 1.0))])
def test_column_without_a_deviation_is_only_shifted(
    values: list[str], expected: tuple[float, float], folder: Path
) -> None:
    write_log(folder / "clicks.csv", with_prices(values))
    made = prepare(own_preparation(folder))
    assert (made.means[0], made.deviations[0]) == expected


def test_deviation_of_large_values_is_exact(folder: Path) -> None:
    values = [str(2**24 - 1 - number % 2) for number in range(20)]
    write_log(folder / "clicks.csv", with_prices(values))
    assert prepare(own_preparation(folder)).deviations[0] == 0.5


def test_text_without_a_header_and_with_integers_only_is_stored_like_criteo(tmp_path: Path) -> None:
    (tmp_path / "clicks.tsv").write_text("1\t5\tab\n0\t-2\t\n0\t\tff\n1\t7\tab\n")
    (tmp_path / "columns.toml").write_text(
        "[label]\ncolumn = 1\n[[dense]]\ncolumn = 2\n[[categorical]]\ncolumn = 3\n"
        'type = "hexadecimal"\n[split]\ntest_share = 0.25\n'
    )
    made = prepare(own_preparation(tmp_path, raw_data_file=tmp_path / "clicks.tsv"))
    rows = np.concatenate([np.fromfile(path, np.int32) for path in (made.train, made.test)]).reshape(-1, 3)
    assert rows.tolist() == [[1, 5, 1], [0, 0, 0], [0, 0, 2], [1, 7, 1]]
    assert made.means == ()


def test_bad_rows_stop_the_preparation_or_are_counted(folder: Path) -> None:
    lines = (folder / "clicks.csv").read_text().splitlines(keepends=True)
    lines.insert(5, "d0,1,costly,3,a,1,\n")
    (folder / "clicks.csv").write_text("".join(lines))
    with pytest.raises(RunError, match=r"clicks.csv: line 6, column 3 \('price'\): 'costly': not a decimal"):
        prepare(own_preparation(folder))
    assert not list(folder.glob("x*"))
    made = prepare(own_preparation(folder, bad_rows="skip", max_bad_rows=0.1))
    assert made.bad_rows == 1
    assert sum(map(len, splits_of(made))) == len(ROWS)


def test_too_few_rows_for_the_splits_are_refused(folder: Path) -> None:
    write_log(folder / "clicks.csv", ROWS[:2])
    with pytest.raises(
        RunError, match=r"clicks.csv: 2 rows: too few for training and 0.2 test and 0.1 validation"
    ):
        prepare(own_preparation(folder))
    write_description(folder, '[split]\ncolumn = "day"\ntest = ["never"]\n')
    write_log(folder / "clicks.csv", ROWS)
    with pytest.raises(RunError, match="no rows are left for the test split by the split that --columns"):
        prepare(own_preparation(folder))


def test_another_description_prepares_the_data_again(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = prepare(own_preparation(folder))
    assert prepare(own_preparation(folder)) == first
    write_description(folder, BY_VALUE)
    second = prepare(own_preparation(folder))
    assert second.val_rows != first.val_rows
    assert "x_train.bin: was prepared with other --columns; preparing it again" in caplog.text


def test_prepared_data_outlives_its_text(folder: Path) -> None:
    made = prepare(own_preparation(folder))
    (folder / "clicks.csv").unlink()
    assert prepare(own_preparation(folder)) == made


@pytest.mark.parametrize("phase", ["text", "permute", "split", "publish"])
@pytest.mark.parametrize("randomize", ["total", "none"])
def test_preparation_stopped_at_a_checkpoint_continues_from_it(
    phase: str, randomize: str, folder: Path, monkeypatch: pytest.MonkeyPatch, small_blocks: None
) -> None:
    write_description(folder, BY_VALUE)
    for saves in (1, 4):
        with killed_after_saves(monkeypatch, phase, saves):
            try:
                prepare(own_preparation(folder, randomize=randomize, checkpoint_seconds=0.0))
            except Killed:
                assert not (folder / "x.json").exists()
    prepare(own_preparation(folder, randomize=randomize))
    prepare(own_preparation(folder, "whole", randomize=randomize))
    assert result(folder / "x") == result(folder / "whole")


@pytest.mark.parametrize("moves", [0, 1, 2, 3])
def test_preparation_stopped_while_moving_files_continues(
    moves: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with killed_after_moves(monkeypatch, moves), pytest.raises(Killed):
        prepare(own_preparation(folder))
    prepare(own_preparation(folder))
    prepare(own_preparation(folder, "whole"))
    assert result(folder / "x") == result(folder / "whole")


def test_manifest_with_a_wrong_description_is_refused(folder: Path) -> None:
    made = prepare(own_preparation(folder))
    assert made.columns.schema.ids_per_table == (1, 1, 2)
    content = manifest(folder)
    del content["manifest_crc32"]
    columns = content["columns"]
    assert isinstance(columns, dict)
    for change, said in (
        ({"columns": {**columns, "dense": 3}}, "columns.dense is 3"),
        ({"columns": None}, "columns is None"),
        ({"means": [0.0]}, "means has 1 entries, must have 2"),
        ({"deviations": [0.0, 1.0]}, r"deviations\[0\] is 0.0, must be a positive number"),
        ({"numbering": {**content["numbering"], "fingerprint": "x"}}, "must be 16 hexadecimal digits"),  # type: ignore[dict-item]
        ({"flags": {**content["flags"], "data_set": "kaggle"}}, "it must not have an entry columns"),  # type: ignore[dict-item]
    ):
        (folder / "x.json").write_text(json.dumps({**content, **change}))
        with pytest.raises(RunError, match=f"x.json: damaged manifest: .*{said}"):
            prepare(own_preparation(folder))


def test_columns_of_a_description_may_be_all_dense_or_all_categorical(folder: Path) -> None:
    parts = COLUMNS.split("[[")
    dense = "[[".join([parts[0], *(part for part in parts if part.startswith("dense"))])
    categorical = "[[".join([parts[0], *(part for part in parts if part.startswith("cat"))])
    for columns, name in ((dense, "dense"), (categorical, "categorical")):
        write_description(folder, columns=columns)
        made = prepare(own_preparation(folder, name))
        assert made.train_rows == 142
        assert len(made.counts) == made.columns.schema.tables


def test_run_prepares_the_text_if_the_data_is_missing(folder: Path) -> None:
    flags = ["--data-generation=dataset", "--data-set=columns", "--data-randomize=none"]
    flags += [f"--raw-data-file={folder}/clicks.csv"]
    with pytest.raises(UsageError, match="--data-set=columns: preparing the data requires --columns"):
        prepared_data(parse(flags).data)
    made = prepared_data(parse([*flags, f"--columns={folder}/columns.toml"]).data)
    assert made.train == folder / "columns_processed_train.bin"
    assert prepared_data(parse(flags).data) == made
    with pytest.raises(UsageError, match="--data-set=kaggle"):
        prepared_data(parse([f"--processed-data-file={folder}/columns_processed", *KAGGLE]).data)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--data-set=columns"], "--data-set=columns requires --columns"),
        (["--data-set=kaggle", "--columns=c.toml"], "--columns=c.toml requires --data-set=columns"),
        (["--data-set=columns", "--columns=c.toml", "--data-randomize=day"], "--data-randomize=day cannot be"),
        (["--data-set=columns", "--columns=c.toml", "--max-ind-range=9"], "--max-ind-range=9 cannot be combined"),
        (["--data-set=columns", "--columns=c.toml", "--days=1"], "--days=1 cannot be combined"),
    ],
)
def test_contradicting_flags_are_refused(flags: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_preparation(["--raw-data-file=a", "--processed-data-file=x", *flags], "prepare_criteo.py", None)


@pytest.mark.parametrize("split", ["", BY_VALUE])
def test_disk_that_is_too_small_is_refused_before_the_start(
    split: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of 28 bytes, of which the training rows are shuffled, and ids of up to 32 bytes a row, saved twice."""
    if split:
        write_description(folder, split)
    needed, usage = 203 * (2 * 28 + 2 * 32), shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed * 4 // 5))
    with pytest.raises(RunError, match=r"2\.(27|44)e-05 GB are needed to prepare the data and .* free; .*--force"):
        prepare(own_preparation(folder, randomize="total"))
    assert prepare(own_preparation(folder, randomize="total", force=True)).train_rows > 100
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed * 6 // 5))
    prepare(own_preparation(folder, "y", randomize="total"))
