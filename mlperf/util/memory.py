"""Available memory, and an error if it is not enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
# Fields of the control group's statistics with the pages of files, which are freed when memory is needed.
_CACHE_FIELDS = ("inactive_file", "active_file", "total_inactive_file", "total_active_file")
_SHOWN_NEEDS = 3


@dataclass(frozen=True)
class MemoryNeed:
    """Memory that one part of a run needs.

    what: the part, with the flags that determine its size. size: in bytes.
    """

    what: str
    size: int


@dataclass(frozen=True)
class MemorySaving:
    """A way to need less memory. how: the flag to pass, and what else it changes. size: the saved bytes."""

    how: str
    size: int


def require_memory_for(
    needs: Sequence[MemoryNeed],
    *,
    available: int | None = None,
    where: str = "",
    savings: Sequence[MemorySaving] = (),
) -> None:
    """Raise RunError, which names the largest parts, if all together need more bytes than are available.

    available: bytes; if None, those of host memory. where: text after "memory". savings: the first one that is
    enough is named; if none is, all, if together they are enough.
    """
    available = available_memory() if available is None else available
    total = sum(need.size for need in needs)
    if available is None or total <= available:
        return
    largest = sorted((need for need in needs if need.size > total // 100), key=lambda need: -need.size)
    parts = ", ".join(f"{shown_bytes(need.size)} for {need.what}" for need in largest[:_SHOWN_NEEDS])
    enough = [saving for saving in savings if total - saving.size <= available][:1]
    if not enough and total - sum(saving.size for saving in savings) <= available:
        enough = list(savings)
    if enough:
        parts += "; " + " and ".join(f"{saving.how} needs {shown_bytes(saving.size)} less" for saving in enough)
    raise RunError(f"needs {shown_bytes(total)} of memory{where}, {shown_bytes(available)} are available: {parts}")


def shown_bytes(size: int) -> str:
    """Return a number of bytes with a unit that leaves digits: "1.5 GB", "12.0 MB"."""
    if size >= 10**8 or size == 0:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.1f} MB" if size >= 10**5 else f"{size / 1e3:.1f} kB"


def require_memory(needed: int, what: str) -> None:
    """Raise RunError if `what` needs more bytes of host memory than are available."""
    available = available_memory()
    if available is not None and needed > available:
        raise RunError(f"{what}: needs {shown_bytes(needed)} of memory, {shown_bytes(available)} are available")


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
            free = int(limit.read_text()) - int(used.read_text())
            available.append(free + _page_cache(used.with_name("memory.stat")))
        except (OSError, ValueError):  # no such cgroup version, or the limit is "max"
            continue
    return min(available, default=None)


def available_share(processes: int) -> int | None:
    """Return the bytes of host memory for each of `processes` on this machine, None if that is unknown."""
    available = available_memory()
    return None if available is None else available // processes


def _page_cache(statistics: Path) -> int:
    """Return the bytes of files that a control group has in memory, 0 if that is unknown."""
    try:
        fields = dict(line.split() for line in statistics.read_text().splitlines())
        # Version 1 also counts the group alone, without those in it.
        names = [name for name in fields if name in _CACHE_FIELDS]
        total = [name for name in names if name.startswith("total_")] or names
        return sum(int(fields[name]) for name in total)
    except (OSError, ValueError):
        return 0
