"""Signals end a program wherever they arrive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from program import ROOT, same_signal_handlers

from mlperf.util.errors import RunError
from mlperf.util.program import run_program
from mlperf.util.signals import STOPPING, Stopped, deferred, delivered


@pytest.fixture(autouse=True)
def same_handlers() -> Iterator[None]:
    """Restore the handlers of this process."""
    with same_signal_handlers():
        yield


REASONS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Ended:
    """Receives a signal when it is destroyed."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)


class Other:
    """Can have weak references."""


def in_a_destructor(number: int) -> None:
    Ended(number)


def in_the_callback_of_a_weak_reference(number: int) -> None:
    thing = Other()
    reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), number))
    del thing
    assert reference() is None


@pytest.mark.parametrize("arrive", [in_a_destructor, in_the_callback_of_a_weak_reference])
@pytest.mark.parametrize("number", STOPPING)
def test_signal_that_arrives_where_python_drops_exceptions_ends_the_program(
    arrive: Callable[[int], None], number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        arrive(number)
        time.sleep(5)
        return 0

    assert run_program("x.py", work) == 128 + number
    assert capsys.readouterr().err == f"x.py: {REASONS.get(number, f'stopped by {number.name}')}\n"


@pytest.mark.parametrize("number", STOPPING)
def test_every_signal_that_would_kill_the_program_ends_it_with_one_line(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        os.kill(os.getpid(), number)
        time.sleep(5)
        return 0

    assert run_program("x.py", work) == 128 + number
    assert capsys.readouterr().err == f"x.py: {REASONS.get(number, f'stopped by {number.name}')}\n"


def fails_after_a_dropped_signal() -> None:
    in_a_destructor(signal.SIGTERM)
    raise RuntimeError("nothing was compiled")


def replaces_the_signal() -> None:
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    except BaseException:
        raise ImportError("cannot be imported") from None


@pytest.mark.parametrize("fail", [fails_after_a_dropped_signal, replaces_the_signal])
def test_error_that_a_signal_causes_is_reported_as_the_signal(
    fail: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        with deferred():
            try:
                with delivered():
                    fail()
            except BaseException as error:
                seen.append(type(error))
                raise
        return 0

    seen: list[type[BaseException]] = []
    for each in (work, fail):
        assert run_program("x.py", each) == 128 + signal.SIGTERM
        assert capsys.readouterr().err == "x.py: terminated\n"
    assert seen == [Stopped]


def test_file_that_cannot_be_written_after_a_signal_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            raise RunError("x.log: the disk is full")

    assert run_program("x.py", work) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "x.py: terminated; x.log: the disk is full\n"


def test_error_without_a_signal_stays_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        with deferred(), delivered():
            raise RunError("x.bin: is damaged")

    assert run_program("x.py", work) == 1
    assert capsys.readouterr().err == "x.py: error: x.bin: is damaged\n"


def test_all_deadly_signals_are_handled_but_those_of_faults_and_those_that_python_ignores() -> None:
    harmless = {"SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH", "SIGTSTP", "SIGTTIN", "SIGTTOU"}
    faults = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS", "SIGSTKFLT"}
    others = {"SIGKILL", "SIGSTOP", "SIGPIPE", "SIGXFSZ", "SIGIO", "SIGPWR", "SIGRTMIN", "SIGRTMAX"}
    names = {number.name for number in signal.Signals} - harmless - faults - others
    assert {number.name for number in STOPPING} == names


def test_later_signals_are_ignored_while_the_program_closes() -> None:
    def work() -> int:
        try:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(5)
        finally:
            for number in STOPPING:
                os.kill(os.getpid(), number)
            closed.append(True)
        return 0

    closed: list[bool] = []
    assert run_program("x.py", work) == 128 + signal.SIGHUP
    assert closed == [True]


def test_signal_ignored_from_the_start_stays_ignored() -> None:
    def work() -> int:
        os.kill(os.getpid(), signal.SIGHUP)
        return 7

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert run_program("x.py", work) == 7


def test_deferred_signal_is_delivered_at_the_end_of_the_block() -> None:
    def work() -> int:
        with deferred(), deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
            steps.append("in the block")
        steps.append("after it")
        return 0

    steps: list[str] = []
    assert run_program("x.py", work) == 128 + signal.SIGTERM
    assert steps == ["in the block"]


def test_signal_interrupts_a_block_in_which_it_is_delivered_but_not_the_closing_after_it() -> None:
    def work() -> int:
        with deferred():
            os.kill(os.getpid(), signal.SIGUSR1)
            try:
                with delivered():
                    steps.append("never")
            except Stopped as stopped:
                steps.append(signal.Signals(stopped.number).name)
            os.kill(os.getpid(), signal.SIGTERM)
            steps.append("closed")
        return 5

    steps: list[str] = []
    assert run_program("x.py", work) == 5  # the exception was handled, and the second signal came too late
    assert steps == ["SIGUSR1", "closed"]


def test_deferring_signals_needs_no_program_around_it() -> None:
    """As in a notebook, where Ctrl-C is Python's own."""
    steps: list[str] = []

    def work() -> None:
        with deferred():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            steps.append("in the block")
        steps.append("after it")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["in the block"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_deferring_signals_has_no_effect_in_other_threads() -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: deferred().__enter__()).result()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


@pytest.mark.parametrize("is_stopped", [False, True])
def test_program_that_calls_another_one_gets_its_signals_back(is_stopped: bool) -> None:
    def work() -> int:
        if is_stopped:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        return 0

    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = [signal.getsignal(number) for number in STOPPING]
    assert run_program("x.py", work) == (128 + signal.SIGTERM if is_stopped else 0)
    assert [signal.getsignal(number) for number in STOPPING] == before


@pytest.mark.parametrize(
    "command", [["dlrm_s_pytorch.py"], ["tools/verify_data.py"], ["-m", "mlperf.cli.check"], ["-m", "mlperf"]]
)
def test_ctrl_c_during_the_imports_prints_no_traceback(command: list[str], tmp_path: Path) -> None:
    # Stands for a module that is being imported.
    (tmp_path / "argparse.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_importing_the_package_leaves_ctrl_c_to_other_programs() -> None:
    code = "import mlperf, signal; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
