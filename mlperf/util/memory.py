"""Memory there is, and a refusal in words where that is not enough."""

from __future__ import annotations

from pathlib import Path

from mlperf.util.errors import RunError


def require_memory(needed: int, what: str) -> None:
    """Raise RunError if `needed` bytes for `what` are more than this process may still take."""
    available = available_memory()
    if available is not None and needed > available:
        raise RunError(f"{what}: needs {needed / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB are available")


def available_memory() -> int | None:
    """Return the bytes of host memory this process may still take, None where the system does not say."""
    found = []
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        found.append(int(fields["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        pass
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            found.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):
            continue
    return min(found, default=None)
