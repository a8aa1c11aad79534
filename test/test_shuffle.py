"""Training rows in random order."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import raw_text

from mlperf.data.criteo.prepare.pipeline import prepare
from mlperf.data.criteo.prepare.plan import PreparationSettings

DAYS = [11, 3, 2, 7, *([5] * 19), 9]


def read(path: Path) -> npt.NDArray[np.int32]:
    return np.fromfile(path, "<i4").reshape(-1, 40)


def settings(raw: Path, place: Path, **flags: object) -> PreparationSettings:
    chosen = {"data_set": "terabyte", "randomize": "none", **flags}
    return PreparationSettings(raw_data_file=raw, processed_data_file=place, **chosen)  # type: ignore[arg-type]


def keyed(rows: npt.NDArray[np.int32]) -> Counter[bytes]:
    return Counter(row.tobytes() for row in rows)


@pytest.mark.parametrize("randomize", ["total", "day"])
def test_randomized_rows_are_the_same_rows_in_another_order(randomize: str, tmp_path: Path) -> None:
    days = raw_text.write_days(tmp_path, [200, *([30] * 23)], seed=2)
    expected = raw_text.prepare_slowly(days, -1)
    made = prepare(settings(tmp_path / "day", tmp_path / "x", randomize=randomize))
    found = read(made.train)
    assert keyed(found) == keyed(expected.train)
    assert not np.array_equal(found, expected.train)
    assert np.array_equal(read(made.test), expected.test)
    if randomize == "day":
        assert keyed(found[:200]) == keyed(expected.train[:200])
        assert keyed(found[200:230]) == keyed(expected.train[200:230])
    else:
        assert keyed(found[:200]) != keyed(expected.train[:200])


@pytest.mark.parametrize("bucket_bytes", [1000, 8 << 20])
def test_total_shuffle_puts_every_row_anywhere(
    bucket_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chi-squared test of row against position, to five standard deviations, in one bucket and in eight."""
    monkeypatch.setattr("mlperf.data.criteo.prepare.shuffle._SMALL_BUCKET_BYTES", bucket_bytes)
    raw_text.write_days(tmp_path, [2] * 24, seed=2)
    first = settings(tmp_path / "day", tmp_path / "plain")
    rows = [row.tobytes() for row in read(prepare(first).train)]
    position = np.zeros((len(rows), len(rows)))
    trials = 400
    for seed in range(trials):
        made = prepare(settings(tmp_path / "day", tmp_path / "x", randomize="total", seed=seed))
        for at, row in enumerate(read(made.train)):
            position[rows.index(row.tobytes()), at] += 1
    expected = trials / len(rows)
    chi_squared = ((position - expected) ** 2 / expected).sum()
    freedom = (len(rows) - 1) ** 2
    assert abs(chi_squared - freedom) < 5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("bucket_bytes", [1000, 8 << 20])
def test_day_shuffle_puts_every_row_anywhere_in_its_day(
    bucket_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, in four buckets for the first day and in one."""
    monkeypatch.setattr("mlperf.data.criteo.prepare.shuffle._SMALL_BUCKET_BYTES", bucket_bytes)
    raw_text.write_days(tmp_path, [20, *([2] * 23)], seed=2)
    rows = [row.tobytes() for row in read(prepare(settings(tmp_path / "day", tmp_path / "plain")).train)]
    position = np.zeros((20, 20))
    trials = 200
    for seed in range(trials):
        made = read(prepare(settings(tmp_path / "day", tmp_path / "x", randomize="day", seed=seed)).train)
        for at, row in enumerate(made[:20]):
            position[rows.index(row.tobytes()), at] += 1
    expected = trials / 20
    chi_squared = ((position - expected) ** 2 / expected).sum()
    assert abs(chi_squared - 19**2) < 5 * np.sqrt(2 * 19**2)


@pytest.mark.parametrize("randomize", ["total", "day"])
def test_same_seed_gives_the_same_file_on_any_number_of_cores_and_another_seed_another(
    randomize: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlperf.data.criteo.prepare.shuffle._SMALL_BUCKET_BYTES", 3000)
    monkeypatch.setattr("mlperf.data.criteo.prepare.text_blocks.BLOCK_BYTES", 3000)
    raw_text.write_days(tmp_path, DAYS, seed=4)
    made = []
    for name, seed, cores in (("a", 1, 2), ("b", 1, 1), ("c", 1, 7), ("d", 1, 64), ("e", 2, 2)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores))  # noqa: B023
        where = settings(tmp_path / "day", tmp_path / name, randomize=randomize, seed=seed)
        made.append(prepare(where).train.read_bytes())
    assert made[0] == made[1] == made[2] == made[3] != made[4]
