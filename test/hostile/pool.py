"""Cases, the servers that run them, and their verdicts."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from program import ROOT

from hostile.oracle import Outcome
from hostile.server import command

SECONDS = 60.0  # a case may take, on a busy machine; usually it takes a fraction of one

# What became of a case that did not fail. UNCHECKED: read with other numbers, in a format without checksums.
REFUSED, IDENTICAL, UNCHECKED, PASSED = "refused", "identical", "unchecked", "passed"


class Failed(Exception):
    """A case failed; the message says how."""


@dataclass(frozen=True)
class Case:
    """One attack. name: how it is reproduced and reported. run: does it in a folder, and returns the verdict.

    `run` raises Failed if the programs did something wrong.
    """

    kind: str
    name: str
    run: Callable[[Server, Path], str]


@dataclass(frozen=True)
class Verdict:
    """What became of a case: one of the constants above, or how it failed."""

    case: Case
    verdict: str
    failure: str | None = None


class Server:
    """A process that forks one process per case. For use by one thread."""

    def __init__(self, output: Path) -> None:
        self._output = output
        output.mkdir(parents=True)
        paths = [str(ROOT), str(ROOT / "test"), *filter(None, [os.environ.get("PYTHONPATH")])]
        # One thread each: threads do not survive a fork, and the cases run beside each other.
        variables = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command(),
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def start(self, action: str, folder: Path, limits: dict[str, Any] | None = None, **arguments: Any) -> int:
        """Start the process of a case in `folder` and return its process id."""
        for name in ("stdout", "stderr", "result"):
            (self._output / name).write_bytes(b"")  # also for a process that is killed before it opens them
        request = {"action": action, "arguments": arguments, "folder": str(folder), "output": str(self._output)}
        answer: int = self._ask({**request, "limits": limits or {}})["pid"]
        return answer

    def wait(self, seconds: float = SECONDS) -> Outcome:
        """Wait for the process that was started and return how it ended."""
        answer = self._ask({"wait": seconds})
        recorded = (self._output / "result").read_text()
        texts = [(self._output / name).read_bytes().decode(errors="replace") for name in ("stdout", "stderr")]
        return Outcome(**answer, stdout=texts[0], stderr=texts[1], result=json.loads(recorded or "{}"))

    def printed(self) -> str:
        """Return what the running process has written to stdout so far."""
        path = self._output / "stdout"
        return path.read_text(errors="replace") if path.exists() else ""

    def program(self, folder: Path, *flags: str, program: str = "dlrm_s_pytorch.py", **limits: Any) -> Outcome:
        """Run a program of this repository in `folder` to its end."""
        self.start("program", folder, limits, program=program, flags=list(flags))
        return self.wait()

    def close(self) -> None:
        """End the server."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(SECONDS)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def running_servers(folder: Path, count: int) -> Iterator[list[Server]]:
    """Yield servers whose cases write their output below `folder`, and end them."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(closing(Server(Path(tempfile.mkdtemp(dir=folder)) / "output")))
            for _ in range(count)
        ]


def run_cases(
    cases: Iterable[Case],
    folder: Path,
    servers: Sequence[Server],
    tell: Callable[[Verdict], None] = lambda verdict: None,
) -> list[Verdict]:
    """Run cases below `folder`, one at a time on each server, and return the verdicts. tell: called after each."""
    waiting: queue.SimpleQueue[Case] = queue.SimpleQueue()
    for case in cases:
        waiting.put(case)

    def serve(server: Server) -> list[Verdict]:
        verdicts: list[Verdict] = []
        while True:
            try:
                case = waiting.get_nowait()
            except queue.Empty:
                return verdicts
            verdicts.append(run_case(case, server, folder))
            tell(verdicts[-1])

    with ThreadPoolExecutor(len(servers)) as threads:
        return [verdict for verdicts in threads.map(serve, servers) for verdict in verdicts]


def run_case(case: Case, server: Server, folder: Path) -> Verdict:
    """Run one case in a folder of its own, which is removed afterwards."""
    place = Path(tempfile.mkdtemp(dir=folder, prefix="case-"))
    place.chmod(0o777)  # the process may be another user's
    try:
        return Verdict(case, case.run(server, place))
    except Failed as failed:
        return Verdict(case, "", str(failed))
    finally:
        shutil.rmtree(place, ignore_errors=True)
