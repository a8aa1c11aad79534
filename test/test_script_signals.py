"""A signal sent to run_and_time.sh alone ends what it runs, in each phase."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from program import ROOT
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


def test_closed_terminal_does_not_change_the_status_of_the_signal(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "x_train.bin").write_bytes(bytes(160))
    environment = {"DLRM_PYTHON": str(python_that_waits(tmp_path, "dlrm_s_pytorch.py")), "DATADIR": str(tmp_path)}
    environment |= {"PATH": "/usr/bin:/bin", "CONFIG": "sample", "DROP_CACHES": "false"}
    terminal, end = os.openpty()
    with subprocess.Popen([str(clone / "run_and_time.sh")], env=environment, stdout=end, stderr=end) as script:
        os.close(end)
        started = clone / "started"
        while not (started.exists() and started.read_text()):
            assert script.poll() is None
            time.sleep(0.01)
        os.close(terminal)
        script.send_signal(signal.SIGHUP)
        assert script.wait(timeout=60) == 128 + signal.SIGHUP


def test_program_stopped_with_another_status_does_not_change_that_of_the_signal(tmp_path: Path) -> None:
    code = f'set -euo pipefail; source "{ROOT}/tools/signals.sh"; answer=$(kill -INT $$; exit 7); echo $answer'
    done = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, b"", b"")


def test_program_reads_the_input_of_its_script(tmp_path: Path) -> None:
    code = f'set -euo pipefail; source "{ROOT}/tools/signals.sh"; run_for_line name cat; run cat; echo "$name"'
    done = subprocess.run(["bash", "-c", code], input="password\n", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "password\n", "")
