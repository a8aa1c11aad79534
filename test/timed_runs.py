"""Calls of run_and_time.sh with the environment of the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from program import Finished


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
