"""Available memory, and an error if it is not enough."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlperf.util.errors import RunError

MEMINFO = Path("/proc/meminfo")
# Files with the memory limit and the memory usage of the control group, in bytes: cgroup version 2, then 1.
CGROUP_FILES = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def require_memory(needed: int, what: str) -> None:
    """Raise RunError if `what` needs more bytes of host memory than are available."""
    available = available_memory()
    if available is not None and needed > available:
        raise RunError(f"{what}: needs {needed / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB are available")


def available_memory(
    meminfo: Path = MEMINFO, cgroup_files: Sequence[tuple[Path, Path]] = CGROUP_FILES
) -> int | None:
    """Return the bytes of host memory that this process can still use, None if that is unknown.

    This is the minimum of the available memory of the machine (`meminfo`) and of the control group
    (`cgroup_files`, pairs of a file with the limit and one with the usage).
    """
    available = []
    try:
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        available.append(int(fields["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        pass
    for limit, used in cgroup_files:
        try:
            available.append(int(limit.read_text()) - int(used.read_text()))
        except (OSError, ValueError):  # no such cgroup version, or the limit is "max"
            continue
    return min(available, default=None)
