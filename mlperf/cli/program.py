"""What every program here does around its work: errors and signals become one line and an exit status."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from mlperf.util.errors import RunError, UsageError

MIN_PYTHON = (3, 11)  # as in pyproject.toml: the sources also run where nothing is installed
EXIT_SIGINT = 130
EXIT_SIGTERM = 143


class Terminated(BaseException):
    """SIGTERM arrived."""


def program_name(tool: str) -> str:
    """Return the name that messages begin with: of the installed script `dlrm-...` if that runs, else `tool`."""
    typed = Path(sys.argv[0]).name
    return typed if typed.startswith("dlrm-") else tool


def run_program(name: str, work: Callable[[], int]) -> int:
    """Return what `work` returns, or the status of the error or the signal that ended it, said on stderr."""

    def stop(signum: int, frame: FrameType | None) -> None:
        # Once: what is left to do, closing a log or removing a file, must not be interrupted in its turn.
        for number in heeded:
            signal.signal(number, signal.SIG_IGN)
        raise Terminated if signum == signal.SIGTERM else KeyboardInterrupt

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: no name of a file ends a program
    signals = (signal.SIGINT, signal.SIGTERM)
    heeded = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
    for number in heeded:
        signal.signal(number, stop)
    try:
        if sys.version_info < MIN_PYTHON:
            raise RunError(f"needs Python {MIN_PYTHON[0]}.{MIN_PYTHON[1]} or newer; this is {sys.executable}")
        return work()
    except (UsageError, RunError) as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return error.exit_status
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "mlperf":
            raise
        print(
            f"{name}: error: the package {error.name} is not installed in {sys.executable}; "
            "tools/setup.sh makes an environment that has it and prints the path of its Python",
            file=sys.stderr,
        )
        return RunError.exit_status
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return EXIT_SIGINT
    except Terminated:
        print(f"{name}: terminated", file=sys.stderr)
        return EXIT_SIGTERM
