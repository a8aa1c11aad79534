"""Programs that start several processes, and the environment variables with which they tell each its number."""

from __future__ import annotations

import os
from collections.abc import Mapping

from mlperf.distributed.processes import Processes
from mlperf.util.errors import UsageError

# Set by torchrun; `torch.distributed` reads RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def launched_processes(environment: Mapping[str, str] | None = None) -> Processes:
    """Return the processes that a launcher has started, or one. UsageError if variables are missing or invalid.

    environment: environment variables; if None, those of this process.
    """
    variables = os.environ if environment is None else environment
    if "RANK" not in variables or "WORLD_SIZE" not in variables:
        return Processes()
    rank, size, local_rank, local_size = (_number(variables, name) for name in _TORCHRUN)
    return Processes(rank, size, local_rank, local_size)


def _number(variables: Mapping[str, str], name: str) -> int:
    text = variables.get(name, "").strip()
    if not text.isdecimal():
        raise UsageError(f"{name}={text}: must be a whole number, as torchrun sets it")
    return int(text)
