"""Tables that are divided by node, or as a file says, compute the same as one process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from equal_runs import MODEL, run_alone, run_here
from processes import in_processes, launched, needs_torchrec
from program import Finished

pytestmark = [in_processes, needs_torchrec]

FLAGS = (*MODEL, "--loss-function=bce", "--mini-batch-size=128", "--num-batches=6", "--learning-rate=0.01")


def run_on_two_nodes(flags: Sequence[str]) -> Finished:
    """Run the program as one of four processes of which two are on each node."""
    rank = int(os.environ["RANK"])
    os.environ |= {"LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": str(rank % 2), "GROUP_RANK": str(rank // 2)}
    return run_here(flags)


def compare(runs: Sequence[Finished], alone: Finished, kind: str) -> None:
    first, *others = runs
    assert first.losses == pytest.approx(alone.losses, abs=1e-5)
    assert len(first.losses) == 6
    assert f"  {kind}  " in first.stderr
    for run in runs:
        assert "arning" not in run.stderr
        assert "[Connection]" not in run.stderr
    for run in others:
        assert run.stdout == ""
        assert "MB of each rank" not in run.stderr


@pytest.mark.parametrize(
    ("kind", "optimizer"),
    [("grid", "adagrad"), ("table-row-wise", "rwsadagrad"), ("table-row-wise", "sgd")],
)
def test_two_nodes_compute_the_losses_of_one_process(kind: str, optimizer: str, terabyte: Path) -> None:
    flags = [*FLAGS, f"--processed-data-file={terabyte}", f"--optimizer={optimizer}"]
    compare(launched(4, run_on_two_nodes, [*flags, f"--sharding={kind}"]), run_alone(*flags), kind)


def test_file_of_constraints_is_followed_by_two_processes(terabyte: Path, tmp_path: Path) -> None:
    path = tmp_path / "constraints.json"
    path.write_text('{"0": "row-wise", "all": "table-wise"}')
    flags = [*FLAGS, f"--processed-data-file={terabyte}"]
    runs = launched(2, run_here, [*flags, f"--sharding-constraints={path}"])
    compare(runs, run_alone(*flags), "row-wise")
    assert runs[0].stderr.count("  row-wise  ") == 1
