"""The files of the DLRM-DCNv2 reference, read in place."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference_folders import (
    FACTS,
    FOLDER,
    ONE_HOT,
    ROWS,
    SIZES,
    copy_folder,
    read_days,
    tables,
)

from mlperf.data.day_files import DayFiles
from mlperf.data.npy import open_archive
from mlperf.data.prepared.reference_files import ReferenceFiles
from mlperf.data.prepared.reference_paths import reference_prefix
from mlperf.util.errors import RunError

Change = Callable[[np.ndarray], np.ndarray]


def opened(folder: Path, split: str = "train", batch_size: int = 256, **settings: object) -> DayFiles:
    prefix = reference_prefix(folder)
    assert prefix is not None
    files = ReferenceFiles.read(prefix)
    return DayFiles(folder, files.open(split), batch_size, ROWS, **settings)  # type: ignore[arg-type]


def change_array(path: Path, change: Change) -> None:
    np.save(path, change(np.load(path)))


def put(row: int, column: int, value: float) -> Change:
    def change(array: np.ndarray) -> np.ndarray:
        array[row, column] = value
        return array

    return change


@pytest.mark.parametrize("batch_size", [1, 37, 256, 7000])
@pytest.mark.parametrize("readers", [1, 3])
def test_batches_are_the_rows_of_all_days_in_order(batch_size: int, readers: int) -> None:
    dense, ids, labels = read_days(*range(23))
    source = opened(ONE_HOT, batch_size=batch_size, readers=readers, limit=400 if batch_size == 1 else 0)
    rows = source.samples
    assert rows == (400 if batch_size == 1 else len(dense))
    batches, undecoded = list(source.batches(0)), list(source.raw_batches(0))
    assert [batch.size for batch in batches] == [min(batch_size, rows - n) for n in range(0, rows, batch_size)]
    assert np.array_equal(torch.cat([batch.dense for batch in batches]), dense[:rows])
    assert np.array_equal(torch.cat([batch.labels for batch in batches]), labels[:rows])
    assert np.array_equal(torch.cat([batch.indices for batch in batches], 1), (ids % np.array(ROWS)).T[:, :rows])
    whole = torch.cat([batch.rows for batch in undecoded]).numpy()
    assert np.array_equal(whole[:, 1:14].view(np.float32), dense[:rows])
    assert np.array_equal(whole[:, 14:], ids[:rows])  # the modulo is taken when they are decoded
    assert undecoded[-1].source.dense.is_float
    assert undecoded[-1].source.modulo_rows


def test_expanded_batches_are_those_of_the_reference(multi_hot: Path) -> None:
    expanded = opened(ONE_HOT, multi_hot=tables())
    stored = opened(multi_hot, readers=2)
    first = next(iter(expanded.batches(0)))
    checksum = hashlib.sha256(first.indices.numpy().astype("<i4").tobytes()).hexdigest()
    assert checksum == FACTS["multi_hot"]["first_256_rows"]["sha256"]
    for seed, size, limit in ((None, 256, 0), (3, 500, 0), (None, 10_000, 0), (5, 11, 30)):
        settings = {"shuffle_seed": seed, "batch_size": size, "limit": limit}
        sized = [replace(source, **settings) for source in (expanded, stored)]  # type: ignore[arg-type]
        for batch, other in zip(*(source.batches(1) for source in sized), strict=True):
            assert torch.equal(batch.indices, other.indices)
            assert torch.equal(batch.dense, other.dense)
            assert batch.ids_per_table == other.ids_per_table == SIZES
            assert batch.offsets is not None
            starts = np.cumsum([0, *np.repeat(SIZES, batch.size)])[:-1]
            assert np.array_equal(batch.offsets, starts.reshape(26, -1))
        for batch, raw, other in zip(
            sized[0].batches(1), *(source.raw_batches(1) for source in sized), strict=True
        ):
            assert raw.ids is not None
            assert other.ids is not None
            assert raw.ids.dtype == torch.int32
            assert torch.equal(raw.ids.long(), batch.indices)
            assert torch.equal(raw.ids, other.ids)


def test_reference_archives_are_read_as_they_are() -> None:
    """Their values are not aligned: np.savez writes them so."""
    arrays = open_archive(FOLDER / "multihot" / "day_23_sparse_multi_hot.npz")
    expected = np.load(FOLDER / "multihot" / "day_23_sparse_multi_hot.npz")
    for table in range(26):
        values = np.empty((100, SIZES[table]), np.int32)
        arrays[f"{table}.npy"].read(values, 17)
        assert np.array_equal(values, expected[f"{table}"][17:117])


@pytest.mark.parametrize("name", ["onehot", "onehot/day"])
def test_last_day_is_divided_into_test_and_val(name: str, multi_hot: Path) -> None:
    dense, ids, _ = read_days(23)
    half = (len(dense) + 1) // 2
    for split, part in (("test", slice(0, half)), ("val", slice(half, None))):
        (batch,) = opened(FOLDER / name, split, 1000).batches(0)
        assert np.array_equal(batch.dense, dense[part])
        assert np.array_equal(batch.indices, (ids % np.array(ROWS)).T[:, part])
        (other,) = opened(multi_hot, split, 1000).batches(0)
        assert np.array_equal(other.dense, dense[part])
        assert np.array_equal(other.indices, tables().expand(ids[part]))


def test_ids_of_64_bits_are_read(tmp_path: Path) -> None:
    folder = copy_folder(tmp_path / "x")
    change_array(folder / "day_3_sparse.npy", lambda ids: ids.astype(np.int64))
    for batch, other in zip(opened(folder).batches(0), opened(ONE_HOT).batches(0), strict=True):
        assert torch.equal(batch.indices, other.indices)


@pytest.mark.parametrize(
    ("part", "change", "problem"),
    [
        (
            "dense",
            lambda a: a.astype(np.float64),
            r"is an array of float64 with shape \(\d+, 13\); expected float32",
        ),
        ("dense", lambda a: a.astype(">f4"), "is an array of big-endian float32"),
        ("dense", np.asfortranarray, "is in Fortran order; expected C order"),
        ("dense", lambda a: a[:, :12], r"with shape \(\d+, 12\); expected float32 and shape \(N, 13\)"),
        ("dense", lambda a: a[:-1], r"has \d+ rows, day_3_dense\.npy has \d+"),
        ("labels", lambda a: a[:, 0], r"with shape \(\d+,\); expected int32 and shape \(N, 1\)"),
        ("labels", lambda a: a.astype(np.int64), "is an array of int64"),
        ("sparse", lambda a: a[:-2], r"has \d+ rows, day_3_dense\.npy has \d+"),
        ("sparse", lambda a: a.astype(np.uint32), "is an array of uint32.*; expected int32 or int64"),
        ("sparse", lambda a: np.array([None] * 3), "cannot read an array: .* expected numbers"),
    ],
)
def test_array_of_another_form_is_named(part: str, change: Change, problem: str, tmp_path: Path) -> None:
    folder = copy_folder(tmp_path / "x")
    change_array(folder / f"day_3_{part}.npy", change)
    with pytest.raises(RunError, match=rf"day_3_\w+\.npy.*{problem}") as caught:
        opened(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("day", [0, 7, 23])
@pytest.mark.parametrize("part", ["dense", "labels", "sparse"])
def test_missing_or_cut_file_is_named(day: int, part: str, tmp_path: Path) -> None:
    folder = copy_folder(tmp_path / "x")
    path = folder / f"day_{day}_{part}.npy"
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(RunError, match=rf"day_{day}_{part}\.npy: cannot read an array: the array has \d+ bytes"):
        opened(folder)
    os.truncate(path, 20)
    with pytest.raises(RunError, match=rf"day_{day}_{part}\.npy: cannot read an array"):
        opened(folder)
    path.unlink()
    missing = "sparse_multi_hot.npz" if (day, part) == (0, "sparse") else f"{part}.npy"
    with pytest.raises(RunError, match=rf"day_{day}_{missing}: cannot be read: No such file"):
        opened(folder)


@pytest.mark.parametrize(
    ("part", "change", "problem"),
    [
        ("dense", put(5, 2, np.nan), "row 6, column 3: nan is not a finite number"),
        ("dense", put(5, 12, -np.inf), "row 6, column 13: -inf is not a finite number"),
        ("sparse", put(9, 25, -1), "row 10, column 26: id -1 is not from 0 to 2147483647"),
        ("labels", put(0, 0, 2), "row 1, column 1: label 2 is not 0 or 1"),
    ],
)
@pytest.mark.parametrize("day", [0, 4, 23])
def test_invalid_value_is_named(day: int, part: str, change: Change, problem: str, tmp_path: Path) -> None:
    folder = copy_folder(tmp_path / "x")
    change_array(folder / f"day_{day}_{part}.npy", change)
    split = "test" if day == 23 else "train"
    for source in (opened(folder, split), opened(folder, split, 3, multi_hot=tables(), shuffle_seed=1)):
        with pytest.raises(RunError, match=rf"day_{day}_{part}\.npy: {problem}"):
            list(source.batches(0))
        if part != "labels":  # those are checked on the device
            with pytest.raises(RunError, match=rf"day_{day}_{part}\.npy: {problem}"):
                list(source.raw_batches(0))


def test_id_of_64_bits_that_does_not_fit_is_named(tmp_path: Path) -> None:
    folder = copy_folder(tmp_path / "x")
    change_array(folder / "day_23_sparse.npy", lambda ids: put(200, 4, 2**32)(ids.astype(np.int64)))
    with pytest.raises(RunError, match=r"day_23_sparse\.npy: row 201, column 5: id 4294967296 is not from 0"):
        list(opened(folder, "val").batches(0))


@pytest.mark.parametrize("day", [0, 23])
def test_several_ids_outside_their_table_are_named(day: int, multi_hot: Path, tmp_path: Path) -> None:
    source = opened(multi_hot, "val" if day == 23 else "train", 7)
    small = replace(source, rows_per_table=(*ROWS[:20], 3, *ROWS[21:]))
    for batches in (small.batches(0), small.raw_batches(0)):
        with pytest.raises(
            RunError,
            match=rf"day_{day}_sparse_multi_hot\.npz: 20\.npy: row \d+, column \d+: index \d+ is not in table 20, "
            "which has 3 rows",
        ):
            list(batches)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda arrays: arrays.pop("7"), "lacks 7.npy"),
        (lambda arrays: arrays.update(more=arrays["0"]), "also contains more.npy"),
        (lambda arrays: arrays.update({"7": arrays["7"][:-1]}), r"7\.npy: has \d+ rows, day_2_dense"),
        (lambda arrays: arrays.update({"7": arrays["8"].astype(np.int64)}), r"7\.npy: is an array of int64"),
        (lambda arrays: arrays.update({"0": arrays["1"]}), "has 2-2-1-2-6.* ids per table, day 0 has 3-2-1-2-6"),
    ],
)
def test_archive_of_another_form_is_named(
    change: Callable[[dict[str, np.ndarray]], object], problem: str, multi_hot: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    for path in multi_hot.iterdir():
        (folder / path.name).hardlink_to(path)
    path = folder / "day_2_sparse_multi_hot.npz"
    arrays: dict[str, Any] = dict(np.load(path))
    change(arrays)
    path.unlink()
    np.savez(path, **arrays)
    with pytest.raises(RunError, match=rf"day_2_sparse_multi_hot\.npz.*{problem}"):
        opened(folder)
    path.unlink()
    np.savez_compressed(path, **arrays)
    with pytest.raises(RunError, match=r"day_2_sparse_multi_hot\.npz: .*compressed"):
        opened(folder)


@pytest.mark.parametrize(("empty", "where"), [(range(23), "days 0 to 22"), ([23], "day 23")])
def test_folder_without_rows_to_train_or_to_evaluate_on_is_refused(
    empty: Sequence[int], where: str, tmp_path: Path
) -> None:
    folder = copy_folder(tmp_path / "copy")
    for day in empty:
        for path in folder.glob(f"day_{day}_*.npy"):
            np.save(path, np.load(path)[:0])
    with pytest.raises(RunError, match=f"copy: there are no rows in {where}"):
        ReferenceFiles.read(folder / "day")


@pytest.mark.parametrize("part", ["dense", "labels", "sparse"])
def test_file_that_changes_is_noticed(part: str, tmp_path: Path) -> None:
    folder = copy_folder(tmp_path / "x")
    files = ReferenceFiles.read(folder / "day")
    source = DayFiles(folder, files.open("train"), 256, ROWS)
    batches = source.batches(0)
    next(batches)
    path = folder / f"day_9_{part}.npy"
    os.truncate(path, path.stat().st_size + 4)
    with pytest.raises(RunError, match=rf"day_9_{part}\.npy: changed while it was read"):
        list(source.batches(0))
    with pytest.raises(RunError, match=rf"day_9_{part}\.npy: changed before it was opened"):
        files.open("train")
    files.open("test")


def test_rows_that_one_of_many_parts_has_not_are_not_needed(tmp_path: Path) -> None:
    """A day without rows, as after filtering, is no reason to stop."""
    folder = copy_folder(tmp_path / "x")
    for part in ("dense", "labels", "sparse"):
        change_array(folder / f"day_1_{part}.npy", lambda array: array[:0])
    days = [day for day in range(23) if day != 1]
    indices = torch.cat([batch.indices for batch in opened(folder).batches(0)], 1)
    assert np.array_equal(indices, (read_days(*days)[1] % np.array(ROWS)).T)
