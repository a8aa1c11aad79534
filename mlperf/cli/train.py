"""The trainer, `dlrm_s_pytorch.py`."""

from __future__ import annotations

import atexit
import faulthandler
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack

from mlperf.distributed.environment import (
    choose_threads,
    hide_messages_of_torch,
    output_of_first,
    output_of_first_if_known,
    signals_of_first,
)
from mlperf.distributed.launchers import Launch, find_launch
from mlperf.settings.from_flags import parse
from mlperf.util.errors import origin_of
from mlperf.util.printable import one_line
from mlperf.util.program import program_name, run_program

__all__ = ["main", "parse"]

EXIT_TARGET_MISSED = 3

_EXIT_SECONDS = 5  # for functions that are registered to be called at the end


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 0 success, 1 failure, 2 usage error, 3 target missed.

    One of several processes ends here after a failure.
    """
    program = program_name("dlrm_s_pytorch.py")
    launches: list[Launch] = []

    def work() -> int:
        if _asks_for_help(arguments):  # whatever variables a launcher has left
            with output_of_first_if_known():
                return _train(arguments, program)
        launch = find_launch()
        if launch is None:
            return _train(arguments, program)
        launches.append(launch)
        choose_threads(launch)
        hide_messages_of_torch()
        with output_of_first(launch), ExitStack() as stack:
            with signals_of_first(launch):
                from mlperf.distributed.watch import watched  # needs torch

                stack.enter_context(watched(launch, program))
            return _train(arguments, program)

    try:
        status = run_program(program, work)
    except Exception as error:
        if not launches:
            raise
        traceback.print_exc()
        what = one_line(f"{type(error).__name__}: {error}")
        print(f"{program}: {origin_of(error)}error: {what}", file=sys.stderr)
        status = 1
    if launches and status not in (0, EXIT_TARGET_MISSED):
        _exit(status)
    return status


def _asks_for_help(arguments: Sequence[str] | None) -> bool:
    """Return whether the program prints a text and ends."""
    given = sys.argv[1:] if arguments is None else arguments
    return not {"-h", "--help", "--version"}.isdisjoint(given)


def _train(arguments: Sequence[str] | None, program: str) -> int:
    settings = parse(arguments, program)
    # Imported late: --help and usage errors need no torch.
    from mlperf.runner.benchmark import run_benchmark
    from mlperf.training.events import Outcome

    return 0 if run_benchmark(settings).outcome is Outcome.SUCCESS else EXIT_TARGET_MISSED


def _exit(status: int) -> None:
    """End the process without closing the process group, which could wait for processes that have ended."""
    with open(os.devnull, "w", encoding="utf-8") as null:
        faulthandler.dump_traceback_later(_EXIT_SECONDS, exit=True, file=null)
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
