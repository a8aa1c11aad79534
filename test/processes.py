"""Functions that run on several processes of a group, and programs started by torchrun.

The processes live as long as the session of pytest: they import PyTorch and TorchRec once, in the process from
which they are forked, and run one case after the other. A case on three processes uses the first three of them.

    def losses(flags: Sequence[str]) -> list[float]: ...  # at the top level of a module in this folder

    def test_losses_agree() -> None:
        first, second = with_ranks(2, losses, flags)
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import connection, forkserver, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import IO, Any
from unittest import mock

import pytest
import torch.distributed as dist

from mlperf.distributed.group import process_group
from mlperf.distributed.launchers import launched_processes

ROOT = Path(__file__).resolve().parent.parent

# All tests of several processes run on one worker of pytest-xdist, the only one that has processes to run them.
in_processes = pytest.mark.xdist_group("processes")

# Seconds that a case may take, and that the other ranks have after one has failed.
LIMIT = 60.0
AFTER_A_FAILURE = 3.0

MISSING = "torchrec is not installed: see mlperf/docs/distributed.md"
has_torchrec = find_spec("torchrec") is not None and find_spec("fbgemm_gpu") is not None
needs_torchrec = pytest.mark.skipif(not has_torchrec, reason=MISSING)

# Imported before the processes are forked. None of them starts a thread with OMP_NUM_THREADS=1.
_IMPORTS = ["mlperf.cli.train", "mlperf.runner.api", "mlperf.engines.torchrec.engine", "pytest"]


class RankError(AssertionError):
    """One rank failed. rank: its number. error: its exception, if it can be sent between processes."""

    def __init__(self, message: str, rank: int, error: BaseException | None = None) -> None:
        super().__init__(message)
        self.rank = rank
        self.error = error


def with_ranks(size: int, function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
    """Call `function(*args, **kwargs)` on `size` processes of a gloo group, and return its results by rank.

    function: at the top level of a module, like everything in its arguments and results that pickle finds by name.
    RankError, a failure of the test, has the traceback of the first rank that failed, or the stacks of all if they
    did not end in time. The test is skipped if TorchRec is not installed.
    """
    return _pool().run(size, _in_group, (function, *args), kwargs)


def launched(size: int, function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
    """As `with_ranks`, but `function` connects the processes: their variables are those that torchrun sets."""
    return _pool().run(size, function, args, kwargs)


def _in_group(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with process_group(launched_processes(), "gloo"):
        return function(*args, **kwargs)


@contextlib.contextmanager
def started_torchrun(
    size: int,
    *flags: str,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    options: tuple[str, ...] = (),
) -> Iterator[TorchRun]:
    """Start the program on `size` processes like a user. At the end, processes that are left are killed.

    env: variables to set. options: those of torchrun, such as "--max-restarts=1".
    """
    if not has_torchrec:
        pytest.skip(MISSING)
    token = uuid.uuid4().hex
    process = TorchRun(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"),
            *(*options, str(ROOT / "dlrm_s_pytorch.py"), *flags),
        ],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {}), TorchRun.TOKEN: token},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.token = token
    try:
        yield process
    finally:
        process.kill_all()
        process.communicate()


class TorchRun(subprocess.Popen[str]):
    """A running torchrun. token: value of a variable that all its processes inherit, to find them."""

    TOKEN = "TEST_TORCHRUN"
    token: str

    def processes(self) -> list[int]:
        """Return the ids of torchrun and of everything it has started, also after it has ended."""
        wanted = f"{self.TOKEN}={self.token}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if wanted in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found

    def kill_all(self) -> None:
        """Kill all its processes."""
        for number in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)


@dataclass(frozen=True)
class _Case:
    """What a rank runs, and the variables that torchrun would set."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class _Failure:
    """The exception of a rank."""

    trace: str
    error: BaseException | None


class RankPool:
    """Processes that run cases. limit: seconds that a case may take. folder: for their output."""

    def __init__(self, limit: float = LIMIT) -> None:
        self.limit = limit
        self._folder = tempfile.TemporaryDirectory(prefix="ranks-")
        self._ranks: list[_Rank] = []

    def run(
        self, size: int, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> list[Any]:
        """Run one case and return its results by rank. After a failure, the next case runs on new processes."""
        case = pickle.dumps(_Case(function, args, kwargs))
        while len(self._ranks) < size:
            self._ranks.append(_Rank(len(self._ranks), Path(self._folder.name), self.limit))
        ranks = self._ranks[:size]
        port = free_port()
        for rank in ranks:
            rank.send(case, size, port)
        try:
            return self._results(ranks)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the processes."""
        for rank in self._ranks:
            rank.kill()
        self._ranks.clear()

    def _results(self, ranks: list[_Rank]) -> list[Any]:
        results: dict[int, Any] = {}
        waiting = {rank.pipe: rank for rank in ranks}
        failures: list[tuple[_Rank, _Failure]] = []
        # The ranks write their stacks when the limit is over: they have a second more.
        end = time.monotonic() + self.limit + 1
        while waiting and (left := end - time.monotonic()) > 0:
            for pipe in connection.wait(list(waiting), left):
                assert isinstance(pipe, Connection)
                rank = waiting.pop(pipe)
                result = rank.result()
                results[rank.number] = result
                if isinstance(result, _Failure):
                    failures.append((rank, result))
                    end = min(end, time.monotonic() + AFTER_A_FAILURE)
        if failures:
            raise self._error(failures, len(ranks))
        if waiting:
            stacks = "\n".join(f"rank {rank.number}:\n{rank.output()}" for rank in waiting.values())
            numbers = ", ".join(str(rank.number) for rank in waiting.values())
            raise RankError(
                f"rank {numbers} of {len(ranks)} did not end within {self.limit:g} s\n{stacks}",
                min(rank.number for rank in waiting.values()),
            )
        return [results[rank.number] for rank in ranks]

    def _error(self, failures: list[tuple[_Rank, _Failure]], size: int) -> RankError:
        rank, failure = failures[0]
        others = "".join(f"\nrank {other.number}: {found.trace.splitlines()[-1]}" for other, found in failures[1:])
        message = f"rank {rank.number} of {size} failed\n{rank.output()}{failure.trace}{others}"
        return RankError(message, rank.number, failure.error)


class _Rank:
    """One process of a pool, as the tests see it."""

    def __init__(self, number: int, folder: Path, limit: float) -> None:
        self.number = number
        self._output = folder / f"rank_{number}"
        context = fork_context()
        self.pipe, other = context.Pipe()
        self._process: ForkServerProcess = context.Process(
            target=_serve, args=(other, number, self._output, limit), daemon=True
        )
        self._process.start()
        other.close()

    def send(self, case: bytes, size: int, port: int) -> None:
        self._output.write_bytes(b"")
        self.pipe.send_bytes(pickle.dumps((case, size, port)))

    def result(self) -> Any:
        """Return what the case returned, or its failure."""
        try:
            return pickle.loads(self.pipe.recv_bytes())
        except (EOFError, ConnectionError):
            self._process.join(AFTER_A_FAILURE)
            return _Failure(f"the process ended with status {self._process.exitcode}", None)

    def output(self) -> str:
        """Return what the case has printed."""
        return self._output.read_text(errors="replace")

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()


def fork_context() -> ForkServerContext:
    """Return the context of processes that are forked from one that has imported the programs and TorchRec."""
    path = os.pathsep.join((str(ROOT), str(ROOT / "test")))
    forkserver.set_forkserver_preload(_IMPORTS)
    with mock.patch.dict(os.environ, OMP_NUM_THREADS="1", TORCH_CPP_LOG_LEVEL="ERROR", PYTHONPATH=path):
        forkserver.ensure_running()
    return get_context("forkserver")


def _serve(pipe: Connection, number: int, output: Path, limit: float) -> None:
    """Run cases until the tests end. What they print goes to the file `output`."""
    log = output.open("a")
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log.fileno(), stream.fileno())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            case, size, port = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        variables = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        faulthandler.dump_traceback_later(limit, file=log)
        result = _run(case, {name: str(value) for name, value in variables.items()}, log)
        faulthandler.cancel_dump_traceback_later()
        pipe.send_bytes(result)


def _run(pickled: bytes, variables: dict[str, str], log: IO[str]) -> bytes:
    """Return the result of a case, or its failure, as bytes."""
    before = Path.cwd()
    try:
        with mock.patch.dict(os.environ, variables):
            case: _Case = pickle.loads(pickled)
            return pickle.dumps(case.function(*case.args, **case.kwargs))
    except BaseException as error:
        trace = traceback.format_exc()
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return pickle.dumps(_Failure(trace, None))
        return pickle.dumps(_Failure(trace, error))
    finally:
        if dist.is_initialized():  # the case has failed in its group
            dist.destroy_process_group()
        os.chdir(before)
        for stream in (sys.stdout, sys.stderr, log):
            stream.flush()


def _end_with_parent() -> None:
    """End this process with the tests, also in the middle of a case."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


_pools: list[RankPool] = []


def _pool() -> RankPool:
    """Return the processes of this session."""
    if not has_torchrec:
        pytest.skip(MISSING)
    if not _pools:
        _pools.append(RankPool())
        atexit.register(_pools[0].stop)
    return _pools[0]
