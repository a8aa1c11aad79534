"""The table of a time breakdown, and the names of its phases. Does not need PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

TRAINING, EVALUATION, CHECKPOINTS = "training", "evaluation", "checkpoints"

_WIDTH = 58  # of the names in the table


def measured_processes(breakdown: Mapping[str, Any]) -> str | None:
    """Return whose times they are in a run of several processes, None in a run of one."""
    processes = breakdown["processes"]
    if processes == 1:
        return None
    return f"mean of {processes} processes" if breakdown["measured_processes"] > 1 else f"process 0 of {processes}"


def engine_name(breakdown: Mapping[str, Any]) -> str:
    """Return the name of the engine, without the rest of its description."""
    name: str = breakdown["engine"].partition(" ")[0]
    return name


def table(breakdown: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the table for a breakdown: seconds, ms per step or batch, and percent of all."""
    heading = ", ".join(filter(None, (f"Time, engine {engine_name(breakdown)}", measured_processes(breakdown))))
    spread = f"{'min':>11}{'max':>11}" if breakdown["measured_processes"] > 1 else ""
    yield f"{heading:<{_WIDTH}}{'seconds':>10}{'percent':>9}{'ms each':>11}{spread}"
    for phase in breakdown["phases"]:
        count = phase.get("count")
        name = phase["name"] if count is None else f"{phase['name']}, {_counted(count, phase['unit'])}"
        yield _line(name, phase)
        if len(phase["parts"]) > 1:
            yield from (_line(f"  {part['name']}", part) for part in phase["parts"])
    yield _line("total", {"seconds": breakdown["seconds"], "percent": 100.0})
    for phase in breakdown["phases"]:
        if "read_ahead" in phase:
            ahead = phase["read_ahead"]
            name = f"beside the {phase['name']}, {_counted(ahead['threads'], 'thread')} reading and decoding"
            yield f"{name:<{_WIDTH}}{ahead['seconds']:>10.3f}{'':>9}{ahead['ms']:>11.3f}"


def _counted(count: int, unit: str) -> str:
    plural = "batches" if unit == "batch" else f"{unit}s"
    return f"{count:,} {unit if count == 1 else plural}"


def _line(name: str, timed: Mapping[str, Any]) -> str:
    each = "".join(f"{timed[key]:>11.3f}" for key in ("ms", "min_ms", "max_ms") if key in timed)
    return f"{name:<{_WIDTH}}{timed['seconds']:>10.3f}{timed['percent']:>9.2f}{each}"
