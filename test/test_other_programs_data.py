"""Rows prepared by other tools, and archives written for them."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import raw_text
from easy_data import write_easy_data
from preparations import preparation, read_rows
from program import GOLDEN, golden_flags, run_program

from mlperf.data.prepare.open_prepared import open_prepared
from mlperf.data.prepare.pipeline import prepare
from mlperf.util.errors import RunError

KAGGLE = GOLDEN / "kaggle" / "kaggleAdDisplayChallenge_processed.npz"
DAYS = [9, 3, 2, 7, *([5] * 19), 8]


def test_kaggle_archive_is_used_without_the_text(kaggle: Path, tmp_path: Path) -> None:
    shutil.copy(KAGGLE, tmp_path / "x.npz")
    made = open_prepared(tmp_path / "x.npz")
    assert made is not None
    for split in ("train", "test", "val"):
        assert getattr(made, split).read_bytes() == Path(f"{kaggle}_{split}.bin").read_bytes()
    with np.load(KAGGLE) as golden:
        assert list(made.counts) == golden["counts"].tolist()
    before = made.train.stat().st_mtime_ns
    again = prepare(preparation(tmp_path / "train.txt", tmp_path / "x", data_set="kaggle"))
    assert again.train.stat().st_mtime_ns == before


@pytest.mark.parametrize("kind", [np.int64, np.float32, np.float64, np.uint32])
@pytest.mark.parametrize("compressed", [True, False])
def test_archive_may_contain_any_type_of_number(kind: type, compressed: bool, tmp_path: Path) -> None:
    save = np.savez_compressed if compressed else np.savez
    with np.load(KAGGLE) as golden:
        arrays = {name: golden[name].astype(kind) for name in ("X_int", "X_cat", "y")}
        save(tmp_path / "x.npz", counts=golden["counts"], **arrays)
        made = open_prepared(tmp_path / "x")
        assert made is not None
        rows = np.concatenate([read_rows(path) for path in (made.train, made.test, made.val)])
        assert np.array_equal(rows[:, 0], golden["y"])
        assert np.array_equal(rows[:, 1:14], golden["X_int"])
        assert np.array_equal(rows[:, 14:], golden["X_cat"])


def test_training_from_an_archive_gives_the_golden_losses(tmp_path: Path) -> None:
    shutil.copy(KAGGLE, tmp_path / "x.npz")
    flags = [flag for flag in golden_flags("kaggle_sgd", tmp_path / "x.npz") if "raw-data-file" not in flag]
    from_text = run_program(*golden_flags("kaggle_sgd", tmp_path / "y"), cwd=tmp_path)
    from_archive = run_program(*flags, cwd=tmp_path)
    assert from_archive.status == 0, from_archive.stderr
    assert from_archive.losses == from_text.losses


def test_own_manifest_takes_precedence_over_an_archive(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes(raw_text.text(raw_text.random_rows(40, seed=1)))
    made = prepare(preparation(tmp_path / "train.txt", tmp_path / "x", data_set="kaggle"))
    shutil.copy(KAGGLE, tmp_path / "x.npz")
    found = open_prepared(tmp_path / "x.npz")
    assert found == made


def test_changed_archive_is_imported_again(tmp_path: Path) -> None:
    shutil.copy(KAGGLE, tmp_path / "x.npz")
    first = open_prepared(tmp_path / "x")
    with np.load(KAGGLE) as golden:
        arrays = {name: golden[name][:700] for name in ("X_int", "X_cat", "y")}
        np.savez(tmp_path / "x.npz", counts=golden["counts"], **arrays)
    second = open_prepared(tmp_path / "x")
    assert first is not None
    assert second is not None
    assert (first.train_rows, second.train_rows) == (1286, 600)


def write_days(folder: Path) -> raw_text.Expected:
    days = raw_text.write_days(folder, DAYS, seed=3)
    expected = raw_text.prepare_slowly(days, -1)
    rows = np.concatenate([expected.train, expected.test, expected.val])
    for day, part in enumerate(np.split(rows, np.cumsum(DAYS)[:-1])):
        np.savez(folder / f"day_{day}_reordered.npz", X_int=part[:, 1:14], X_cat=part[:, 14:], y=part[:, 0])
        (folder / f"day_{day}").unlink()
    np.savez(folder / "day_fea_count.npz", counts=np.array(expected.counts))
    return expected


def test_reordered_days_are_imported_in_order(tmp_path: Path) -> None:
    expected = write_days(tmp_path)
    made = open_prepared(tmp_path / "x", raw_data_file=tmp_path / "day")
    assert made is not None
    assert list(made.counts) == expected.counts
    for path, rows in ((made.train, expected.train), (made.test, expected.test), (made.val, expected.val)):
        assert np.array_equal(read_rows(path), rows)


def test_missing_reordered_day_is_named(tmp_path: Path) -> None:
    write_days(tmp_path)
    (tmp_path / "day_7_reordered.npz").unlink()
    with pytest.raises(RunError, match=r"day_7_reordered\.npz: no such file"):
        open_prepared(tmp_path / "x", raw_data_file=tmp_path / "day")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("y", 2, "row 5, column 1: 2 is not a label"),
        ("X_int", 1.5, "row 5, column 4: 1.5 is not a whole number"),
        ("X_int", 2.0**31, "row 5, column 4"),
        ("X_int", np.nan, "row 5, column 4"),
        ("X_cat", -1, "row 5, column 17: -1 is not an index"),
        ("X_cat", 400, "row 5: index 400 is not in table 2"),
    ],
)
def test_wrong_value_in_an_archive_is_named(name: str, value: float, words: str, tmp_path: Path) -> None:
    with np.load(KAGGLE) as golden:
        arrays = {key: golden[key].astype(np.float64) for key in golden}
    if name == "y":
        arrays["y"][4] = value
    else:
        arrays[name][4, 2 + (name == "y")] = value
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(RunError) as caught:
        open_prepared(tmp_path / "x")
    assert words in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


@pytest.mark.parametrize("damage", ["cut", "no rows", "not an archive", "missing array", "shape", "flipped"])
def test_damaged_archive_is_refused_in_one_line(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with np.load(KAGGLE) as golden:
        arrays = {name: golden[name] for name in golden}
    if damage == "missing array":
        del arrays["X_cat"]
    elif damage == "shape":
        arrays["X_int"] = arrays["X_int"][:, :12]
    elif damage == "no rows":
        arrays = {name: array if name == "counts" else array[:0] for name, array in arrays.items()}
    np.savez_compressed(path, **arrays)
    if damage == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif damage == "not an archive":
        path.write_bytes(b"x" * 1000)
    elif damage == "flipped":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(RunError, match=r"x\.npz") as caught:
        open_prepared(tmp_path / "x")
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["x.npz"]


def test_kaggle_run_without_the_binary_loader_writes_the_golden_archive(tmp_path: Path) -> None:
    flags = (
        *("--data-generation=dataset", "--data-set=kaggle", f"--raw-data-file={GOLDEN / 'kaggle' / 'train.txt'}"),
        *("--data-randomize=none", "--arch-sparse-feature-size=2", "--arch-mlp-bot=13-2", "--arch-mlp-top=2-1"),
        *("--mini-batch-size=128", "--num-batches=1", "--loss-function=bce"),
    )
    run = run_program(*flags, "--processed-data-file=x.npz", cwd=tmp_path)
    assert run.status == 0, run.stderr
    with np.load(KAGGLE) as golden, np.load(tmp_path / "x.npz") as found:
        assert set(found) == set(golden)
        for name in golden:
            assert np.array_equal(found[name], golden[name])
    run_program(*flags, "--processed-data-file=y", "--mlperf-bin-loader", cwd=tmp_path)
    assert not (tmp_path / "y.npz").exists()


@pytest.mark.parametrize("compressed", [True, False])
def test_archive_with_changed_bytes_is_refused_in_one_line_or_has_the_same_rows(
    compressed: bool, tmp_path: Path
) -> None:
    with np.load(KAGGLE) as golden:
        arrays = {name: golden[name] if name == "counts" else golden[name][:40] for name in golden}
    (np.savez_compressed if compressed else np.savez)(tmp_path / "whole.npz", **arrays)
    expected = open_prepared(tmp_path / "whole")
    assert expected is not None
    content, draw, taken = (tmp_path / "whole.npz").read_bytes(), random.Random(1), 0
    for _ in range(120):
        damaged = bytearray(content)
        for _ in range(draw.choice([1, 1, 5])):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        (tmp_path / "x.npz").write_bytes(damaged[: draw.choice([None, None, draw.randrange(len(damaged))])])
        found, said = None, ""
        try:
            found = open_prepared(tmp_path / "x")
        except RunError as error:
            said = str(error)
        if found is None:  # counts that are not in the archive are looked for in their own file
            assert said.startswith((f"{tmp_path / 'x.npz'}: ", f"{tmp_path / 'day_fea_count.npz'}: "))
            assert "\n" not in said
        else:
            assert found.counts == expected.counts
            assert found.train.read_bytes() == expected.train.read_bytes()
            taken += 1
        for path in tmp_path.glob("x_*"):
            path.unlink()
        (tmp_path / "x.json").unlink(missing_ok=True)
    assert taken < 60


@pytest.mark.parametrize("content", [b"", b"PK", b"x" * 100, b"\x80\x04N.", "npy", "cut", "nan", "none", "few"])
def test_damaged_counts_of_another_tool_are_refused_in_one_line(content: bytes | str, tmp_path: Path) -> None:
    for path in (GOLDEN / "terabyte").glob("*.bin"):
        shutil.copy(path, tmp_path)
    counts = tmp_path / "day_fea_count.npz"
    if isinstance(content, bytes):
        counts.write_bytes(content)
    elif content == "npy":
        with counts.open("wb") as file:
            np.save(file, np.ones(26))
    elif content == "cut":
        counts.write_bytes((GOLDEN / "terabyte" / "day_fea_count.npz").read_bytes()[:-100])
    else:
        values = {"nan": np.full(26, np.nan), "none": np.array(3.0), "few": np.ones(25)}
        np.savez(counts, counts=values[content])
    with pytest.raises(
        RunError, match=r"day_fea_count\.npz: (cannot read counts per column|expected 26 counts)"
    ) as caught:
        open_prepared(tmp_path / "terabyte_processed")
    assert "\n" not in str(caught.value)


def test_validation_split_may_be_a_link_to_the_test_split(tmp_path: Path) -> None:
    prefix = write_easy_data(tmp_path)
    (tmp_path / "easy_val.bin").unlink()
    (tmp_path / "easy_val.bin").symlink_to("easy_test.bin")
    raw_text.write_days(tmp_path, DAYS, seed=1)
    prepared = prepare(preparation(tmp_path / "day", prefix))
    assert prepared.val_rows == prepared.test_rows == 512
    assert (tmp_path / "easy_val.bin").is_symlink()
