"""Training rows in random order."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import raw_text
from preparations import DAYS, preparation, read_rows

from mlperf.data.prepare.pipeline import prepare
from mlperf.data.prepare.shuffle import BucketPermuter, SpillFile
from mlperf.data.schema import CRITEO


def counted(rows: npt.NDArray[np.int32]) -> Counter[bytes]:
    return Counter(row.tobytes() for row in rows)


@pytest.mark.parametrize("randomize", ["total", "day"])
def test_randomized_rows_are_the_same_rows_in_another_order(randomize: str, tmp_path: Path) -> None:
    days = raw_text.write_days(tmp_path, [200, *([30] * 23)], seed=2)
    expected = raw_text.prepare_slowly(days, -1)
    made = prepare(preparation(tmp_path / "day", tmp_path / "x", randomize=randomize))
    found = read_rows(made.train)
    assert counted(found) == counted(expected.train)
    assert not np.array_equal(found, expected.train)
    assert np.array_equal(read_rows(made.test), expected.test)
    if randomize == "day":
        assert counted(found[:200]) == counted(expected.train[:200])
        assert counted(found[200:230]) == counted(expected.train[200:230])
    else:
        assert counted(found[:200]) != counted(expected.train[:200])


def shuffled(folder: Path, groups: Sequence[int], buckets: Sequence[int], seed: int) -> list[int]:
    """Return the order in which consecutive groups of rows come out of the shuffle."""
    rows = np.zeros((sum(groups), CRITEO.columns), np.int32)
    rows[:, 0] = range(len(rows))
    spill = SpillFile(folder / "spill", buckets, seed)
    for group, part in enumerate(np.split(rows, np.cumsum(groups)[:-1])):
        spill.append(part, group)
    spill.flush()
    spill.close()
    permuter = BucketPermuter(folder / "spill", folder / "x.bin", buckets, seed, None)
    permuter.write(permuter.remaining(), threads=1)
    permuter.close()
    return [int(number) for number in read_rows(folder / "x.bin")[:, 0]]


@pytest.mark.parametrize("buckets", [1, 8])
def test_every_row_can_end_at_every_position_with_the_same_probability(buckets: int, tmp_path: Path) -> None:
    """A chi-squared test of row against position, to five standard deviations."""
    size, trials = 46, 600
    counts = np.zeros((size, size))
    for seed in range(trials):
        counts[shuffled(tmp_path, [size], [buckets], seed), range(size)] += 1
    assert_uniform(counts, trials / size)


@pytest.mark.parametrize("buckets", [1, 4])
def test_every_row_can_end_at_every_position_of_its_group_with_the_same_probability(
    buckets: int, tmp_path: Path
) -> None:
    size, trials = 20, 400
    counts = np.zeros((size, size))
    for seed in range(trials):
        order = shuffled(tmp_path, [7, size, 5], [2, buckets, 1], seed)
        assert set(order[:7]) == set(range(7))
        counts[np.array(order[7 : 7 + size]) - 7, range(size)] += 1
    assert_uniform(counts, trials / size)


def assert_uniform(counts: npt.NDArray[np.float64], expected: float) -> None:
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    freedom = (len(counts) - 1) ** 2
    assert abs(chi_squared - freedom) < 5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("randomize", ["total", "day"])
def test_same_seed_gives_the_same_file_on_any_number_of_cores_and_another_seed_another_file(
    randomize: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlperf.data.prepare.shuffle.SMALL_BUCKET_BYTES", 3000)
    monkeypatch.setattr("mlperf.data.text.blocks.BLOCK_BYTES", 3000)
    raw_text.write_days(tmp_path, DAYS, seed=4)
    made = []
    for name, seed, cores in (("a", 1, 2), ("b", 1, 1), ("c", 1, 7), ("d", 1, 64), ("e", 2, 2)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores))  # noqa: B023
        where = preparation(tmp_path / "day", tmp_path / name, randomize=randomize, seed=seed)
        made.append(prepare(where).train.read_bytes())
    assert made[0] == made[1] == made[2] == made[3] != made[4]
