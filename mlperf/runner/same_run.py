"""Check that all processes run the same: flags, versions of the program and its packages, size of the node."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import torch

from mlperf.distributed.agreement import require_all_equal
from mlperf.distributed.processes import current
from mlperf.settings.flags import Flag, flag_values
from mlperf.settings.settings import Settings
from mlperf.version import __version__

# Flags that may differ between processes: its number, and the name of a file that only rank 0 writes.
_OWN = ("--local_rank", "--mlperf-log-file")
_PACKAGES = ("torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu", "numpy", "numba")


def require_same_run(settings: Settings) -> None:
    """Raise the same UsageError on all processes if a flag or a version is not the same on all of them.

    Nor may the nodes have different numbers of processes: TorchRec and the log expect one.
    """
    require_all_equal(
        _versions()
        | {"number of processes on its node": str(current().local_size)}
        | {flag.name: _shown(flag, value) for flag, value in flag_values(settings) if flag.name not in _OWN}
    )


def _shown(flag: Flag, value: Any) -> str:
    if value is None:
        return "not set"
    return str(value) if flag.kind.is_switch or isinstance(value, bool) else flag.kind.show(value)


def _versions() -> dict[str, str]:
    """Return the versions of this program and of what computes or communicates."""
    versions = {"version of this program": __version__, "version of PyTorch": torch.__version__}
    for package in _PACKAGES:
        try:
            versions[f"version of {package}"] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
