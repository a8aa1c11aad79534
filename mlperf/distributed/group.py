"""The process group of a run: torch.distributed, started and ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from tempfile import TemporaryDirectory

import torch.distributed as dist

from mlperf.distributed.launchers import find_launch
from mlperf.distributed.processes import Processes, running_as
from mlperf.distributed.store import keys_of
from mlperf.distributed.watch import watched

# How long a process waits in a collective operation. The watch (`watch.py`) finds processes that have ended or do
# not respond; one that works alone, for example on a checkpoint, may take long.
TIMEOUT = timedelta(minutes=30)


@contextmanager
def process_group(processes: Processes, backend: str, gpu: str | None = None) -> Iterator[None]:
    """Connect the processes. A single process needs no launcher.

    backend: "gloo" (CPU) or "nccl" (GPU). gpu: name of the GPU of this process that no other GPU of its node has;
    UsageError if two processes use the same.

    If one process fails, ends or does not respond, the block ends in all of them (`watch.py`). The group is then
    left open, because closing it could wait for the others: the process must end.
    """
    with running_as(processes):
        if processes.size == 1:
            with TemporaryDirectory() as folder:
                dist.init_process_group(backend, store=dist.FileStore(f"{folder}/store", 1), rank=0, world_size=1)
                try:
                    yield
                finally:
                    dist.destroy_process_group()
            return
        launch = find_launch()
        assert launch is not None, "several processes need a launcher"
        with watched(launch) as watch:
            watch.wait_for_all()
            if gpu is not None:
                watch.require_own_gpu(gpu)
            dist.init_process_group(
                backend,
                store=keys_of("group", launch),
                rank=processes.rank,
                world_size=processes.size,
                timeout=TIMEOUT,
            )
            yield
            dist.barrier()  # without it, a process may end while another still reads what it has sent
            dist.destroy_process_group()
