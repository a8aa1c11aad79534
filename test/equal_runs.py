"""Runs of the program on several processes, compared with those of one process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from processes import launched
from program import Finished, run_program

# Each kind of table that may be sharded: fewer rows than processes, and more.
Flags = Sequence[str]


def run_all(runs: Sequence[Flags]) -> list[Finished]:
    """Run the program with each of the flags, in this process, and return what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        return [run_program(*flags, cwd=Path(folder)) for flags in runs]


def run_on(size: int, runs: Sequence[Flags]) -> list[Finished]:
    """Run the program on `size` processes with each of the flags, and return what rank 0 printed."""
    by_rank = launched(size, run_all, runs)
    for rank, finished in enumerate(by_rank):
        for flags, run in zip(runs, finished, strict=True):
            assert run.status == 0, f"rank {rank}: {run.stderr}"
            assert rank == 0 or run.stdout == ""
    first: list[Finished] = by_rank[0]
    return first


def assert_equal_runs(sizes: Iterable[int], runs: Sequence[Flags], engine: str = "auto") -> None:
    """Compare losses and metrics of runs on one process, with `engine`, with those of torchrec.

    sizes: numbers of processes; one uses torchrec too.
    """
    expected = launched(1, run_all, [[*flags, f"--engine={engine}"] for flags in runs])[0]
    for size in sizes:
        for flags, run, other in zip(
            runs, run_on(size, [[*flags, "--engine=torchrec"] for flags in runs]), expected, strict=True
        ):
            assert other.status == 0, other.stderr
            assert len(other.losses) > 2
            what = f"{size} processes: {' '.join(flags)}"
            assert run.losses == pytest.approx(other.losses, abs=1e-5), what
            assert run.metric_lines == other.metric_lines, what
