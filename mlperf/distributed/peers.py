"""What the processes of a run tell each other about their state, through the store (`store.py`).

Each process writes its state twice a second and reads those of the others. The first that finds a failure records
it in the store; the others read it there.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from mlperf.distributed.launchers import Launch
from mlperf.distributed.store import connect, keys_of, shown_address
from mlperf.util.errors import RunError

_INTERVAL = 0.5  # seconds between two exchanges


@dataclass(frozen=True)
class Failure:
    """Why a run ends. rank: the process that failed. by: the process that reports it to the user.

    kind: "usage", "error", "bug", "signal" (text: its number) or "lost" (rank ended or does not respond).
    """

    rank: int
    kind: str
    text: str
    by: int


@dataclass(frozen=True)
class PeerState:
    """State of a process. host: of its process numbers. pid, started: identify the process there.

    beat: grows as long as the process runs. signal: that has arrived, or None. error: of this process, or None.
    gpu: name of its GPU that no other GPU of the host has. done: whether it has finished.
    """

    host: str
    pid: int
    started: str
    beat: int = 0
    signal: int | None = None
    error: str | None = None
    gpu: str | None = None
    done: bool = False

    @staticmethod
    def own() -> PeerState:
        """Return the state of this process."""
        boot = _text(Path("/proc/sys/kernel/random/boot_id"))
        namespace = os.readlink("/proc/self/ns/pid") if os.path.lexists("/proc/self/ns/pid") else ""
        return PeerState(f"{boot or socket.gethostname()} {namespace}", os.getpid(), _status(os.getpid())[1])

    def has_ended(self) -> bool:
        """Return whether the process, which must be one of this host, has ended."""
        state, started = _status(self.pid)
        return state in ("", "Z", "X") or started != self.started


@dataclass
class _View:
    """What was read last. changed: when each beat was seen to change, on the clock of this process."""

    states: dict[int, PeerState] = field(default_factory=dict)
    changed: dict[int, float] = field(default_factory=dict)
    failure: Failure | None = None


class Peers:
    """The states of all processes, exchanged by a thread.

    own: the state of this process, to be changed by `tell`. view: what was read last. read_at: when. lost: whether
    the store cannot be reached any more. first_present: whether rank 0 has written its state.
    """

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self._where = shown_address(launch)
        self.own = PeerState.own()
        self.view = _View()
        self.lost = self.first_present = False
        self._server = None if launch.has_agent or launch.rank > 0 else connect(launch, is_server=True)
        self._store = keys_of("watch", launch)
        self._keys = [f"state/{rank}" for rank in range(launch.size)]
        self._lock = threading.Lock()
        self._proposed: Failure | None = None
        self._wake, self._ended = threading.Event(), threading.Event()
        self._exchanges = 0
        self._exchanged = threading.Condition()
        self.read_at = time.monotonic()
        try:
            self._claim()
            self._exchange()
        except RuntimeError:
            raise RunError(f"{self._where}: lost the connection") from None
        self._thread = threading.Thread(target=self._run, name="peers", daemon=True)
        self._thread.start()

    @property
    def all_present(self) -> bool:
        """Whether all processes have written their state."""
        return len(self.view.states) == self.launch.size

    def tell(self, seconds: float = 0.0, **changes: object) -> None:
        """Change the state of this process; wait up to `seconds` until it is written and the others are read."""
        with self._lock:
            self.own = replace(self.own, **changes)  # type: ignore[arg-type]
        self.exchange(seconds)

    def exchange(self, seconds: float) -> None:
        """Wait up to `seconds` for an exchange that begins now."""
        with self._exchanged:
            target = self._exchanges + 2  # one may be in progress
            self._wake.set()
            deadline = time.monotonic() + seconds
            while self._exchanges < target and not self.lost and (left := deadline - time.monotonic()) > 0:
                self._wake.set()
                self._exchanged.wait(min(left, 0.05))

    def record(self, failure: Failure) -> None:
        """Record a failure, unless another is recorded: `view.failure` is the one that counts."""
        self._proposed = self._proposed or failure
        self._wake.set()

    def end(self) -> None:
        """End the exchange."""
        self._ended.set()
        self._wake.set()
        self._thread.join(_INTERVAL)

    def _claim(self) -> None:
        """Raise RunError if another process has the same rank: another run uses the port, which must not fail."""
        rank = self.launch.rank
        if self._store.add(f"claimed/{rank}", 1) > 1:
            raise RunError(f"{self._where}: another process is rank {rank} there; two runs need different ports")

    def _run(self) -> None:
        while not self._ended.is_set():
            self._wake.wait(_INTERVAL)
            self._wake.clear()
            try:
                self._exchange()
            except RuntimeError:  # of the connection
                self.lost = True
                return

    def _exchange(self) -> None:
        with self._lock:
            self.own = own = replace(self.own, beat=self.own.beat + 1)
        self._store.set(self._keys[self.launch.rank], json.dumps(asdict(own)))
        view = _View(dict(self.view.states), dict(self.view.changed))
        self.first_present = self.first_present or self._store.check(self._keys[:1])
        if self.all_present or self._store.check(self._keys):
            now = time.monotonic()
            for rank, text in enumerate(self._store.multi_get(self._keys)):
                state = PeerState(**json.loads(text))
                if rank not in view.states or view.states[rank].beat != state.beat:
                    view.changed[rank] = now
                view.states[rank] = state
        proposed = "" if self._proposed is None else json.dumps(asdict(self._proposed))
        recorded = self._store.compare_set("failure", "", proposed)
        view.failure = Failure(**json.loads(recorded)) if recorded else None
        self.view, self.read_at = view, time.monotonic()
        with self._exchanged:
            self._exchanges += 1
            self._exchanged.notify_all()


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _status(pid: int) -> tuple[str, str]:
    """Return the state of a process as a letter, "" if there is none, and the time of its start."""
    fields = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return (fields[0], fields[19]) if len(fields) > 19 else ("", "")
