"""One process of a contender of measure_scaling.py, which starts it and tells it on stdin what to do."""

from __future__ import annotations

import checkout  # noqa: F401

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from mlperf.cli.train import parse
from mlperf.data.binary import BinaryFile
from mlperf.data.multi_hot import MultiHotShape, MultiHotTables
from mlperf.data.schema import CRITEO
from mlperf.distributed.processes import Processes, current, running_as
from mlperf.engines.choose import make_step
from mlperf.engines.protocol import TrainingStep
from mlperf.engines.warm_up import warm_up
from mlperf.models.dlrm import DLRM_Net
from mlperf.optim.optimizer import make_optimizer
from mlperf.runner.memory import RunSizes
from mlperf.runner.model import build_model, initialize_model
from scaling_traffic import Network
from synthetic_rows import Repeated
from tcp_bytes import bytes_sent
from training_shapes import Shape, shapes_named

RATE = 1e-6  # low, because training on the same batches repeatedly must not diverge


@dataclass(frozen=True)
class Task:
    """What a process measures.

    shape: a name, with tables of at most `limit` rows. engine, sharding: flags. file: with rows for the shape.
    port: of the store in which the processes of the contender find each other.
    """

    shape: str
    limit: int
    reduced: bool
    optimizer: str
    precision: str
    engine: str
    sharding: str
    file: str
    use_gpu: bool
    rank: int
    size: int
    port: int
    threads: int

    @property
    def measured_shape(self) -> Shape:
        """The shape with its limit."""
        shape = shapes_named(self.shape, use_gpu=self.use_gpu)[0]
        shape = replace(shape, limit=min(self.limit, shape.limit or self.limit))
        return shape.reduced() if self.reduced else shape


@dataclass(frozen=True)
class Measured:
    """A round: seconds of a step, the share of it in which the training thread slept, and bytes sent in a step."""

    seconds: float
    waiting: float
    sent: float


def main() -> None:
    """Prepare, print one line, and answer each line of stdin, "train" or "communicate" and a number, by one."""
    task = Task(**json.loads(sys.argv[1]))
    torch.set_num_threads(task.threads)
    processes = Processes(task.rank, task.size, task.rank, task.size)
    with running_as(processes), _group(task), torch.random.fork_rng():
        model, step = _prepare(task)
        shape = task.measured_shape
        network = _network(model, shape)
        print(json.dumps(asdict(network)), flush=True)
        batches = iter(step.training_batches(_source(task), 0))
        work: dict[str, Callable[[], None]] = {
            "train": lambda: step.train(next(batches), RATE),
            "communicate": _Collectives(network, shape.batch_size, step.device),
        }
        for line in sys.stdin:
            name, count = line.split()
            print(json.dumps(asdict(_measure(work[name], int(count), task))), flush=True)


@contextmanager
def _group(task: Task) -> Iterator[None]:
    if task.use_gpu:
        torch.cuda.set_device(task.rank)
    if task.engine != "torchrec":
        yield
        return
    store = dist.TCPStore("localhost", task.port, is_master=False)
    dist.init_process_group("nccl" if task.use_gpu else "gloo", store=store, rank=task.rank, world_size=task.size)
    yield
    dist.barrier()
    dist.destroy_process_group()


def _prepare(task: Task) -> tuple[DLRM_Net, TrainingStep]:
    shape = task.measured_shape
    settings = parse(
        [
            *(*shape.flags, "--data-generation=dataset", f"--processed-data-file={task.file}"),
            *(f"--mini-batch-size={shape.batch_size}", "--embedding-init=device", f"--engine={task.engine}"),
            *(f"--optimizer={task.optimizer}", f"--precision={task.precision}", f"--sharding={task.sharding}"),
            *(["--use-gpu"] if task.use_gpu else []),
        ]
    )
    tables, ids = shape.tables, shape.ids_per_table
    architecture = replace(settings.model.architecture, rows_per_table=tables, ids_per_table=ids)
    device = torch.device("cuda" if task.use_gpu else "cpu")
    model = build_model(settings, architecture, device, RunSizes(shape.batch_size, 0))
    initialize_model(settings, model, np.random.RandomState(1))
    step = make_step(model, settings, make_optimizer(task.optimizer, model, settings.seed))
    warm_up(step, shape.batch_size)
    return model, step


def _source(task: Task) -> Repeated:
    shape = task.measured_shape
    ids = shape.ids_per_table
    rows = Path(task.file).stat().st_size // CRITEO.row_bytes
    source = BinaryFile(
        *(Path(task.file), rows, shape.batch_size, shape.tables),
        pin_memory=task.use_gpu,
        multi_hot=None if ids is None else MultiHotTables.drawn(MultiHotShape(shape.tables, ids)),
        processes=current(),
    )
    return Repeated(source, sys.maxsize)


def _network(model: DLRM_Net, shape: Shape) -> Network:
    tables = len(shape.tables)
    placements: Sequence[Any] = getattr(model.tables, "placements", ())  # of torchrec
    return Network(
        ids=shape.ids_per_table or (1,) * tables,
        kinds=tuple(one.kind for one in placements) or ("table-wise",) * tables,
        parts=tuple(len(one.parts) for one in placements) or (1,) * tables,
        dimension=model.architecture.feature_size,
        weights=sum(parameter.numel() for parameter in model.dense_parameters()),
    )


def _measure(work: Callable[[], None], count: int, task: Task) -> Measured:
    if task.size > 1:
        dist.barrier()
    sent, on_cpu, queued = bytes_sent(task.port), time.thread_time(), _queued()
    start = time.perf_counter()
    for _ in range(count):
        work()
    if task.use_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    slept = seconds - (time.thread_time() - on_cpu) - (_queued() - queued)
    return Measured(seconds / count, max(0.0, slept / seconds), (bytes_sent(task.port) - sent) / count)


def _queued() -> float:
    """Return the seconds in which this thread could run, but waited for a core."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


class _Collectives:
    """The collectives of a step one after the other, with the sizes that `sent_bytes` describes."""

    def __init__(self, network: Network, batch: int, device: torch.device) -> None:
        size = current().size
        vectors = batch * network.dimension
        whole = (len(network.kinds) - network.divided) * vectors // size  # all samples, the tables of a process
        parts = network.divided * vectors  # all samples and tables whose rows are divided

        def values(count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.zeros(-(-count // size) * size, dtype=dtype, device=device)

        self._ids = values(batch * sum(network.copies_of_ids) // size, torch.int64)
        self._lengths = values(batch * len(network.ids) // size, torch.int32)
        self._pooled, self._partial, self._weights = values(whole), values(parts), values(network.weights)

    def __call__(self) -> None:
        """Run them. Nothing is computed meanwhile."""
        if current().size == 1:
            return
        for tensor in (self._lengths, self._ids, self._pooled, self._pooled):
            dist.all_to_all_single(torch.empty_like(tensor), tensor)
        if len(self._partial):
            own = self._partial.new_empty(len(self._partial) // current().size)
            dist.reduce_scatter_single(own, self._partial)
            dist.all_gather_single(torch.empty_like(self._partial), own)
        dist.all_reduce(self._weights)


if __name__ == "__main__":
    main()
