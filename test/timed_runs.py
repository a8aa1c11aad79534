"""Calls of run_and_time.sh with the environment of the tests."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from program import Finished

# Stands for the trainer, whether torchrun starts it or not: prints what it is called with.
PYTHON = f"""#!/bin/bash
case "$*" in
    *dlrm_s_pytorch.py*)
        printf 'argument: %s\\n' "$@"
        exit "${{TRAINER_STATUS:-3}}" ;;
esac
exec "{sys.executable}" "$@"
"""


def run_and_time(
    clone: Path, *flags: str, cwd: Path | None = None, script: str = "run_and_time.sh", **variables: str
) -> Finished:
    """Run a script of a copy of the repository with flags and environment variables."""
    done = subprocess.run(
        [str(clone / script), *flags],
        cwd=cwd or clone,
        env={"PATH": "/usr/bin:/bin", "DLRM_PYTHON": sys.executable, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def result(run: Finished) -> list[str]:
    """Return the fields of the last line of a run."""
    return run.stdout.splitlines()[-1].split(",")


def write_python(folder: Path) -> str:
    """Write a Python for DLRM_PYTHON that prints the arguments of the trainer instead of running it.

    Its status is TRAINER_STATUS, by default 3.
    """
    python = folder / "python3"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return str(python)


def arguments(output: str) -> list[str]:
    """Return what the trainer was called with: of each of several processes, one after the other."""
    return re.findall("^argument: (.*)$", output, re.MULTILINE)
