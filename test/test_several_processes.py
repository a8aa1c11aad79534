"""A program of several processes: torchrun starts it, it fails, is interrupted, and is started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from processes import in_processes, needs_torchrec, started_torchrun, with_ranks
from program import ROOT, read_events
from sharded_folders import read_weights

from mlperf.distributed.environment import choose_threads
from mlperf.distributed.launchers import Launch
from mlperf.distributed.processes import Processes, current, running_as
from mlperf.reporting.compliance_log import ComplianceLog
from mlperf.reporting.compliance_log_file import check_log_file, log_name
from mlperf.reporting.metrics_reader import read_records
from mlperf.runner.device import gpu_of
from mlperf.runner.same_run import require_same_run
from mlperf.settings.from_flags import parse
from mlperf.training.events import Outcome, Position, RunStart
from mlperf.training.sharded_index import INDEX_NAME
from mlperf.util.errors import UsageError
from mlperf.util.threads import available_cores

FLAGS = (
    *("--arch-sparse-feature-size=16", "--arch-mlp-bot=13-32-16", "--arch-mlp-top=32-16-1", "--loss-function=bce"),
    *("--data-generation=dataset", "--data-set=terabyte", "--mlperf-bin-loader", "--max-ind-range=40000000"),
    *("--mini-batch-size=512", "--print-freq=1", "--test-freq=4", "--nepochs=1000", "--learning-rate=0.1"),
    *("--mlperf-logging", "--mlperf-log-file=run.log", "--save-model=model"),
)


@in_processes
@needs_torchrec
def test_torchrun_starts_the_program_whose_first_process_prints(tmp_path: Path) -> None:
    flags = ("--arch-mlp-bot=4-8", "--arch-sparse-feature-size=8", "--data-size=3")
    with started_torchrun(2, *flags, cwd=tmp_path) as process:
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert stdout.count("Finished training it 3/3 of epoch 0") == 1


@in_processes
@needs_torchrec
def test_a_killed_rank_ends_the_run_and_torchrun_continues_it_with_a_log_of_its_own(
    terabyte: Path, tmp_path: Path
) -> None:
    flags = (*FLAGS, f"--processed-data-file={terabyte}", "--load-model=latest", "--metrics-file=run.jsonl")
    options = ("--max-restarts=1", "--monitor-interval=0.1")
    with started_torchrun(2, *flags, cwd=tmp_path, options=options) as process:
        wait_for(tmp_path / "model" / INDEX_NAME)
        os.kill(rank_of(process.processes(), 1), signal.SIGKILL)
        wait_for(tmp_path / "run_2.log", '"epoch_start"')
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=30)
    killed, terminated = messages(stderr)
    assert killed == "dlrm_s_pytorch.py: rank 1: error: ended without a message"
    assert terminated.startswith("dlrm_s_pytorch.py: terminated")  # and how to continue, if it has saved again
    assert "run.log exists; the compliance log of this run is run_2.log" in stderr
    started, resumed = "does not exist yet: starting from initial weights", "model: resuming after iteration"
    assert 0 < stderr.index(started) < stderr.index(resumed)
    read_weights(tmp_path / "model")
    for log in ("run.log", "run_2.log"):
        end = read_events(tmp_path / log)[-1]
        assert (end["key"], end["metadata"]["status"]) == ("run_stop", "aborted")
    metrics = read_records(tmp_path / "run.jsonl")  # of both attempts
    assert [record["outcome"] for record in metrics.of("run_stop")] == ["failed", "interrupted"]
    assert process.returncode != 0


def wait_for(file: Path, text: str = "") -> None:
    """Wait until a file exists and contains a text."""
    deadline = time.monotonic() + 60
    while not (file.exists() and text in file.read_text()):
        assert time.monotonic() < deadline, f"{file} has no {text}"
        time.sleep(0.1)


def rank_of(processes: list[int], rank: int) -> int:
    """Return the id of the process of a rank."""
    wanted = f"RANK={rank}".encode()
    return next(
        number for number in processes if wanted in Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
    )


def messages(stderr: str) -> list[str]:
    """Return the messages of the program with which it ends."""
    return [line for line in stderr.splitlines() if line.startswith("dlrm_s_pytorch.py: ")]


def refusal(*flags_by_rank: tuple[str, ...]) -> str:
    """Return why processes with these flags do not start together. Runs on several processes."""
    settings = parse(flags_by_rank[int(os.environ["RANK"])])
    with pytest.raises(UsageError) as refused:
        require_same_run(settings)
    return str(refused.value)


@in_processes
def test_different_flags_are_refused_by_all_processes_with_the_first_that_differs() -> None:
    same = ("--mini-batch-size=4", "--learning-rate=0.5")
    reasons = with_ranks(3, refusal, same, same, ("--mini-batch-size=6", "--learning-rate=0.2"))
    assert reasons == ["--mini-batch-size: rank 0 has 4, rank 2 has 6; must be equal on all processes"] * 3


def refusal_of_uneven_nodes() -> str:
    """Return why nodes with different numbers of processes do not start together. Runs on several processes."""
    own = current()
    with running_as(replace(own, local_size=1 + own.rank)), pytest.raises(UsageError) as refused:
        require_same_run(parse([]))
    return str(refused.value)


@in_processes
def test_nodes_with_different_numbers_of_processes_are_refused() -> None:
    reasons = with_ranks(2, refusal_of_uneven_nodes)
    assert reasons == ["processes of a node: rank 0 has 1, rank 1 has 2; must be equal on all processes"] * 2


def accepts(*flags_by_rank: tuple[str, ...]) -> None:
    """Raise UsageError if processes with these flags do not start together. Runs on several processes."""
    require_same_run(parse(flags_by_rank[int(os.environ["RANK"])]))


@in_processes
def test_local_rank_may_differ() -> None:
    with_ranks(2, accepts, ("--local_rank=0",), ("--local_rank=1",))


def test_the_log_of_a_run_that_torchrun_starts_again_gets_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "run.log"
    log.write_text("first attempt\n")
    settings = parse([*FLAGS[:-2], f"--mlperf-log-file={log}", "--processed-data-file=x"])
    with pytest.raises(UsageError, match="exists and is not overwritten"):
        check_log_file(settings)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    check_log_file(settings)
    assert log_name(settings) == tmp_path / "run_2.log"


def test_each_process_uses_the_gpu_of_its_local_rank() -> None:
    assert [gpu_of(Processes(rank, 8, rank % 4, 4), visible=4) for rank in range(8)] == [0, 1, 2, 3] * 2


def test_a_process_may_see_no_gpu_but_its_own() -> None:
    assert gpu_of(Processes(3, 4, 3, 4), visible=1) == 0


def test_more_processes_than_gpus_are_refused() -> None:
    with pytest.raises(UsageError, match="4 processes on this node, but 2 GPUs are visible"):
        gpu_of(Processes(0, 4, 0, 4), visible=2)


def test_cores_are_divided_among_the_processes_of_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    launch = Launch("test", 0, 8, 0, 4, "localhost", 1)
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    choose_threads(launch)
    assert (os.environ["OMP_NUM_THREADS"], os.environ["NUMBA_NUM_THREADS"]) == ("4", "4")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    choose_threads(launch)
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_a_process_that_its_launcher_bound_to_cores_uses_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16 if process else 2)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    choose_threads(Launch("test", 0, 8, 0, 8, "localhost", 1))
    assert os.environ["OMP_NUM_THREADS"] == "2"


@pytest.mark.parametrize("set_by_user", [False, True])
def test_the_one_thread_that_torchrun_sets_is_replaced_but_not_that_of_the_user(set_by_user: bool) -> None:
    child = (
        "import os; from mlperf.distributed.environment import choose_threads as choose; "
        "from mlperf.distributed.launchers import Launch; "
        "choose(Launch('torchrun', 0, 2, 0, 1, 'localhost', 1)); print(os.environ['OMP_NUM_THREADS'])"
    )
    parent = (
        "import os, subprocess, sys; os.environ.update(OMP_NUM_THREADS='1', TORCHELASTIC_RUN_ID='x'); "
        f"subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    )
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    env |= {"PYTHONPATH": str(ROOT)} | ({"OMP_NUM_THREADS": "1"} if set_by_user else {})
    run = subprocess.run([sys.executable, "-c", parent], env=env, capture_output=True, text=True, check=True)
    assert run.stdout == f"{1 if set_by_user else available_cores()}\n"


def test_a_log_that_another_thread_closes_takes_no_further_events(tmp_path: Path) -> None:
    path, position = tmp_path / "run.log", Position(0, 3, 8)
    log = ComplianceLog(parse([*FLAGS[:-2], f"--mlperf-log-file={path}", "--processed-data-file=x"]))
    log.init_stop()
    log.run_start(RunStart(None, "autograd"))
    log.epoch_start(Position(0, 0, 8))
    log.abandon(position, Outcome.FAILED)
    late = threading.Thread(target=log.evaluation_start, args=(position,), daemon=True)
    late.start()
    late.join(0.5)
    assert late.is_alive()  # it waits until the process ends
    events = read_events(path)
    assert [event["key"] for event in events[-3:]] == ["epoch_stop", "block_stop", "run_stop"]
    assert events[-1]["metadata"]["status"] == "aborted"


def test_a_log_that_is_closed_is_not_closed_again_by_another_thread(tmp_path: Path) -> None:
    path, position = tmp_path / "run.log", Position(0, 3, 8)
    log = ComplianceLog(parse([*FLAGS[:-2], f"--mlperf-log-file={path}", "--processed-data-file=x"]))
    log.epoch_start(Position(0, 0, 8))
    log.run_stop(position, Outcome.INTERRUPTED)
    before = path.read_text()
    log.abandon(position, Outcome.FAILED)
    assert path.read_text() == before
