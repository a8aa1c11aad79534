"""Runs tools/make_submission.py for the tests, and writes what it takes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from foreign_logs import as_package
from program import Finished, run_program

SYSTEM = (
    *("--set", "host_processor_frequency=2 GHz", "--set", "host_storage_type=NVMe SSD"),
    *("--set", "host_networking=none", "--set", "host_memory_configuration=2 x 8 GB", "--set", "cooling=air"),
)


def write_system_file(folder: Path) -> Path:
    """Write a whole system description for --system-file; return the file."""
    file = as_package(folder / "results" / "box" / "dlrm") / "systems" / "box.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({name: value or "as it is" for name, value in content.items()}))
    return file


def make(*arguments: str | Path, cwd: Path, **variables: str) -> Finished:
    """Run tools/make_submission.py; it never ends in a traceback."""
    unset = dict.fromkeys(("BENCHMARK", "EDITION", "SEED", "CONFIG", "DATADIR"), "")
    environment = {**unset, "DLRM_PYTHON": sys.executable, **variables}
    run = run_program(*map(str, arguments), program="tools/make_submission.py", cwd=cwd, **environment)
    assert "Traceback" not in run.stderr
    return run
