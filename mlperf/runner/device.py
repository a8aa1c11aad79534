"""The device of a process: the CPU, or one GPU."""

from __future__ import annotations

import warnings

import torch

from mlperf.distributed.processes import ALONE, Processes
from mlperf.settings.settings import Settings
from mlperf.util.errors import UsageError


def device_of(settings: Settings, processes: Processes = ALONE) -> torch.device:
    """Return the device of this process. UsageError if no GPU is left for it."""
    if not settings.use_gpu:
        return torch.device("cpu")
    _require_gpu()
    if processes.size == 1:
        return torch.device("cuda")
    index = gpu_of(processes, torch.cuda.device_count())
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def gpu_of(processes: Processes, visible: int) -> int:
    """Return the index of the GPU of a process: the number of the process on its node.

    visible: number of GPUs that the process sees. If it is 1, it may be the one that srun --gpus-per-task gives to
    this process alone; that is checked when the processes are connected. UsageError if there are too few.
    """
    if visible >= processes.local_size:
        return processes.local_rank
    if visible == 1:
        return 0
    raise UsageError(
        f"--use-gpu: {processes.local_size} processes on this node, but {visible} GPUs are visible; start at most "
        "one process for each GPU"
    )


def gpu_name(device: torch.device) -> str | None:
    """Return a name of a GPU that no other GPU of the node has, None for the CPU."""
    return None if device.type == "cpu" else str(torch.cuda.get_device_properties(device).uuid)


def _require_gpu() -> None:
    with warnings.catch_warnings(record=True) as caught:  # they say why CUDA cannot be initialized
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return
    reasons = [str(warning.message).partition("\n")[0].rstrip(".") for warning in caught[:1]]
    if torch.version.cuda is None:
        reasons = ["this build does not support CUDA"]
    problem = ": ".join(["no GPU is visible to PyTorch", *reasons])
    raise UsageError(f"--use-gpu: {problem}; omit the flag to run on the CPU")
