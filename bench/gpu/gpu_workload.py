"""Model, batches and timers shared by the scripts of this folder."""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import triton

from mlperf.benchmarks import DLRM
from mlperf.data.batch import RawBatch, RowSource
from mlperf.engines.gpu.kernels.decode import DENSE_WIDTH
from mlperf.engines.gpu.step import GpuStep
from mlperf.models.dlrm import ROW_TYPES, DLRM_Net
from mlperf.models.initialization import initialize
from mlperf.models.loss import Loss
from mlperf.optim.optimizer import make_optimizer
from mlperf.settings.model import Architecture
from mlperf.util.errors import UsageError
from synthetic_rows import synthetic_rows
from training_baselines import RATE, timed
from training_shapes import BYTES_BESIDE_TABLES, ROWS_OF_SMALLER_TABLES

# Optimizers and precisions of the tables whose rows are updated once, by the sum of their gradients.
SUMMED_UPDATES = (("sgd", "bf16"), ("adagrad", "fp32"), ("adagrad", "bf16"), ("rwsadagrad", "fp32"))


@dataclass(frozen=True)
class Workload:
    """Sizes that a script runs with.

    batch_size: B. row_limit: maximum number of rows per table. top_mlp, bottom_mlp: layer widths.
    batches: number of different ones. rounds: number of repetitions of a measurement. steps: number of steps timed
        together.
    """

    device: torch.device
    batch_size: int
    row_limit: int
    bottom_mlp: tuple[int, ...]
    top_mlp: tuple[int, ...]
    batches: int
    rounds: int
    steps: int

    @property
    def table_rows(self) -> tuple[int, ...]:
        """Rows of each table."""
        return tuple(min(rows, self.row_limit) for rows in DLRM.data.table_rows)


BENCHMARK = Workload(
    torch.device("cuda"),
    65536,
    400_000,
    DLRM.network.bottom_mlp,
    DLRM.network.top_mlp,
    batches=4,
    rounds=5,
    steps=20,
)
# Triton's interpreter takes milliseconds for each program instance of a kernel.
REDUCED = Workload(torch.device("cpu"), 3, 2000, (13, 32, 128), (32, 1), batches=1, rounds=1, steps=1)


def parse_workload(parser: argparse.ArgumentParser) -> tuple[Workload, argparse.Namespace]:
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
    return REDUCED if args.reduced else BENCHMARK, args


def full_row_limit(table_precision: str) -> int | None:
    """Return the row limit at which the tables fit in GPU memory; None if they fit entirely."""
    values = sum(DLRM.data.table_rows) * DLRM.network.embedding_dimension
    needed = values * ROW_TYPES[table_precision].itemsize + BYTES_BESIDE_TABLES
    return None if torch.cuda.mem_get_info()[0] > needed else ROWS_OF_SMALLER_TABLES


def make_step(
    workload: Workload, precision: str, *, optimizer: str = DLRM.optimizer, table_precision: str = "fp32"
) -> GpuStep:
    """Return a step of the benchmark's model, not warmed up."""
    architecture = Architecture(
        workload.table_rows,
        DLRM.network.embedding_dimension,
        workload.bottom_mlp,
        workload.top_mlp,
        embedding_precision=table_precision,
    )
    model = DLRM_Net(architecture, workload.device)
    initialize(model, np.random.RandomState(1), mlp_init="normal", embedding_init="device", seed=1)
    made = make_optimizer(optimizer, model)
    return GpuStep(model, Loss(DLRM.network.loss), made, precision, DLRM.data.index_limit or -1)


def make_batch(workload: Workload, seed: int, *, size: int | None = None, uniform: bool = False) -> RawBatch:
    """Return a batch with log-uniform or uniform ids, in pinned memory if the device is a GPU."""
    stream = np.random.default_rng(seed)
    rows = synthetic_rows(size or workload.batch_size, workload.table_rows, stream, uniform=uniform)
    tensor = torch.from_numpy(rows)
    on_gpu = workload.device.type == "cuda"
    return RawBatch(tensor.pin_memory() if on_gpu else tensor, 0, RowSource(Path("rows.bin"), workload.table_rows))


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
    bottom = [DENSE_WIDTH, *workload.bottom_mlp[1:]]
    top = [step.interacted_width, *workload.top_mlp[:-1]]
    return [*pairwise(bottom), *pairwise(top)]
