"""Ends all processes of a run when one of them fails, ends, stops responding or receives a signal.

The main thread may be blocked in a collective operation, where it handles no signal. A thread therefore watches
the other processes and the signals. It interrupts the main thread; if that does not end, it ends the process.
One process prints the message, the others end quietly.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType

from mlperf.distributed.evidence import has_ended, is_here, lost_peer, lost_store
from mlperf.distributed.failures import error_instead, is_of_connection, kind_of, line_of
from mlperf.distributed.launchers import Launch
from mlperf.distributed.peers import Failure, Peers
from mlperf.util.errors import EndedQuietlyError, RunError, UsageError
from mlperf.util.signals import STOPPING, Stopped, deferred, ignore_signals, signal_behind

_TICK = 0.2  # seconds between two looks of the thread at the others
_SHORT_TICK = 0.05  # the same while the main thread waits for them
_STOPPED = 2.0  # seconds between two looks after which the process counts as having been stopped


@dataclass(frozen=True)
class Limits:
    """Times in seconds.

    silent: without a sign of life, after which a process counts as lost. together: in which all processes receive
    a signal that was sent to all. unwinding: that the main thread has to end what it does and to close its files.
    leaving: that it may then take to find out and report why the run ends. closing: for the thread that closes the
    log instead. starting: in which all processes must have started.
    """

    silent: float = 12.0
    together: float = 3.0
    unwinding: float = 4.0
    leaving: float = 25.0
    closing: float = 5.0
    starting: float = 300.0


LIMITS = Limits()
# Seconds in which other processes may find the same error, by kind of failure.
_SETTLING = {"usage": 3.0, "error": 1.0}

_STDERR = 2  # the file descriptor

# Closes what must not stay open when the process ends without its main thread; returns how to continue, or None.
# Its argument is whether the run failed; False: it was interrupted.
Closing = Callable[[bool], str | None]


class Watch:
    """Watches the other processes of a run, in a `with` block of the main thread.

    At its end, an exception is replaced by that of the failure that ends the run: in the process that reports it,
    an error with its rank; in the others, `EndedQuietlyError`.
    """

    def __init__(self, launch: Launch, program: str, limits: Limits = LIMITS) -> None:
        self.launch = launch
        self.limits = limits
        self.peers = Peers(launch)
        self.closing: Closing | None = None
        self._program = program
        self._failure: Failure | None = None
        self._noticed: float | None = None  # when the failure was known
        self._signal: tuple[int, float] | None = None  # the first that arrived, and when
        self._left: float | None = None  # when the main thread began to leave the block
        self._interrupted = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    @property
    def failure(self) -> Failure | None:
        """Why the run ends, or None."""
        return self._failure

    def wait_for_all(self) -> None:
        """Wait until all processes have started. RunError if that takes too long."""
        self._wait_at_start(lambda: self.peers.all_present)

    def require_own_gpu(self, gpu: str) -> None:
        """Raise UsageError if two processes of a node use the same GPU. gpu: as in `PeerState`."""
        self.peers.tell(gpu=gpu)
        self._wait_at_start(lambda: all(state.gpu is not None for state in self.peers.view.states.values()))
        users: dict[tuple[str, str | None], int] = {}
        for rank, state in sorted(self.peers.view.states.items()):
            other = users.setdefault((state.host, state.gpu), rank)
            if other != rank:
                raise UsageError(
                    f"ranks {other} and {rank} use the same GPU ({state.gpu}); start at most one process for each "
                    "GPU"
                )

    def _wait_at_start(self, is_met: Callable[[], bool]) -> None:
        if not _wait(self.limits.starting, is_met):
            raise RunError(
                f"not all {self.launch.size} processes have started within {self.limits.starting:.0f} s"
            )

    def __enter__(self) -> Watch:
        with deferred():
            self._pipe = os.pipe()
            for end in self._pipe:
                os.set_blocking(end, False)
            self._main = threading.get_ident()
            self._former = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        with deferred():
            if error is None or (isinstance(error, SystemExit) and not error.code):
                self._finish()
                return
            self._left = time.monotonic()
            stopped = signal_behind(error)
            ignore_signals()
            replaced = self._leave(stopped or error)
            self._stop()
        if replaced is not error:
            raise replaced from error

    def _finish(self) -> None:
        self.peers.tell(self.limits.closing, done=True)
        self._wait_for_others(self.limits.closing)
        self._stop()

    def _wait_for_others(self, seconds: float) -> None:
        """Wait for the others if this process has the store: they would take its end for a failure."""
        if self.launch.rank > 0 or self.launch.has_agent:
            return

        def are_done() -> bool:
            return all(state.done or has_ended(self.peers, rank) for rank, state in self.peers.view.states.items())

        _wait(seconds, are_done)

    def _stop(self) -> None:
        self._ended.set()
        self._thread.join(self.limits.unwinding)
        self.peers.end()
        signal.set_wakeup_fd(self._former)
        for end in self._pipe:
            os.close(end)

    def _leave(self, error: BaseException) -> BaseException:
        """Return the exception with which the process ends. Waits until the cause of the end is known."""
        rank = self.launch.rank
        if isinstance(error, KeyboardInterrupt):
            own = Failure(rank, "signal", str(_number_of(error)), rank)
            if not self._interrupted:
                self._receive(_number_of(error))
            failure = self._awaited(self.limits.together + self.limits.unwinding)
        elif is_of_connection(error):
            own = Failure(rank, "error", "lost the connection to the other processes", rank)
            failure = self._awaited(self.limits.silent + self.limits.unwinding)
        else:
            own = Failure(rank, kind_of(error), str(error), rank)
            self.peers.tell(error=own.text)
            failure = None
        if failure is None:
            self.peers.record(own)
            failure = self._failure = self._awaited(self.limits.unwinding) or own
        self._wait_for_silent(failure)
        if failure.by == rank:
            ending = error_instead(error, failure, is_shared=failure == own and self._is_shared(own))
        else:
            self._wait_for_report(failure)
            ending = EndedQuietlyError(_status(failure, error))
        self.peers.tell(self.limits.closing, done=True)
        self._wait_for_others(self.limits.together)
        return ending

    def _awaited(self, seconds: float) -> Failure | None:
        """Return the failure that ends the run as soon as it is known, None if that takes longer."""
        _wait(seconds, lambda: self._failure is not None)
        return self._failure

    def _is_shared(self, own: Failure) -> bool:
        """Return whether all processes have found the error of this one."""

        def errors() -> list[str | None]:
            return [state.error for state in self.peers.view.states.values()]

        _wait(
            _SETTLING.get(own.kind, 0),
            lambda: self.peers.lost or (self.peers.all_present and None not in errors()),
        )
        return self.peers.all_present and set(errors()) == {own.text}

    def _wait_for_report(self, failure: Failure) -> None:
        """Let the process that reports the failure end first: launchers name the first one."""

        def has_reported() -> bool:
            state = self.peers.view.states.get(failure.by)
            return state is None or state.done

        _wait(_SETTLING.get(failure.kind, 0) + 1, lambda: self.peers.lost or has_reported())

    def _wait_for_silent(self, failure: Failure) -> None:
        """Wait until a process of this host that did not respond has ended: this one may be the last to end it."""
        _wait(self.limits.unwinding + self.limits.together + 1, lambda: not self._end_silent(failure))

    # The thread.

    def _run(self) -> None:
        continued = ticked = time.monotonic()
        while not self._ended.is_set():
            select.select([self._pipe[0]], [], [], _TICK)
            if time.monotonic() - ticked > _STOPPED:  # the process was stopped, not the store
                continued = time.monotonic()
            ticked = time.monotonic()
            self._read_signals()
            if self._failure is None:
                self._failure = self.peers.view.failure or lost_store(self.peers, self.limits.silent, continued)
            if self._failure is None:
                self._look_for_failures()
            self._act()

    def _read_signals(self) -> None:
        with suppress(BlockingIOError):
            for number in os.read(self._pipe[0], 1024):
                if number in STOPPING and not self._interrupted and self._left is None:
                    self._receive(number)

    def _receive(self, number: int) -> None:
        if self._signal is None:
            self._signal = number, time.monotonic()
            self.peers.tell(signal=number)

    def _look_for_failures(self) -> None:
        """Record a process that is lost, or the signal that all have received."""
        rank = self.launch.rank
        if (lost := lost_peer(self.peers, self.limits.silent)) is not None:
            self.peers.record(lost)
            return
        if self._signal is None:
            return
        number, arrived = self._signal
        states = self.peers.view.states.values()
        have_all = self.peers.all_present and all(state.signal is not None for state in states)
        waited = time.monotonic() - arrived - (0 if rank == 0 else 1)  # rank 0 knows best how to continue
        if waited > (0 if have_all else self.limits.together):
            # Until rank 0 is connected, it reports a signal by itself.
            by = rank if self.peers.first_present else 0
            self.peers.record(Failure(-1 if have_all else rank, "signal", str(number), by))

    def _act(self) -> None:
        """Interrupt the main thread if the run ends, and end the process if the main thread does not."""
        now = time.monotonic()
        if self._failure is not None and self._noticed is None:
            self._noticed = now
        if self._left is not None:
            if now - self._left > self.limits.leaving:
                self._abandon()
            return
        if self._failure is not None:
            assert self._noticed is not None
            self._end_silent(self._failure)
            settled = self._noticed + _SETTLING.get(self._failure.kind, 0)
            if now > settled and not self._interrupted:
                self._interrupt_main()
            if now > settled + self.limits.unwinding:
                self._abandon()

    def _end_silent(self, failure: Failure) -> bool:
        """End a process of this host that does not respond: its launcher would wait for it. False if done."""
        state = self.peers.view.states.get(failure.rank)
        if failure.kind != "lost" or state is None or not is_here(self.peers, failure.rank) or state.has_ended():
            return False
        # Continued, it ends by itself, and rank 0 closes the log.
        is_late = time.monotonic() > (self._noticed or 0) + self.limits.unwinding + self.limits.together
        with suppress(OSError):
            os.kill(state.pid, signal.SIGKILL if is_late else signal.SIGCONT)
        return True

    def _interrupt_main(self) -> None:
        self._interrupted = True
        if self._signal is None:  # otherwise its handler has been called
            number = next((number for number in STOPPING if callable(signal.getsignal(number))), None)
            if number is not None:
                signal.pthread_kill(self._main, number)

    def _abandon(self) -> None:
        """End the process without its main thread."""
        failure = self._failure or Failure(self.launch.rank, "error", "does not end", self.launch.rank)
        notes: list[str] = []
        closing = threading.Thread(target=self._close, args=(failure, notes), daemon=True)
        closing.start()
        closing.join(self.limits.closing)
        self._wait_for_silent(failure)
        if failure.by == self.launch.rank:
            os.write(_STDERR, f"{line_of(self._program, failure, notes)}\n".encode())
        os._exit(_status(failure))

    def _close(self, failure: Failure, notes: list[str]) -> None:
        if self.closing is not None and (note := self.closing(failure.kind != "signal")) is not None:
            notes.append(note)


_current: Watch | None = None


def is_failing() -> bool:
    """Return whether another process, not a signal, ends the run."""
    return _current is not None and _current.failure is not None and _current.failure.kind != "signal"


@contextmanager
def watched(launch: Launch, program: str = "mlperf", limits: Limits = LIMITS) -> Iterator[Watch]:
    """Watch the other processes, unless they are watched already. RunError if there is no connection to them.

    program: its name in messages.
    """
    global _current  # noqa: PLW0603
    if _current is not None:
        yield _current
        return
    watch = Watch(launch, program, limits)
    with watch:
        _current = watch
        try:
            yield watch
        finally:
            _current = None


@contextmanager
def closed_if_abandoned(closing: Closing) -> Iterator[None]:
    """Call `closing` if this process must be ended while its main thread is in the block."""
    watch = _current
    if watch is None:
        yield
        return
    watch.closing = closing
    try:
        yield
    finally:
        watch.closing = None


def _wait(seconds: float, is_met: Callable[[], bool]) -> bool:
    """Wait up to `seconds` until a condition is met, and return whether it is."""
    deadline = time.monotonic() + seconds
    while not (met := is_met()) and time.monotonic() < deadline:
        time.sleep(_SHORT_TICK)
    return met


def _number_of(error: KeyboardInterrupt) -> int:
    return error.number if isinstance(error, Stopped) else signal.SIGINT


def _status(failure: Failure, error: BaseException | None = None) -> int:
    """Return the exit status of a process that does not report the failure itself."""
    if isinstance(error, UsageError | RunError):
        return error.exit_status
    return 128 + int(failure.text) if failure.kind == "signal" else RunError.exit_status
