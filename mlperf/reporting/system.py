"""What a run was computed with: processors, memory, GPUs, processes and software."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlperf.distributed.processes import current
from mlperf.util.memory import MEMINFO

_CPUINFO = Path("/proc/cpuinfo")


def system_facts(device: torch.device) -> dict[str, Any]:
    """Return the system of this process: values that JSON can represent, None where the system does not tell.

    memory: bytes of main memory. gpu: name of the GPU, None on a CPU.
    """
    processes = current()
    return {
        "cpu": _field(_CPUINFO, "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": _memory(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "processes": processes.size,
        "nodes": processes.nodes,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "numpy": np.__version__,
        "kernel": f"{platform.system()} {platform.release()}",
    }


def _memory() -> int | None:
    """Return the bytes of main memory, whose size the system gives in kB."""
    size = _field(MEMINFO, "MemTotal")
    return None if size is None else int(size.split()[0]) * 1024


def _field(path: Path, name: str) -> str | None:
    """Return the first value of a field in a file of lines "name : value", None if there is none."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return None
    return next(
        (value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == name), None
    )
