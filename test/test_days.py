"""Preparations of some of the Terabyte days: --days."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import raw_text
from preparations import DAYS, preparation, read_rows

from mlperf.data.prepare.pipeline import prepare
from mlperf.data.prepared.dataset import PreparedData
from mlperf.runner.data import prepared_data
from mlperf.settings.dataset import PreparationSettings
from mlperf.settings.from_flags import parse, parse_preparation
from mlperf.util.errors import RunError, UsageError

REQUIRED = ("--raw-data-file=day", "--processed-data-file=x")


@pytest.fixture
def days(tmp_path: Path) -> list[list[raw_text.Row]]:
    """Write the text of the days to a folder; return its rows."""
    return raw_text.write_days(tmp_path, DAYS, seed=5)


def of_days(folder: Path, name: str, *numbers: int, **flags: object) -> PreparationSettings:
    return preparation(folder / "day", folder / name, days=numbers, **flags)


def contents(made: PreparedData) -> list[list[list[int]]]:
    return [read_rows(path).tolist() for path in (made.train, made.test, made.val)]


@pytest.mark.parametrize("data_set", ["terabyte", "terabyte_dcnv2"])
def test_last_given_day_is_for_evaluation(data_set: str, days: list[list[raw_text.Row]], tmp_path: Path) -> None:
    made = prepare(of_days(tmp_path, "x", 0, 3, 23, data_set=data_set))
    expected = raw_text.prepare_slowly([days[0], days[3], days[23]], dcnv2=data_set == "terabyte_dcnv2")
    assert contents(made) == [expected.train.tolist(), expected.test.tolist(), expected.val.tolist()]
    assert list(made.counts) == expected.counts
    manifest = json.loads((tmp_path / "x.json").read_text())
    assert manifest["flags"]["days"] == "0,3,23"
    assert manifest["rows_per_day"] == [DAYS[0], DAYS[3], DAYS[23]]


def test_one_day_alone_is_divided_as_the_kaggle_text_is(days: list[list[raw_text.Row]], tmp_path: Path) -> None:
    made = prepare(of_days(tmp_path, "x", 0))  # 11 rows: days of 2, 2, 2, 2, 1, 1, 1
    expected = raw_text.prepare_slowly([days[0][:10], days[0][10:]])
    assert contents(made) == [expected.train.tolist(), expected.test.tolist(), []]


def test_other_days_need_not_exist(days: list[list[raw_text.Row]], tmp_path: Path) -> None:
    assert days
    whole = contents(prepare(of_days(tmp_path, "x", 2, 5)))
    for day in range(24):
        if day not in (2, 5):
            (tmp_path / f"day_{day}").unlink()
    (tmp_path / "day_5.gz").write_bytes(gzip.compress((tmp_path / "day_5").read_bytes()))
    (tmp_path / "day_5").unlink()
    assert contents(prepare(of_days(tmp_path, "y", 2, 5))) == whole
    with pytest.raises(
        RunError, match=r"day_0: no such file, .* requires 24 days; --days=2,5 prepares those that exist"
    ):
        prepare(preparation(tmp_path / "day", tmp_path / "z"))
    with pytest.raises(RunError, match=r"day_4: no such file, .* requires this day"):
        prepare(of_days(tmp_path, "z", 4))


def test_shuffled_days_stay_in_their_order(days: list[list[raw_text.Row]], tmp_path: Path) -> None:
    assert days
    plain = np.array(contents(prepare(of_days(tmp_path, "x", 0, 3, 23)))[0])
    shuffled = np.array(contents(prepare(of_days(tmp_path, "y", 0, 3, 23, randomize="day")))[0])
    for part in (slice(0, DAYS[0]), slice(DAYS[0], None)):
        assert sorted(shuffled[part].tolist()) == sorted(plain[part].tolist())
    assert shuffled.tolist() != plain.tolist()


def test_other_days_prepare_the_data_again(
    days: list[list[raw_text.Row]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert days
    prepare(of_days(tmp_path, "x", 0, 3))
    assert prepare(of_days(tmp_path, "x", 0, 4)).test_rows == (DAYS[4] + 1) // 2
    assert "x_train.bin: was prepared with --days=0,3; preparing it again" in caplog.text
    prepare(preparation(tmp_path / "day", tmp_path / "x"))
    assert "x_train.bin: was prepared with --days=0,4; preparing it again" in caplog.text
    prepare(of_days(tmp_path, "x", 0, 3))
    assert "x_train.bin: was prepared with no --days; preparing it again" in caplog.text


def test_run_refuses_other_days_than_those_of_the_data(days: list[list[raw_text.Row]], tmp_path: Path) -> None:
    assert days
    flags = ["--data-generation=dataset", "--data-set=terabyte", "--data-randomize=none", "--arch-mlp-bot=13-2"]
    flags += [f"--processed-data-file={tmp_path}/x", f"--raw-data-file={tmp_path}/day"]
    assert prepared_data(parse([*flags, "--days=0-1,7"]).data).train_rows == DAYS[0] + DAYS[1]
    assert prepared_data(parse(flags).data).days == (0, 1, 7)
    with pytest.raises(UsageError, match=r"--days=0,7: \S+x_train\.bin was prepared of other days; omit the flag"):
        prepared_data(parse([*flags, "--days=0,7"]).data)


@pytest.mark.parametrize("text", ["", "3-1", "24", "0,0", "1,0", "0-3,2", "a", "0--1", "0-1-2", "-1", "1,,2"])
def test_days_are_increasing_numbers(text: str) -> None:
    with pytest.raises(UsageError, match=r"--days: .* is not increasing numbers from 0 to 23 and ranges of them"):
        parse_preparation([*REQUIRED, "--data-set=terabyte", f"--days={text}"], "prepare_criteo.py", None)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--data-set=kaggle"],
            "--days=1,3-5 cannot be combined with --data-set=kaggle: its text has no",
        ),
        (["--data-set=terabyte_dcnv2", "--reference-files"], "--days cannot be combined with --reference-files"),
    ],
)
def test_days_of_a_text_without_days_are_refused(flags: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_preparation([*REQUIRED, *flags, "--days=1,3-5"], "prepare_criteo.py", None)
