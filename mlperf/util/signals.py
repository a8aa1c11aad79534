"""Signals that end a program: raised as exceptions in the main thread, and deferred where none may interrupt."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mlperf.util.errors import RunError, UsageError

# All signals that end a process and are sent from outside. Not among them: SIGKILL, signals of faults such as
# SIGSEGV, and SIGPIPE and SIGXFSZ, which Python ignores, so that the system call fails.
STOPPING = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGTERM,
    signal.SIGXCPU,
    signal.SIGVTALRM,
    signal.SIGPROF,
)

_REPEAT_SECONDS = 0.01  # after which the destructor that dropped an exception has ended


class Stopped(KeyboardInterrupt):
    """A signal arrived that ends the program. Like Ctrl-C, it is no `Exception`, so that no handler hides it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def reason(stopped: KeyboardInterrupt) -> str:
    """Return what ended a program: "interrupted", "terminated" or "stopped by SIGHUP"."""
    number = stopped.number if isinstance(stopped, Stopped) else signal.SIGINT
    if number == signal.SIGINT:
        return "interrupted"
    return "terminated" if number == signal.SIGTERM else f"stopped by {signal.Signals(number).name}"


def exit_status(stopped: KeyboardInterrupt) -> int:
    """Return the exit status, 128 plus the number of the signal, as shells report it."""
    return 128 + (stopped.number if isinstance(stopped, Stopped) else signal.SIGINT)


class _Delivery:
    """Receives the signals of this process. At most one is raised, in the main thread.

    deferrals: number of open `deferred` blocks; a signal that arrives in one waits in `arrived`.
    number: the signal that was raised, or None. is_dropped: Python dropped its exception, which is to be repeated.
    replaced: handlers that this one stands for, by signal, in a `deferred` block outside of a program.
    """

    def __init__(self) -> None:
        self.deferrals = 0
        self.replaced: dict[int, Any] = {}
        self.start()

    def start(self) -> None:
        """Forget the signals that have arrived."""
        self.arrived: int | None = None
        self.number: int | None = None
        self.raised = self.is_dropped = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.deferrals > 0:
            if self.arrived is None:
                self.arrived = number
        elif number in self.replaced:
            self.forward(number, frame)
        else:
            self.stop(number)

    def stop(self, number: int) -> None:
        """Raise the first signal, and ignore others: what is being closed must not be interrupted."""
        if not self.raised:
            self.raised, self.number = True, number
            raise Stopped(number)

    def ignore(self) -> None:
        """Raise no signal any more, also none that waits, and replace no error by the one that was raised."""
        self.raised, self.arrived, self.is_dropped, self.number = True, None, False, None

    def instead_of(self, error: BaseException | None) -> Stopped | None:
        """Return the exception of the signal if `error` came in its place, or None.

        Code that a signal interrupts may fail with an error of its own: a compiler whose callback returns nothing,
        because Python dropped the exception there, or a library that replaces the exception.
        """
        if self.number is None or not isinstance(error, Exception):
            return None
        self.is_dropped = False
        stopped = Stopped(self.number)
        if isinstance(error, RunError | UsageError):
            stopped.add_note(str(error))
        return stopped

    def forward(self, number: int, frame: FrameType | None) -> None:
        """Do what the signal did before `deferred` replaced its handler."""
        handler = self.replaced[number]
        if callable(handler):
            handler(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def deliver(self) -> None:
        """Deliver the signal that waits, if no other block defers it."""
        if self.deferrals == 0 and self.arrived is not None:
            number, self.arrived = self.arrived, None
            signal.raise_signal(number)


_delivery = _Delivery()


def signal_behind(error: BaseException) -> Stopped | None:
    """Return the exception of the signal that was raised before `error`, which may follow from it; else None."""
    return _delivery.instead_of(error)


def ignore_signals() -> None:
    """Ignore signals from now on: the program is about to end."""
    _delivery.ignore()


@contextmanager
def raised_in_program() -> Iterator[None]:
    """Raise the first signal that ends the program as `Stopped` in the main thread, and ignore others.

    An error that follows the signal, for example of a compiler that it interrupted, is replaced by `Stopped`.
    After the block all signals are ignored, because the program is about to end. Signals that the program was
    started with ignoring, as `nohup` does for SIGHUP, stay ignored.
    """
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _delivery)
    _delivery.start()
    try:
        with _dropped_exceptions_repeated():
            yield
    except Exception as error:
        if (stopped := _delivery.instead_of(error)) is not None:
            raise stopped from error
        raise
    finally:
        _delivery.raised = True


@contextmanager
def handlers_of_caller() -> Iterator[None]:
    """Restore the handlers of signals after a program that another program calls, such as a notebook.

    A process whose Ctrl-C raises KeyboardInterrupt is another program: ours start with the default action. Those
    keep ignoring signals until they end.
    """
    is_called = callable(signal.getsignal(signal.SIGINT))
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if is_called and signal.getsignal(number) is _delivery:
                signal.signal(number, handler)


class deferred:
    """Context manager: no signal interrupts the block. One that arrives in it is delivered at its end.

    In threads other than the main thread, which no signal interrupts, this has no effect.
    """

    def __enter__(self) -> deferred:
        self._is_main = threading.current_thread() is threading.main_thread()
        if not self._is_main:
            return self
        self._outer = _delivery.deferrals
        _delivery.deferrals = self._outer + 1
        self._replaced = []
        for number in STOPPING:
            handler = signal.getsignal(number)
            # A handler that was not set from Python (None) could not be restored, so it is not replaced.
            if handler not in (_delivery, signal.SIG_IGN, None):
                _delivery.replaced[number] = handler
                self._replaced.append(number)
                signal.signal(number, _delivery)
        return self

    def __exit__(self, *failure: object) -> None:
        if not self._is_main:
            return
        for number in self._replaced:
            signal.signal(number, _delivery.replaced.pop(number))
        _delivery.deferrals = self._outer
        _delivery.deliver()


class delivered:
    """Context manager for use within `deferred`: signals interrupt this block, also one that is waiting.

    An error that follows the signal is replaced by `Stopped`, as in `raised_in_program`.
    """

    def __enter__(self) -> None:
        self._is_main = threading.current_thread() is threading.main_thread()
        if not self._is_main:
            return
        self._outer = _delivery.deferrals
        _delivery.deferrals = 0
        try:
            _delivery.deliver()
        except BaseException:
            _delivery.deferrals = self._outer
            raise

    def __exit__(self, kind: object, failure: BaseException | None, trace: object) -> None:
        if not self._is_main:
            return
        _delivery.deferrals = self._outer
        if (stopped := _delivery.instead_of(failure)) is not None:
            raise stopped from failure


@contextmanager
def _dropped_exceptions_repeated() -> Iterator[None]:
    """Send a signal again if Python dropped its exception.

    Python drops exceptions that are raised in destructors and in callbacks of weak references, which may run at
    any time. The program would continue, and ignore further signals.
    """
    report = sys.unraisablehook
    ended = threading.Event()
    main = threading.main_thread().ident
    assert main is not None

    def send(number: int, is_reported: threading.Event) -> None:
        is_reported.wait()
        if not ended.wait(_REPEAT_SECONDS) and _delivery.is_dropped:
            _delivery.raised = False
            signal.pthread_kill(main, number)

    def repeat(dropped: sys.UnraisableHookArgs) -> None:
        if not isinstance(dropped.exc_value, Stopped):
            report(dropped)
            return
        is_reported = threading.Event()
        _delivery.is_dropped = True
        threading.Thread(target=send, args=[dropped.exc_value.number, is_reported], daemon=True).start()
        is_reported.set()

    sys.unraisablehook = repeat
    try:
        yield
    finally:
        sys.unraisablehook = report
        ended.set()
