"""The contenders of measure_scaling.py: each is a group of processes that waits until it is told to train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch.distributed as dist

from mlperf.util.errors import RunError
from scaling_traffic import Network
from scaling_worker import Measured, Task

_WORKER = Path(__file__).with_name("scaling_worker.py")


class Contender:
    """Processes that do the same task. task: of rank 0, whose port is set here."""

    def __init__(self, name: str, task: Task) -> None:
        self.name = name
        self.size = task.size
        self._closing = ExitStack()
        self._store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        try:
            self._ranks = [
                _Rank(replace(task, rank=rank, port=self._store.port), self._closing) for rank in range(task.size)
            ]
            found, *_ = [rank.answer() for rank in self._ranks]
        except BaseException:
            self.close()
            raise
        ids, kinds, parts = (tuple(found[name]) for name in ("ids", "kinds", "parts"))
        self.network = Network(ids, kinds, parts, found["dimension"], found["weights"])

    def measure(self, work: str, count: int) -> Measured:
        """Return a round of `count` steps: of all processes the longest, and the bytes that all have sent."""
        for rank in self._ranks:
            rank.tell(f"{work} {count}")
        found = [Measured(**rank.answer()) for rank in self._ranks]
        return Measured(
            max(one.seconds for one in found),
            sum(one.waiting for one in found) / len(found),
            sum(one.sent for one in found),
        )

    def close(self) -> None:
        """End the processes."""
        self._closing.close()

    def __enter__(self) -> Contender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Rank:
    """One process. It ends when its stdin is closed."""

    def __init__(self, task: Task, closing: ExitStack) -> None:
        self._name = f"{task.engine}, process {task.rank} of {task.size}"
        self._messages: IO[str] = closing.enter_context(tempfile.TemporaryFile("w+"))  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, str(_WORKER), json.dumps(asdict(task))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(task.threads)},
        )
        closing.callback(self._end)

    def tell(self, line: str) -> None:
        """Send a command."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None

    def answer(self) -> dict[str, Any]:
        """Wait for the answer to the last command. RunError if the process has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._failure()
        found: dict[str, Any] = json.loads(line)
        return found

    def _failure(self) -> RunError:
        self._process.wait()
        self._messages.seek(0)
        lines = [line for line in self._messages.read().splitlines() if line.strip()]
        return RunError(f"{self._name}: {lines[-1] if lines else f'status {self._process.returncode}'}")

    def _end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for stream in (self._process.stdin, self._process.stdout):
            stream.close()
        self._process.kill()
        self._process.wait()
