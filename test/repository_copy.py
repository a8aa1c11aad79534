"""A copy of the repository without an environment, data and results, for tests of its scripts."""

from __future__ import annotations

import shutil
from pathlib import Path

from program import ROOT

_PARTS = (
    *("dlrm_s_pytorch.py", "mlperf", "bench", "tools", "run_and_time.sh", "pyproject.toml"),
    *("requirements.txt", "requirements-distributed.txt", "requirements-distributed-gpu.txt"),
)


def copy_repository(folder: Path) -> Path:
    """Copy what the scripts need into a folder, which is created if it is missing, and return it."""
    folder.mkdir(exist_ok=True)
    for part in _PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, folder)
    return folder
