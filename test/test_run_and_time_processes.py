"""run_and_time.sh with several processes and nodes. Most tests use a program in place of the trainer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from easy_data import write_easy_data
from processes import free_port, in_processes
from program import ROOT, Finished, read_events
from repository_copy import copy_repository
from timed_runs import arguments, result, run_and_time, write_python

from mlperf.benchmarks import DLRM, editions_of
from mlperf.submission.check import check_log

pytestmark = in_processes


@pytest.fixture
def python(tmp_path: Path) -> str:
    return write_python(tmp_path)


def start(python: str, folder: Path, **variables: str) -> Finished:
    """Run the script on data that nothing reads."""
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "x_train.bin").touch()
    given = {"DATADIR": str(folder / "data"), "LOGDIR": str(folder / "logs"), "CONFIG": "sample"}
    given |= {"DLRM_PYTHON": python, "DROP_CACHES": "false", "SEED": "5"}
    return run_and_time(ROOT, **{**given, **variables})  # type: ignore[arg-type]


def test_one_process_is_started_without_torchrun(python: str, tmp_path: Path) -> None:
    run = start(python, tmp_path)
    assert arguments(run.stdout)[0] == "dlrm_s_pytorch.py"


def test_processes_of_one_machine_are_started_by_torchrun(python: str, tmp_path: Path) -> None:
    run = start(python, tmp_path, NPROC="02", NODE_RANK="0", MASTER_ADDR="of.another.job")
    torchrun = ["-m", "mlperf.cli.start_processes", "--nproc-per-node=2", "--standalone", "dlrm_s_pytorch.py"]
    assert arguments(run.stdout)[:5] == torchrun
    assert run.status == 3
    assert result(run)[:3] == ["RESULT", "RECOMMENDATION", "5"]


NEEDS_ADDRESS = "NNODES=2: needs MASTER_ADDR, the address of the node with NODE_RANK=0"
NODES = {"NPROC": "4", "NNODES": "2", "MASTER_ADDR": "first.node", "MASTER_PORT": "1234"}


def test_first_node_writes_the_log_and_the_result(python: str, tmp_path: Path) -> None:
    run = start(python, tmp_path, NODE_RANK="0", **NODES)
    words = ["--nproc-per-node=4", "--nnodes=2", "--node-rank=0", "--master-addr=first.node", "--master-port=1234"]
    assert arguments(run.stdout)[2:7] == words
    assert "--mlperf-platform=2xsample" in arguments(run.stdout)
    (console,) = (tmp_path / "logs").glob("dlrm_*_seed_5.console.txt")
    assert f"--mlperf-log-file={str(console).replace('.console.txt', '.log')}" in arguments(run.stdout)
    assert result(run)[0] == "RESULT"


def test_other_nodes_only_train(python: str, tmp_path: Path) -> None:
    run = start(python, tmp_path, NODE_RANK="1", TRAINER_STATUS="0", **NODES)
    assert (run.status, run.stderr) == (0, "")
    assert "--node-rank=1" in arguments(run.stdout)
    assert not any(argument.startswith("--mlperf-log-file") for argument in arguments(run.stdout))
    assert "RESULT" not in run.stdout
    assert not (tmp_path / "logs").exists()
    assert start(python, tmp_path, NODE_RANK="1", TRAINER_STATUS="143", **NODES).status == 143


def test_other_nodes_wait_for_the_first_to_prepare_the_data(python: str, tmp_path: Path) -> None:
    waits = []
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "day_0").touch()
    for folder in ("data", "raw"):
        run = start(python, tmp_path, NODE_RANK="1", DATADIR=str(tmp_path / folder), **NODES)
        waits += [word for word in arguments(run.stdout) if word.startswith("--rdzv-conf=timeout=")]
    assert waits == ["--rdzv-conf=timeout=3600", "--rdzv-conf=timeout=86400"]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"NPROC": "0"}, "NPROC=0: must be a whole number from 1 to 1024"),
        ({"NPROC": "two"}, "NPROC=two: must be a whole number from 1 to 1024"),
        ({"NPROC": "1x[$(touch x)]"}, "NPROC=1x[$(touch x)]: must be a whole number from 1 to 1024"),
        ({"NPROC": "99999999999999999999"}, "NPROC=99999999999999999999: must be a whole number from 1 to 1024"),
        ({"NNODES": "-1"}, "NNODES=-1: must be a whole number from 1 to 65536"),
        ({"NODE_RANK": "1"}, "NODE_RANK=1: must be a whole number from 0 to 0"),
        ({"NNODES": "2", "NODE_RANK": "2", "MASTER_ADDR": "a"}, "NODE_RANK=2: must be a whole number from 0 to 1"),
        ({"NNODES": "2"}, "NNODES=2: needs NODE_RANK, the number of this node, from 0"),
        ({"NNODES": "2", "NODE_RANK": "0"}, NEEDS_ADDRESS),
        (
            {"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "a", "SEED": ""},
            "NNODES=2: needs SEED, the same on all nodes",
        ),
        ({"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "a b"}, "MASTER_ADDR=a b: is not an address"),
        ({**NODES, "NODE_RANK": "1", "MASTER_PORT": "0"}, "MASTER_PORT=0: must be a whole number from 1 to 65535"),
    ],
    ids=str,
)
def test_wrong_number_of_processes_is_refused_before_any_work(
    variables: dict[str, str], message: str, python: str, tmp_path: Path
) -> None:
    run = start(python, tmp_path, **variables)
    assert run == Finished(2, "", f"run_and_time.sh: error: {message}\n")
    assert not (tmp_path / "logs").exists()


def test_environment_without_torchrec_is_named(tmp_path: Path) -> None:
    (tmp_path / "bare").write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    (tmp_path / "bare").chmod(0o755)
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    for package in ("torch", "numpy", "numba", "mlperf_logging"):
        (stubs / f"{package}.py").touch()
    run = start(str(tmp_path / "bare"), tmp_path, NPROC="2", PYTHONPATH=str(stubs))
    assert run.status == 1
    assert "lacks the package torchrec; requirements-distributed.txt lists all" in run.stderr


def test_gpus_need_another_build_of_fbgemm(tmp_path: Path) -> None:
    clone = copy_repository(tmp_path / "clone")
    (clone / "tools" / "setup.sh").write_text('#!/bin/sh\necho "$@" >&2\nexit 1\n')
    (tmp_path / "x_train.bin").touch()
    for flags, gpu in (([], ""), (["--use-gpu"], "-gpu")):
        run = run_and_time(clone, *flags, NPROC="2", DATADIR=str(tmp_path), CONFIG="sample")
        assert run.stderr == f"--needs=mlperf_logging,torchrec,fbgemm_gpu requirements-distributed{gpu}.txt\n"


CHILD = """
import os, signal, sys, time
rank = os.environ["RANK"]
if sys.argv[1] == "status":
    sys.exit(3)
if rank == "1" and sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
print("rank", rank, flush=True)
time.sleep(60)
"""


def torchrun(how: str, folder: Path) -> subprocess.Popen[str]:
    """Start two processes of a small program."""
    (folder / "child.py").write_text(CHILD)
    command = ["-m", "mlperf.cli.start_processes", "--standalone", "--nproc-per-node=2", "child.py", how]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, *command], cwd=folder, env=environment, stdout=-1, stderr=-1, text=True
    )


@pytest.mark.parametrize(
    ("how", "status", "message"),
    [("status", 3, ""), ("killed", 1, "torchrun: error: rank 1 was ended by SIGKILL\n")],
)
def test_status_of_the_processes_is_returned_without_other_reports(
    how: str, status: int, message: str, tmp_path: Path
) -> None:
    with torchrun(how, tmp_path) as process:
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (status, message)
    assert [path.name for path in tmp_path.iterdir()] == ["child.py"], "no temporary files are left"


def test_signal_is_passed_on_to_the_processes(tmp_path: Path) -> None:
    with torchrun("waiting", tmp_path) as process:
        assert process.stdout is not None
        assert {process.stdout.readline(), process.stdout.readline()} == {"rank 0\n", "rank 1\n"}
        process.send_signal(signal.SIGUSR1)
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (128 + signal.SIGUSR1, "")


def test_first_node_that_cannot_be_reached_is_named_in_one_line(tmp_path: Path) -> None:
    command = ["-m", "mlperf.cli.start_processes", "--nnodes=2", "--node-rank=1", "--nproc-per-node=1"]
    command += ["--master-addr=localhost", f"--master-port={free_port()}", "--rdzv-conf=timeout=1", "child.py"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("torchrun: error: the processes cannot be connected: ")
    assert len(done.stderr.splitlines()) == 1


def test_two_nodes_reach_the_target_with_a_log_that_the_checkers_accept(tmp_path: Path) -> None:
    data = write_easy_data(tmp_path)
    variables = {"DATADIR": str(data.parent), "CONFIG": "sample", "SEED": "1", "DROP_CACHES": "false"}
    variables |= {"NNODES": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
    logs = [tmp_path / "logs of node 0", tmp_path / "logs of node 1"]
    flags = ("--mini-batch-size=128", "--learning-rate=0.2", "--nepochs=4")

    def run_node(node: int) -> Finished:
        own = {"NODE_RANK": str(node), "LOGDIR": str(logs[node])}
        return run_and_time(ROOT, *flags, **variables, **own)  # type: ignore[arg-type]

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(run_node, range(2))
    assert (first.status, second.status) == (0, 0), first.stdout + first.stderr + second.stdout + second.stderr
    assert result(first)[:3] == ["RESULT", "RECOMMENDATION", "1"]
    assert (second.stdout, second.stderr) == ("", "")
    (log,) = logs[0].glob("*.log")
    assert all(check_log(log, edition).passed for edition in editions_of(DLRM))
    values = {event["key"]: event["value"] for event in read_events(log)}
    assert (values["number_of_nodes"], values["processes_per_node"], values["accelerators_per_node"]) == (2, 1, 0)
    assert (values["submission_platform"], values["global_batch_size"]) == ("2xsample", 128)
    assert not logs[1].exists()
