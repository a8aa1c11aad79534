"""The process group of a run: torch.distributed, started and ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from tempfile import TemporaryDirectory

import torch.distributed as dist

from mlperf.distributed.processes import Processes, running_as

# How long a process waits for the others: none of them prepares data or compiles while the others wait.
TIMEOUT = timedelta(minutes=30)


@contextmanager
def process_group(processes: Processes, backend: str) -> Iterator[None]:
    """Connect the processes. backend: "gloo" (CPU) or "nccl" (GPU). A single process needs no launcher."""
    with running_as(processes), TemporaryDirectory() as folder:
        if processes.size == 1:
            dist.init_process_group(backend, store=dist.FileStore(f"{folder}/store", 1), rank=0, world_size=1)
        else:
            dist.init_process_group(backend, timeout=TIMEOUT)
        yield
        # Without it, a process may end while another still reads what it has sent.
        if processes.size > 1:
            dist.barrier()
        dist.destroy_process_group()
