"""Run programs like a user and parse their output."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from mlperf.util.signals import STOPPING

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "test" / "golden"
RUNS: dict[str, Any] = json.loads((GOLDEN / "runs.json").read_text())

_LOSS = re.compile(r"^Finished training it (\d+)/(\d+) of epoch (\d+), (-?[\d.]+) ms/it, loss ([\d.]+),")


@dataclass(frozen=True)
class Finished:
    """Exit status and output of a program."""

    status: int
    stdout: str
    stderr: str

    @property
    def losses(self) -> list[float]:
        """The loss of each progress line."""
        return [float(match[5]) for line in self.stdout.splitlines() if (match := _LOSS.match(line))]

    @property
    def progress_lines(self) -> list[str]:
        """The progress lines themselves."""
        return [line for line in self.stdout.splitlines() if _LOSS.match(line)]

    @property
    def metric_lines(self) -> list[str]:
        """The lines with the test metrics."""
        return [line for line in self.stdout.splitlines() if line.startswith(("recall", " accuracy"))]


# The scripts of this repository and the functions behind them.
_MODULES = {
    "dlrm_s_pytorch.py": "mlperf.cli.train",
    "tools/check_submission.py": "mlperf.cli.check",
    "tools/convert_checkpoint.py": "mlperf.cli.convert_checkpoint",
    "tools/make_sample.py": "mlperf.cli.sample",
    "tools/make_submission.py": "mlperf.cli.submit",
    "tools/plot_run.py": "mlperf.cli.plot",
    "tools/prepare_criteo.py": "mlperf.cli.prepare",
    "tools/report.py": "mlperf.cli.report",
    "tools/stack_distances.py": "mlperf.cli.stack_distances",
    "tools/verify_data.py": "mlperf.cli.verify",
    "tools/visualize.py": "mlperf.cli.visualize",
}


def run_program(*flags: str, cwd: Path, program: str = "dlrm_s_pytorch.py", **variables: str) -> Finished:
    """Run a program of this repository in folder `cwd`, in this process, and return its output.

    A process of its own costs seconds for its imports; `start_program` is for tests that need one.
    """
    if program not in _MODULES:
        return start_program(*flags, cwd=cwd, program=program, **variables)
    main = main_of(program)
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        mock.patch.dict(os.environ, variables),
        mock.patch.object(sys, "argv", [program, *flags]),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        same_signal_handlers(),
    ):
        try:
            status = main(flags)
        except SystemExit as error:  # --help and --version
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
    return Finished(status, stdout.getvalue(), stderr.getvalue())


def main_of(program: str) -> Callable[[Sequence[str]], int]:
    """Return the function behind a program of this repository."""
    main: Callable[[Sequence[str]], int] = importlib.import_module(_MODULES[program]).main
    return main


@contextlib.contextmanager
def same_signal_handlers() -> Iterator[None]:
    """Restore the handlers of signals afterwards: the entry point of a program replaces them."""
    handlers = [signal.getsignal(number) for number in STOPPING]
    try:
        yield
    finally:
        for number, handler in zip(STOPPING, handlers, strict=True):
            signal.signal(number, handler)


def start_program(*flags: str, cwd: Path, program: str = "dlrm_s_pytorch.py", **variables: str) -> Finished:
    """Run a program of this repository in folder `cwd`, in a new process, and return its output."""
    done = subprocess.run(
        [sys.executable, str(ROOT / program), *flags],
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def read_events(log: Path, *keys: str) -> list[dict[str, Any]]:
    """Return the MLPerf events of a log, optionally only those with the given keys."""
    lines = log.read_text().splitlines()
    events = [json.loads(line.removeprefix(":::MLLOG ")) for line in lines if line.startswith(":::MLLOG ")]
    return [event for event in events if not keys or event["key"] in keys]


def golden_flags(name: str, place: Path) -> list[str]:
    """Return the flags of golden run `name`, with its data prepared at `place` from the golden raw text."""
    flags = [flag for flag in shlex.split(RUNS[name]["flags"]) if not flag.startswith(("--save", "--load"))]
    raw = {"terabyte": GOLDEN / "terabyte" / "day", "kaggle": GOLDEN / "kaggle" / "train.txt"}
    return [*flags, f"--raw-data-file={raw[RUNS[name]['data']]}", f"--processed-data-file={place}"]


def check_submission(*arguments: str | Path, cwd: Path) -> Finished:
    """Run the check of submissions and assert that it prints no traceback."""
    run = run_program(*map(str, arguments), cwd=cwd, program="tools/check_submission.py")
    assert "Traceback" not in run.stdout + run.stderr
    return run


def verify_data(*arguments: str | Path, cwd: Path) -> Finished:
    """Run tools/verify_data.py in folder `cwd`."""
    return run_program(*map(str, arguments), cwd=cwd, program="tools/verify_data.py")


def official_package_check(package: Path, edition: str, cwd: Path) -> str:
    """Run the official package checker like its command line, after supplying the number of runs for dlrm."""
    program = (
        "from mlperf_logging.rcp_checker import rcp_checker as r;"
        "r.submission_runs['training'].setdefault('dlrm', 5);"
        "from mlperf_logging.package_checker import package_checker as p; p.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(package), "training", edition],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr
