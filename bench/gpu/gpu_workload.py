"""Model, batches and timers shared by the scripts of this folder."""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import triton

from mlperf.benchmarks import DLRM, DLRM_DCNV2, Benchmark
from mlperf.benchmarks.benchmark import Network
from mlperf.data.batch import RawBatch, RowSource
from mlperf.data.schema import CRITEO
from mlperf.engines.gpu.kernels.decode import dense_width
from mlperf.engines.gpu.step import GpuStep
from mlperf.models.dlrm import ROW_TYPES
from mlperf.models.initialization import initialize
from mlperf.models.loss import Loss
from mlperf.models.make import make_model
from mlperf.optim.optimizer import make_optimizer
from mlperf.settings.from_flags import parse
from mlperf.settings.training import EPSILON
from mlperf.util.errors import UsageError
from synthetic_rows import expanded_ids, synthetic_rows
from training_baselines import RATE, timed
from training_shapes import BYTES_BESIDE_TABLES, ROWS_OF_SMALLER_TABLES

# Optimizers and precisions of the tables whose rows are updated once, by the sum of their gradients.
SUMMED_UPDATES = (("sgd", "bf16"), ("adagrad", "fp32"), ("adagrad", "bf16"), ("rwsadagrad", "fp32"))

# Rows per table with which DLRM-DCNv2 fits on a GPU with 80 GB, with tables in 16 bits and exact Adagrad: 65 GB.
DCNV2_ROWS = 16_000_000


@dataclass(frozen=True)
class Workload:
    """Sizes that a script runs with.

    batch_size: B. row_limit: maximum number of rows per table. benchmark: model, optimizer and ids per table.
    batches: number of different ones. rounds: number of repetitions of a measurement. steps: number of steps timed
        together.
    """

    device: torch.device
    batch_size: int
    row_limit: int
    benchmark: Benchmark
    batches: int
    rounds: int
    steps: int

    @property
    def network(self) -> Network:
        """Layer widths."""
        return self.benchmark.network

    @property
    def table_rows(self) -> tuple[int, ...]:
        """Rows of each table."""
        return tuple(min(rows, self.row_limit) for rows in self.benchmark.data.table_rows)

    @property
    def ids_per_table(self) -> tuple[int, ...] | None:
        """Ids of each table and sample; None: one."""
        return self.benchmark.data.ids_per_table


# Triton's interpreter takes milliseconds for each program instance of a kernel.
_REDUCED_NETWORKS = {
    DLRM.name: replace(DLRM.network, bottom_mlp=(13, 32, 128), top_mlp=(32, 1)),
    DLRM_DCNV2.name: replace(
        DLRM_DCNV2.network, bottom_mlp=(13, 32, 16), top_mlp=(32, 1), cross_layers=2, cross_rank=8
    ),
}


def workload_of(benchmark: Benchmark, *, reduced: bool) -> Workload:
    """Return the workload of a benchmark on a GPU or, if `reduced`, of tiny sizes on the CPU."""
    if not reduced:
        return Workload(torch.device("cuda"), 65536, 400_000, benchmark, batches=4, rounds=5, steps=20)
    ids = benchmark.data.ids_per_table
    data = replace(benchmark.data, ids_per_table=None if ids is None else tuple(min(count, 3) for count in ids))
    tiny = replace(benchmark, network=_REDUCED_NETWORKS[benchmark.name], data=data)
    return Workload(torch.device("cpu"), 3, 2000, tiny, batches=1, rounds=1, steps=1)


def parse_workload(
    parser: argparse.ArgumentParser, benchmark: Benchmark = DLRM
) -> tuple[Workload, argparse.Namespace]:
    """Add --reduced to `parser`; return the selected workload and all flags. UsageError without a GPU."""
    parser.add_argument(
        "--reduced",
        action="store_true",
        help="tiny sizes in Triton's interpreter (TRITON_INTERPRET=1), to test the script without a GPU",
    )
    args = parser.parse_args()
    if not args.reduced and not torch.cuda.is_available():
        raise UsageError("no GPU is visible to PyTorch; --reduced runs without one")
    if args.reduced and os.environ.get("TRITON_INTERPRET") != "1":
        raise UsageError("--reduced needs Triton's interpreter: set TRITON_INTERPRET=1")
    return workload_of(benchmark, reduced=args.reduced), args


def full_row_limit(table_precision: str) -> int | None:
    """Return the row limit at which the tables fit in GPU memory; None if they fit entirely."""
    values = sum(DLRM.data.table_rows) * DLRM.network.embedding_dimension
    needed = values * ROW_TYPES[table_precision].itemsize + BYTES_BESIDE_TABLES
    return None if torch.cuda.mem_get_info()[0] > needed else ROWS_OF_SMALLER_TABLES


def make_step(
    workload: Workload, precision: str, *, optimizer: str | None = None, table_precision: str = "fp32"
) -> GpuStep:
    """Return a step of the benchmark's model, not warmed up. optimizer: by default that of the benchmark."""
    benchmark, network = workload.benchmark, workload.network
    architecture = replace(
        parse(network.flags).model.architecture,
        rows_per_table=workload.table_rows,
        embedding_precision=table_precision,
    )
    model = make_model(architecture, workload.device)
    initialize(model, np.random.RandomState(1), mlp_init="normal", embedding_init="device", seed=1)
    made = make_optimizer(optimizer or benchmark.optimizer, model, epsilon=benchmark.adagrad_epsilon or EPSILON)
    limit = None if benchmark.data.traits.limits_rows else benchmark.data.index_limit
    return GpuStep(model, Loss(network.loss), made, precision, limit or -1, workload.ids_per_table)


def make_batch(workload: Workload, seed: int, *, size: int | None = None, uniform: bool = False) -> RawBatch:
    """Return a batch with log-uniform or uniform ids, in pinned memory if the device is a GPU."""
    stream, table_rows = np.random.default_rng(seed), workload.table_rows
    rows = synthetic_rows(size or workload.batch_size, table_rows, stream, uniform=uniform)
    ids = None
    if workload.ids_per_table is not None:
        ids = _on_host(expanded_ids(rows[:, CRITEO.id_columns], table_rows, workload.ids_per_table), workload)
    return RawBatch(_on_host(rows, workload), 0, RowSource(Path("rows.bin"), table_rows), ids)


def _on_host(values: np.ndarray, workload: Workload) -> torch.Tensor:
    tensor = torch.from_numpy(values)
    return tensor.pin_memory() if workload.device.type == "cuda" else tensor


def time_steps(workload: Workload, step: GpuStep, batches: Sequence[RawBatch], name: str) -> None:
    """Print the time of a step: median, minimum and maximum of the means of several rounds.

    The host does not wait within a round, so it prepares the next step during the current one, as in training.
    """
    for batch in batches:
        step.train(batch, RATE)
    means = []
    for _ in range(workload.rounds):
        seconds = timed(_endless(step, batches), workload.steps, workload.device)
        means.append(1e3 * statistics.fmean(seconds))
    median = statistics.median(means)
    print(
        f"{name}: batch {workload.batch_size}, {median:.3f} ms/step, "
        f"{1e3 * workload.batch_size / median:,.0f} samples/s, from {min(means):.3f} to {max(means):.3f} ms",
        flush=True,
    )


def _endless(step: GpuStep, batches: Sequence[RawBatch]) -> Callable[[], None]:
    number = 0

    def train_next() -> None:
        nonlocal number
        step.train(batches[number % len(batches)], RATE)
        number += 1

    return train_next


def median_microseconds(function: Callable[[], object], device: torch.device) -> float:
    """Return the median time of a call; on a GPU with cold caches, measured by `triton.testing.do_bench`."""
    if device.type == "cuda":
        milliseconds: float = triton.testing.do_bench(function, warmup=20, rep=60, return_mode="median")
        return 1e3 * milliseconds
    return 1e6 * statistics.median(timed(function, 1, device))


def layer_widths(workload: Workload, step: GpuStep) -> list[tuple[int, int]]:
    """Return (inputs, outputs) of each linear layer except the last, including the padding of the engine."""
    bottom = [dense_width(CRITEO), *workload.network.bottom_mlp[1:]]
    top = [step.interacted_width, *workload.network.top_mlp[:-1]]
    return [*pairwise(bottom), *pairwise(top)]
