"""Check that all processes run the same: flags, and versions of the program and its packages."""

from __future__ import annotations

from typing import Any

import torch

from mlperf.distributed.agreement import require_all_equal
from mlperf.distributed.processes import current
from mlperf.engines.torchrec.packages import installed_version
from mlperf.settings.flags import Flag, flag_values
from mlperf.settings.settings import Settings
from mlperf.version import __version__

# Flags that may differ between processes: its number, and the name of a file that only rank 0 writes.
_OWN = ("--local_rank", "--mlperf-log-file")
_PACKAGES = ("torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu", "numpy", "numba")


def require_same_run(settings: Settings) -> None:
    """Raise the same UsageError on all processes if a flag or a version is not the same on all of them.

    All nodes must have as many processes.
    """
    require_all_equal(
        {"processes of a node": str(current().local_size)}
        | _versions()
        | {flag.name: _shown(flag, value) for flag, value in flag_values(settings) if flag.name not in _OWN}
    )


def _shown(flag: Flag, value: Any) -> str:
    if value is None:
        return "not set"
    return str(value) if flag.kind.is_switch or isinstance(value, bool) else flag.kind.show(value)


def _versions() -> dict[str, str]:
    """Return the versions of this program and of what computes or communicates."""
    installed = {package: installed_version(package) for package in _PACKAGES}
    versions = {"this program": __version__, "PyTorch": torch.__version__, **installed}
    return {f"version of {what}": version for what, version in versions.items() if version is not None}
