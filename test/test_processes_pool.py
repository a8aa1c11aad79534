"""The processes on which tests run: results by rank, failures with their traceback, an end to those that hang."""

from __future__ import annotations

import os
import time

import pytest
import torch
from processes import RankError, RankPool, in_processes, launched, needs_torchrec, with_ranks

from mlperf.distributed.processes import current
from mlperf.distributed.reductions import sum_over_processes

pytestmark = [in_processes, needs_torchrec]


def sum_of_ranks(factor: int) -> tuple[int, int, float]:
    mine = torch.tensor([float(current().rank * factor)])
    return current().rank, current().size, float(sum_over_processes(mine))


def variables(*names: str) -> list[str]:
    return [os.environ[name] for name in names]


def fail_on(rank: int) -> None:
    if int(os.environ["RANK"]) == rank:
        print("said before")
        raise ValueError("no such thing")
    time.sleep(60)


def end_on(rank: int) -> None:
    if int(os.environ["RANK"]) == rank:
        os._exit(3)


def sleep_on(rank: int) -> None:
    if int(os.environ["RANK"]) == rank:
        time.sleep(60)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_results_come_by_rank(size: int) -> None:
    total = 2 * sum(range(size))
    assert with_ranks(size, sum_of_ranks, factor=2) == [(rank, size, total) for rank in range(size)]


def test_processes_without_a_group_have_the_variables_of_a_launcher() -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    assert launched(2, variables, *names) == [["0", "0", "2", "2"], ["1", "1", "2", "2"]]


def test_exception_of_a_rank_fails_the_test_with_its_traceback() -> None:
    with pytest.raises(RankError) as raised:
        launched(3, fail_on, rank=1)
    assert str(raised.value).startswith("rank 1 of 3 failed\nsaid before\nTraceback")
    assert "in fail_on" in str(raised.value)
    assert raised.value.rank == 1
    assert isinstance(raised.value.error, ValueError)
    assert with_ranks(2, sum_of_ranks, factor=1) == [(0, 2, 1), (1, 2, 1)]


def test_rank_that_ends_fails_the_test() -> None:
    with pytest.raises(RankError, match="rank 1 of 2 failed\nthe process ended with status 3"):
        launched(2, end_on, rank=1)


def test_case_that_hangs_ends_with_the_stacks_of_its_ranks() -> None:
    pool = RankPool(limit=1)
    with pytest.raises(RankError, match="rank 1 of 2 did not end within 1 s") as raised:
        pool.run(2, sleep_on, (1,), {})
    assert "in sleep_on" in str(raised.value)
    assert pool.run(2, sleep_on, (5,), {}) == [None, None]
    pool.stop()
