"""Preparation of raw text: the binary files contain the right rows, and invalid text is refused."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import raw_text
from preparations import DAYS, preparation, read_rows
from program import GOLDEN, run_program

from mlperf.data.prepare.downsampling import NegativeDownsampler
from mlperf.data.prepare.pipeline import prepare
from mlperf.util.errors import RunError


@pytest.mark.parametrize("split", ["train", "test", "val"])
def test_terabyte_files_equal_the_golden_ones(terabyte: Path, split: str) -> None:
    golden = GOLDEN / "terabyte" / f"terabyte_processed_{split}.bin"
    assert Path(f"{terabyte}_{split}.bin").read_bytes() == golden.read_bytes()


def test_terabyte_counts_equal_the_golden_ones(terabyte: Path) -> None:
    with np.load(GOLDEN / "terabyte" / "day_fea_count.npz") as golden:
        assert json.loads(Path(f"{terabyte}.json").read_text())["counts"] == golden["counts"].tolist()
    with np.load(GOLDEN / "terabyte" / "day_day_count.npz") as golden:
        assert json.loads(Path(f"{terabyte}.json").read_text())["rows_per_day"] == list(golden["total_per_file"])


def test_kaggle_rows_equal_the_golden_ones(kaggle: Path) -> None:
    rows = np.concatenate([read_rows(Path(f"{kaggle}_{split}.bin")) for split in ("train", "test", "val")])
    with np.load(GOLDEN / "kaggle" / "kaggleAdDisplayChallenge_processed.npz") as golden:
        assert np.array_equal(rows[:, 0], golden["y"])
        assert np.array_equal(rows[:, 1:14], golden["X_int"].clip(min=0))
        assert np.array_equal(rows[:, 14:], golden["X_cat"])
        assert json.loads(Path(f"{kaggle}.json").read_text())["counts"] == golden["counts"].tolist()


@pytest.mark.parametrize("limit", [-1, 1, 7, 1000, 40_000_000, 2**32 - 1, 2**40])
def test_result_equals_simple_preparation_for_any_index_limit(limit: int, tmp_path: Path) -> None:
    days = raw_text.write_days(tmp_path, DAYS, seed=5)
    made = prepare(preparation(tmp_path / "day", tmp_path / "x", max_ind_range=limit))
    expected = raw_text.prepare_slowly(days, limit)
    assert list(made.counts) == expected.counts
    for path, rows in ((made.train, expected.train), (made.test, expected.test), (made.val, expected.val)):
        assert np.array_equal(read_rows(path), rows)


def test_kaggle_text_is_divided_into_seven_days(tmp_path: Path) -> None:
    rows = raw_text.random_rows(31, seed=3)  # days of 5, 5, 5, 4, 4, 4, 4
    (tmp_path / "train.txt").write_bytes(raw_text.text(rows))
    made = prepare(preparation(tmp_path / "train.txt", tmp_path / "x", data_set="kaggle"))
    assert (made.train_rows, made.test_rows, made.val_rows) == (27, 2, 2)
    assert np.array_equal(read_rows(made.test), raw_text.prepare_slowly([rows[:27], rows[27:]], -1).test)


@pytest.mark.parametrize("name", ["x", "x.npz", "x.bin"])
def test_name_may_end_in_npz_or_bin(name: str, tmp_path: Path) -> None:
    raw_text.write_days(tmp_path, DAYS, seed=1)
    prepare(preparation(tmp_path / "day", tmp_path / name))
    made = {path.name for path in tmp_path.iterdir() if path.name.startswith(("x", ".x"))}
    assert made == {"x_train.bin", "x_test.bin", "x_val.bin", "x.json", "x.ids"}


@pytest.mark.parametrize("data_set", ["terabyte", "kaggle"])
@pytest.mark.parametrize("cores", [1, 3])
def test_rows_of_label_0_are_dropped_before_ids_are_numbered(
    data_set: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores))
    monkeypatch.setattr("mlperf.data.text.blocks.BLOCK_BYTES", 4000)
    sampler = NegativeDownsampler(seed=9, rate=0.6)
    if data_set == "terabyte":
        days = raw_text.write_days(tmp_path, DAYS, seed=5)
        place_of = [(file, 0) for file in range(len(days))]
    else:
        (rows,) = raw_text.write_days(tmp_path, [201], seed=5)
        bounds = [0, 29, 58, 87, 116, 145, 173, 201]
        days = [rows[first:last] for first, last in pairwise(bounds)]
        place_of = [(0, first) for first in bounds[:-1]]
    kept = []
    for rows, (file, first) in zip(days, place_of, strict=True):
        mask = sampler.kept(np.array([int(row[0]) for row in rows], np.int32), file, first)
        assert all(stays for row, stays in zip(rows, mask, strict=True) if row[0] == "1")
        kept.append([row for row, stays in zip(rows, mask, strict=True) if stays])
    raw = tmp_path / ("day" if data_set == "terabyte" else "day_0")
    made = prepare(preparation(raw, tmp_path / "x", data_set=data_set, sub_sample_rate=0.6, seed=9))
    expected = raw_text.prepare_slowly(kept, -1)
    assert np.array_equal(read_rows(made.train), expected.train)
    assert np.array_equal(read_rows(made.test), expected.test)
    assert np.array_equal(read_rows(made.val), expected.val)
    assert list(made.counts) == expected.counts


def test_requested_fraction_of_rows_is_dropped() -> None:
    labels = np.zeros(40_000, np.int32)
    first = NegativeDownsampler(seed=1, rate=0.875).kept(labels, 0, 0)
    assert abs(first.mean() - 0.125) < 5 * np.sqrt(0.125 * 0.875 / len(labels))
    for seed, file in ((2, 0), (1, 1)):  # another stream: equal only by chance
        other = NegativeDownsampler(seed=seed, rate=0.875).kept(labels, file, 0)
        assert abs((first & other).mean() - 0.125**2) < 5 * 0.125 / np.sqrt(len(labels))
    assert np.array_equal(NegativeDownsampler(seed=1, rate=0.875).kept(labels[:100], 0, 700), first[700:800])


def test_dropping_all_rows_of_a_split_is_refused(tmp_path: Path) -> None:
    raw_text.write_days(tmp_path, DAYS, seed=5)
    for day in range(23):
        path = tmp_path / f"day_{day}"
        path.write_bytes(b"".join(b"0" + line[1:] for line in path.read_bytes().splitlines(keepends=True)))
    with pytest.raises(RunError, match=r"no rows are left for the training split by --data-sub-sample"):
        prepare(preparation(tmp_path / "day", tmp_path / "x", sub_sample_rate=0.99999))
    assert not list(tmp_path.glob("x*"))


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        (lambda fields: fields[:39], "column 39", "too few columns"),
        (lambda fields: fields[:1], "column 1", "too few columns"),
        (lambda fields: [*fields, "5"], "column 40", "too many columns"),
        (lambda fields: ["2", *fields[1:]], "column 1", "not a label"),
        (lambda fields: ["", *fields[1:]], "column 1", "not a label"),
        (lambda fields: ["1 ", *fields[1:]], "column 1", "not a label"),
        (lambda fields: ["\r", *fields[1:]], "column 1", "not a label"),
        (lambda fields: ["9" * 40, *fields[1:]], "column 1", "not a label"),
        (lambda fields: [*fields[:3], "12a", *fields[4:]], "column 4", "not a whole number"),
        (lambda fields: [*fields[:3], "-", *fields[4:]], "column 4", "not a whole number"),
        (lambda fields: [*fields[:3], "2147483648", *fields[4:]], "column 4", "does not fit"),
        (lambda fields: [*fields[:3], "-2147483649", *fields[4:]], "column 4", "does not fit"),
        (lambda fields: [*fields[:3], "9" * 40, *fields[4:]], "column 4", "does not fit"),
        (lambda fields: [*fields[:20], "12xy", *fields[21:]], "column 21", "not an id"),
        (lambda fields: [*fields[:20], "123456789", *fields[21:]], "column 21", "more than 8 digits"),
    ],
)
def test_bad_row_is_named_by_file_row_and_column(change, where: str, what: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    days = raw_text.write_days(tmp_path, DAYS, seed=6)
    days[3][4] = change(days[3][4])
    (tmp_path / "day_3").write_bytes(raw_text.text(days[3]))
    with pytest.raises(RunError) as caught:
        prepare(preparation(tmp_path / "day", tmp_path / "out" / "x"))
    message = str(caught.value)
    assert f"{tmp_path / 'day_3'}: row 5, {where}: " in message
    assert what in message
    assert "\n" not in message
    assert not list((tmp_path / "out").iterdir())


def test_extremes_of_32_bits_are_allowed(tmp_path: Path) -> None:
    days = raw_text.write_days(tmp_path, DAYS, seed=6)
    days[0][0][1:4] = ["2147483647", "-2147483648", "-0"]
    days[0][0][14:16] = ["ffffffff", "FFFFFFFF"]
    (tmp_path / "day_0").write_bytes(raw_text.text(days[0]))
    made = prepare(preparation(tmp_path / "day", tmp_path / "x"))
    assert np.array_equal(read_rows(made.train), raw_text.prepare_slowly(days, -1).train)


def test_windows_line_ends_and_a_missing_last_line_end_are_accepted(tmp_path: Path) -> None:
    days = raw_text.write_days(tmp_path, DAYS, seed=7)
    (tmp_path / "day_1").write_bytes(raw_text.text(days[1], "\r\n"))
    (tmp_path / "day_2").write_bytes(raw_text.text(days[2]).removesuffix(b"\n"))
    (tmp_path / "day_23").write_bytes(raw_text.text(days[23], "\r\n").removesuffix(b"\r\n"))
    made = prepare(preparation(tmp_path / "day", tmp_path / "x"))
    expected = raw_text.prepare_slowly(days, -1)
    assert np.array_equal(read_rows(made.train), expected.train)
    assert np.array_equal(read_rows(made.val), expected.val)


def test_last_row_may_end_with_an_empty_id_without_newline(tmp_path: Path) -> None:
    days = raw_text.write_days(tmp_path, DAYS, seed=7)
    days[23][-1][39] = ""
    (tmp_path / "day_23").write_bytes(raw_text.text(days[23]).removesuffix(b"\n"))
    made = prepare(preparation(tmp_path / "day", tmp_path / "x"))
    assert np.array_equal(read_rows(made.val), raw_text.prepare_slowly(days, -1).val)


@pytest.mark.parametrize("breaking", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_missing_or_empty_day_is_named(breaking, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    raw_text.write_days(tmp_path, DAYS, seed=7)
    breaking(tmp_path / "day_17")
    run = run_program(
        *("--data-set=terabyte", f"--raw-data-file={tmp_path}/day", f"--processed-data-file={tmp_path}/x"),
        program="tools/prepare_criteo.py",
        cwd=tmp_path,
    )
    assert run.status == 1
    assert f"{tmp_path}/day_17: " in run.stderr
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--raw-data-file=.",), "--raw-data-file: '.' names a folder"),
        (("--processed-data-file=/",), "--processed-data-file: '/' names a folder"),
        (("--max-bad-rows=0.1",), "--max-bad-rows=0.1 requires --bad-rows=skip"),
        (("--bad-rows=skip", "--max-bad-rows=2"), "--max-bad-rows: 2 is not a number in [0, 1]"),
    ],
)
def test_usage_error_is_reported_in_one_line_with_status_2(
    wrong: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    flags = ("--data-set=terabyte", "--raw-data-file=day", "--processed-data-file=x")
    run = run_program(*flags, *wrong, program="tools/prepare_criteo.py", cwd=tmp_path)
    assert run.status == 2
    assert run.stderr.startswith(f"prepare_criteo.py: error: {said}")
    assert len(run.stderr.splitlines()) == 1
