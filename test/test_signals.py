"""Signals end a program wherever they arrive."""

from __future__ import annotations

import os
import signal
import time
import weakref
from collections.abc import Callable, Iterator

import pytest
from program import same_signal_handlers

from mlperf.cli.program import run_program


@pytest.fixture(autouse=True)
def same_handlers() -> Iterator[None]:
    """Restore the handlers of this process."""
    with same_signal_handlers():
        yield


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
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_that_arrives_where_python_drops_exceptions_ends_the_program(
    arrive: Callable[[int], None], number: int, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        arrive(number)
        time.sleep(5)
        return 0

    assert run_program("x.py", work) == status
    assert capsys.readouterr().err == f"x.py: {'interrupted' if status == 130 else 'terminated'}\n"
