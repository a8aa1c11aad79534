"""Check that all processes run the same: flags, and versions of the program and its packages."""

from __future__ import annotations

import json
from importlib import metadata
from typing import Any

import torch

from mlperf.distributed.agreement import values_of_all
from mlperf.distributed.processes import current
from mlperf.settings.flags import Flag, flag_values
from mlperf.settings.settings import Settings
from mlperf.util.errors import UsageError
from mlperf.version import __version__

_OWN = ("--local_rank",)  # flags that differ between processes
_PACKAGES = ("torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu", "numpy", "numba")


def require_same_run(settings: Settings) -> None:
    """Raise the same UsageError on all processes if a flag or a version is not the same on all of them."""
    if current().size == 1:
        return
    own = _versions() | {
        flag.name: _shown(flag, value) for flag, value in flag_values(settings) if flag.name not in _OWN
    }
    first, *others = (json.loads(text) for text in values_of_all(json.dumps(own)))
    for rank, other in enumerate(others, 1):
        for name in [*first, *other]:
            mine, theirs = first.get(name, "not set"), other.get(name, "not set")
            if mine != theirs:
                raise UsageError(
                    f"{name}: rank 0 has {mine}, rank {rank} has {theirs}; must be equal on all processes"
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
