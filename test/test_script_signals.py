"""A signal sent to run_and_time.sh alone ends what it runs, in each phase."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from repository_copy import copy_repository

# Stands for a long program: reports its process in a file and ends at the first signal with the status of it.
WAITING = """
import os, signal, sys, time
for number in (1, 2, 3, 10, 12, 14, 15, 24):
    signal.signal(number, lambda number, frame: sys.exit(128 + number))
with open("started", "w") as file:
    print(os.getpid(), file=file)
time.sleep(60)
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a copy of the repository without an environment and data."""
    return copy_repository(tmp_path / "clone")


def python_that_waits(folder: Path, at: str) -> Path:
    """Write a python3 that waits for a signal if its command line contains `at`."""
    waiting, python = folder / "waiting.py", folder / "python3"
    waiting.write_text(WAITING)
    python.write_text(
        f'#!/bin/bash\ncase "$*" in *"{at}"*) set -- "{waiting}" ;; esac\nexec "{sys.executable}" "$@"\n'
    )
    python.chmod(0o755)
    return python


@pytest.mark.parametrize(
    ("phase", "number"),
    [
        ("-m venv", signal.SIGTERM),
        ("mlperf.cli.sample", signal.SIGHUP),
        ("mlperf.cli.prepare", signal.SIGTERM),
        ("mlperf.cli.prepare", signal.SIGUSR1),
        ("dlrm_s_pytorch.py", signal.SIGQUIT),
    ],
)
def test_signal_ends_the_script_and_what_it_runs(
    phase: str, number: signal.Signals, clone: Path, tmp_path: Path
) -> None:
    python = python_that_waits(tmp_path, phase)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    if phase != "-m venv":
        environment["DLRM_PYTHON"] = str(python)
    if phase == "mlperf.cli.prepare":
        (clone / "input").mkdir()
        (clone / "input" / "day_0").write_text("")
    if phase == "dlrm_s_pytorch.py":
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "x_train.bin").write_bytes(bytes(160))
        environment |= {"DATADIR": str(tmp_path / "data"), "CONFIG": "sample", "DROP_CACHES": "false"}
    with subprocess.Popen(
        [str(clone / "run_and_time.sh")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as script:
        started = clone / "started"
        while not (started.exists() and started.read_text()):
            assert script.poll() is None, script.communicate()
            time.sleep(0.01)
        script.send_signal(number)
        stdout, stderr = script.communicate(timeout=60)
    assert script.returncode == 128 + number, stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)
    assert ("RESULT" in stdout) == (phase == "dlrm_s_pytorch.py")
