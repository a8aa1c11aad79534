"""All processes of a run end when one of them fails, is killed, does not respond or receives a signal."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from processes import fork_context, free_port, in_processes, needs_torchrec
from watched_process import run_watched

from mlperf.distributed.failures import is_of_connection
from mlperf.distributed.launchers import Launch
from mlperf.distributed.peers import Peers
from mlperf.util.errors import RunError
from mlperf.util.failures import damage

SIZE = 3
LIMIT = 30.0  # seconds in which all must have ended

pytestmark = [in_processes, needs_torchrec]


@dataclass(frozen=True)
class Ended:
    """How the processes ended. statuses: negative for a signal. lines: on stderr. printed: on stdout, by rank."""

    statuses: list[int | None]
    lines: list[str]
    printed: list[list[str]]


def run(case: str, folder: Path, act: Callable[[int, BaseProcess], None] = lambda rank, process: None) -> Ended:
    """Start the processes of a case, call `act` with each when all are ready, and return how they ended."""
    context, port = fork_context(), free_port()
    outputs = [folder / f"rank{rank}" for rank in range(SIZE)]
    ranks: list[BaseProcess] = []
    for rank, output in enumerate(outputs):
        process: BaseProcess = context.Process(
            target=run_watched, args=(case, rank, SIZE, port, output), daemon=True
        )
        process.start()
        ranks.append(process)
    try:
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline and not all("ready" in lines(output, ".out") for output in outputs):
            time.sleep(0.05)
        for rank, process in enumerate(ranks):
            act(rank, process)
        deadline = time.monotonic() + LIMIT
        for process in ranks:
            process.join(max(0.0, deadline - time.monotonic()))
        statuses = [process.exitcode for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    return Ended(
        statuses,
        [line for output in outputs for line in lines(output, ".err")],
        [[line for line in lines(output, ".out") if line != "ready"] for output in outputs],
    )


def lines(output: Path, suffix: str) -> list[str]:
    """Return what a process has written."""
    path = output.with_suffix(suffix)
    return path.read_text().splitlines() if path.exists() else []


def send(number: signal.Signals, to: Iterable[int] = range(SIZE)) -> Callable[[int, BaseProcess], None]:
    """Return a function that sends a signal to some of the ranks."""

    def act(rank: int, process: BaseProcess) -> None:
        assert process.pid is not None
        if rank in to:
            os.kill(process.pid, number)

    return act


def test_processes_that_finish_at_different_times_all_succeed(tmp_path: Path) -> None:
    assert run("finish", tmp_path) == Ended([0] * SIZE, [], [[]] * SIZE)


def test_an_error_of_one_rank_ends_all_with_its_message(tmp_path: Path) -> None:
    ended = run("error", tmp_path)
    assert ended.lines == ["program: rank 2: error: file.bin: row 7 is wrong"]
    assert ended.statuses == [1, 1, 1]


def test_an_error_that_all_ranks_find_is_printed_once_without_a_rank(tmp_path: Path) -> None:
    ended = run("same error", tmp_path)
    assert ended.lines == ["program: error: --flag=x: is wrong"]
    assert ended.statuses == [2, 2, 2]


def test_a_killed_rank_ends_the_others(tmp_path: Path) -> None:
    ended = run("killed", tmp_path)
    assert ended.lines == ["program: rank 2: error: ended without a message"]
    assert ended.statuses == [1, 1, -signal.SIGKILL]


def test_the_rank_that_has_the_store_may_be_killed(tmp_path: Path) -> None:
    ended = run("idle", tmp_path, send(signal.SIGKILL, to=[0]))
    assert ended.lines == ["program: rank 0: error: ended without a message"]
    assert ended.statuses == [-signal.SIGKILL, 1, 1]


def test_a_rank_that_does_not_respond_ends_all_also_in_a_collective_operation(tmp_path: Path) -> None:
    ended = run("blocked, silent", tmp_path)
    assert ended.lines == ["program: rank 2: error: no sign of life for 2 s"]
    assert ended.printed[0] == ["closed"]
    assert all(ended.statuses)


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_signal_to_all_ranks_is_reported_once(number: signal.Signals, word: str, tmp_path: Path) -> None:
    ended = run("idle", tmp_path, send(number))
    assert ended.lines == [f"program: {word}"]
    assert ended.statuses == [128 + number] * SIZE


def test_a_signal_to_all_ranks_ends_them_also_in_a_collective_operation(tmp_path: Path) -> None:
    ended = run("blocked", tmp_path, send(signal.SIGTERM))
    assert ended.lines == ["program: terminated; the same command continues"]
    assert ended.printed[0] == ["closed"]


def test_a_signal_to_one_rank_ends_all_and_names_it(tmp_path: Path) -> None:
    ended = run("idle", tmp_path, send(signal.SIGTERM, to=[1]))
    assert ended.lines == ["program: rank 1: terminated"]
    assert ended.statuses == [128 + signal.SIGTERM] * SIZE


def test_a_process_of_another_run_on_the_same_port_is_refused_and_harms_none() -> None:
    port = free_port()
    first, own, other = (Launch("test", rank, 2, rank, 2, "localhost", port) for rank in (0, 1, 1))
    store, peer = Peers(first), Peers(own)
    try:
        with pytest.raises(RunError, match=f"MASTER_PORT={port}: another process is rank 1 there; two runs need"):
            Peers(other)
        store.exchange(5)
        assert store.view.failure is None
        assert store.all_present
    finally:
        peer.end()
        store.end()


def test_a_failure_that_a_lost_connection_has_caused_is_recognized() -> None:
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:36274: Connection reset by peer")
    assert is_of_connection(lost)
    with pytest.raises(RunError) as failure, damage(Path("model"), "the checkpoint cannot be written"):
        raise lost
    assert is_of_connection(failure.value)
    assert not is_of_connection(RunError("model: no space left on device"))
    assert not is_of_connection(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
