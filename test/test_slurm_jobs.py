"""The job scripts for Slurm, with programs in place of Slurm's and of the trainer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from program import ROOT
from timed_runs import arguments, write_python

JOBS = {1: "mlperf/systems/slurm_1_node.sub", 8: "mlperf/systems/slurm_8_nodes.sub"}
CONFIGS = {"dlrm": {1: "gpu_55296", 8: "gpu_71680"}, "dlrm_dcnv2": {1: "gpu_55296", 8: "gpu_135168"}}
SCONTROL = '#!/bin/sh\n[ "$*" = "show hostnames a[7-8]" ] && printf "a7\\na8\\n"\n'
# Runs the command once for each node, as Slurm does, one after the other.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do
    echo "option: $1"
    shift
done
status=0
for node in 0 1; do
    export SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 SLURM_NTASKS=2 SLURM_LOCALID=0
    export SLURM_PROCID=$node SLURM_NODEID=$node
    "$@" || status=$?
done
exit "$status"
"""


def submit(
    job: str, *flags: str, path: str = "/usr/bin:/bin", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a job script as the first node does."""
    return subprocess.run(
        ["bash", job, *flags],
        cwd=ROOT,
        env={"PATH": path, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("nodes", JOBS)
@pytest.mark.parametrize("benchmark", CONFIGS)
def test_dry_run_prints_the_command_of_each_node(nodes: int, benchmark: str) -> None:
    subprocess.run(["bash", "-n", JOBS[nodes]], cwd=ROOT, check=True)
    done = submit(JOBS[nodes], "--use-gpu", DRYRUN="1", BENCHMARK=benchmark)
    assert (done.returncode, done.stderr) == (0, "")
    config = CONFIGS[benchmark][nodes]
    assert (ROOT / "mlperf" / "systems" / benchmark / f"config_{config}.sh").is_file()
    lines = done.stdout.splitlines()
    assert len(lines) == nodes
    (seed,) = {word for line in lines for word in line.split() if word.startswith("SEED=")}
    for node, line in enumerate(lines):
        assert line == (
            f"node{node}: BENCHMARK={benchmark} CONFIG={config} {seed} NPROC=8 NNODES={nodes} NODE_RANK={node} "
            "MASTER_ADDR=node0 MASTER_PORT=15000 ./run_and_time.sh --use-gpu"
        )


def test_dry_run_prints_the_data_and_the_folder_of_the_logs() -> None:
    done = submit(JOBS[1], DRYRUN="1", DATADIR="/data of criteo", LOGDIR="/logs", EDITION="2.0.0")
    assert done.stdout.startswith("node0: DATADIR=/data\\ of\\ criteo LOGDIR=/logs EDITION=2.0.0 BENCHMARK=dlrm ")


@pytest.mark.parametrize("nodes", JOBS)
def test_job_outside_the_checkout_is_refused_in_one_line(nodes: int, tmp_path: Path) -> None:
    command = ["bash", str(ROOT / JOBS[nodes])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    job = Path(JOBS[nodes]).name
    assert done.stderr == f"{job}: error: {tmp_path}: is not the checkout, in which the job must be submitted\n"


@pytest.mark.parametrize("nodes", JOBS)
def test_nodes_and_tasks_are_those_of_the_name(nodes: int) -> None:
    lines = (ROOT / JOBS[nodes]).read_text().splitlines()
    assert {f"#SBATCH --nodes={nodes}", "#SBATCH --ntasks-per-node=1", "#SBATCH --gpus-per-node=8"} <= set(lines)


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a job on two nodes."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "x_train.bin").touch()
    slurm = {"SLURM_JOB_ID": "1234567", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "a[7-8]"}
    slurm |= {"SLURM_GPUS_ON_NODE": "4", "SLURM_CPUS_ON_NODE": "96", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}
    own = {"DLRM_PYTHON": write_python(tmp_path), "DATADIR": str(tmp_path), "LOGDIR": str(tmp_path / "logs")}
    return {**slurm, **own, "CONFIG": "sample", "DROP_CACHES": "false", "path": f"{tmp_path}:{os.defpath}"}


def test_job_starts_the_benchmark_once_on_each_of_its_nodes(job: dict[str, str], tmp_path: Path) -> None:
    done = submit(JOBS[8], "--precision=tf32", "--use-gpu", **job)
    assert done.returncode == 3, done.stderr
    assert "option: --cpus-per-task=96" in done.stdout
    words = arguments(done.stdout)
    torchrun = ["--nproc-per-node=4", "--nnodes=2", "--master-addr=a7", f"--master-port={15000 + 4567}"]
    assert all(words.count(word) == 2 for word in (*torchrun, "--use-gpu"))
    assert [word for word in words if word.startswith("--node-rank")] == ["--node-rank=0", "--node-rank=1"]
    (seed,) = {word for word in words if word.startswith("--numpy-rand-seed")}
    (console,) = (tmp_path / "logs").iterdir()
    assert console.name.endswith(f"_seed_{seed.partition('=')[2]}.console.txt")
    assert done.stdout.count("RESULT,") == 1


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"BENCHMARK": "bert"}, "BENCHMARK=bert: must be one of "),
        ({"SLURM_JOB_NUM_NODES": "3"}, "SLURM_JOB_NODELIST=a[7-8]: not the names of 3 nodes"),
        ({"SLURM_JOB_NODELIST": ""}, "is a job of Slurm: sbatch mlperf/systems/slurm_8_nodes.sub"),
    ],
)
def test_job_that_cannot_start_says_why_in_one_line(
    variables: dict[str, str], message: str, job: dict[str, str]
) -> None:
    done = submit(JOBS[8], **{**job, "CONFIG": "", **variables})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"slurm_8_nodes.sub: error: {message}")
    assert len(done.stderr.splitlines()) == 1


def test_tasks_of_srun_that_would_each_do_the_whole_run_are_refused(job: dict[str, str]) -> None:
    tasks = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}
    done = subprocess.run(
        ["./run_and_time.sh"],
        cwd=ROOT,
        env={**job, **tasks, "PATH": job["path"]},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert b"SLURM_STEP_NUM_TASKS=2: a timed run starts its processes itself (NPROC, NNODES)" in done.stderr
