"""Runs of the program on several processes, compared with those of one process and another engine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import pytest
from processes import launched
from program import Finished, run_program

# A model that trains in a second. Some of its tables have fewer rows than there are processes.
MODEL = (
    *("--arch-sparse-feature-size=16", "--arch-mlp-bot=13-32-16", "--arch-mlp-top=32-16-1", "--print-freq=1"),
    *("--data-generation=dataset", "--data-set=terabyte", "--mlperf-bin-loader", "--max-ind-range=40000000"),
)
TRAIN = (
    "--mini-batch-size=128",
    "--num-batches=8",
    "--test-mini-batch-size=60",
    "--test-freq=4",
    "--mlperf-logging",
)
DCN = (
    *("--arch-interaction-op=dcn", "--dcn-num-layers=2", "--dcn-low-rank-dim=8", "--loss-function=bce_logits"),
    *("--mlp-init=pytorch", "--optimizer=adagrad", "--adagrad-epsilon=1e-5", "--learning-rate=0.01"),
)
# Training is chaotic with larger rates: rounding errors grow.
RATES = {"sgd": 0.1, "adagrad": 0.01, "rwsadagrad": 0.01}


def run_here(flags: Sequence[str]) -> Finished:
    """Run the program in this process, and return what it printed. AssertionError if it failed."""
    with tempfile.TemporaryDirectory() as folder:
        run = run_program(*flags, cwd=Path(folder))
    assert run.status == 0, run.stderr
    return run


def run_on(size: int, flags: Sequence[str]) -> Finished:
    """Run the program on `size` processes, and return what rank 0 printed. The others print no results."""
    first, *others = launched(size, run_here, flags)
    assert [other.stdout for other in others] == [""] * (size - 1)
    finished: Finished = first
    return finished


@cache
def run_alone(*flags: str) -> Finished:
    """Run the program on one process, once in a session for the same flags."""
    return run_on(1, flags)


def assert_equal_runs(
    sizes: Iterable[int], *runs: Sequence[str], engine: str = "auto", tolerance: float = 1e-5
) -> list[list[float]]:
    """Compare the runs on one process with `engine` with those of torchrec on as many processes as `sizes`.

    Returns the losses of one process in each run.
    """
    losses = []
    for flags in runs:
        unsharded = [flag for flag in flags if not flag.startswith("--sharding")]
        expected = run_alone(*unsharded, f"--engine={engine}")
        assert len(expected.losses) > 2
        losses.append(expected.losses)
        for size in sizes:
            run = run_on(size, [*flags, "--engine=torchrec"])
            where = f"{size} processes: {' '.join(flags)}"
            assert run.losses == pytest.approx(expected.losses, abs=tolerance), where
            assert run.metric_lines == expected.metric_lines, where
    return losses
