"""Time the training step, a lower bound and plain PyTorch programs: python bench/measure_training.py [--use-gpu].

For each shape and precision, in one process and with the same number of threads, the contenders take turns:

- floor: a lower bound, the matrix products alone plus the time to move the embedding rows at copy bandwidth
- plain: one sparse nn.EmbeddingBag per table, nn.Sequential, torch.optim.SGD
- plain, torch.compile: the same with its dense part compiled, if there is a C++ compiler
- this project, with one batch kept in memory and with batches read from a binary file

Prints medians: on a CPU of the steps, on a GPU of the means of the rounds. Shapes that do not fit in memory are
reported and skipped.
"""

from __future__ import annotations

import checkout  # noqa: F401

import argparse
import gc
import math
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np
import torch

from mlperf import benchmarks
from mlperf.benchmarks import Workload
from mlperf.cli.train import parse
from mlperf.data.batch import Batch, RawBatch
from mlperf.data.binary import BinaryFile
from mlperf.data.schema import CRITEO
from mlperf.engines.choose import make_scorer, make_step
from mlperf.engines.warm_up import warm_up
from mlperf.evaluation.evaluate import evaluate
from mlperf.optim.sgd import SGD
from mlperf.runner.model import build_model, initialize_model
from mlperf.util.errors import RunError
from mlperf.util.program import run_program
from training_baselines import Floor, PlainStep, Step, captured, timed

# Minimum sizes of the file, which is read repeatedly: in a short one the start-up of the readers would dominate.
MIN_BATCHES = 64
MIN_SAMPLES = 1 << 20
GPU_EVALUATION_BATCH = 65536
ROUNDS = 30
RATE = 1e-4  # low, because training on the same batch repeatedly must not diverge


@dataclass(frozen=True)
class Shape:
    """A model and a batch size.

    limit: maximum number of rows per table; None for the sizes of the workload.
    min_batches: minimum number of batches in the file.
    plain: whether plain PyTorch is timed too, which needs memory for a second copy of the tables.
    """

    name: str
    batch_size: int
    workload: Workload
    limit: int | None = None
    min_batches: int = MIN_BATCHES
    plain: bool = True

    @property
    def tables(self) -> tuple[int, ...]:
        """Rows per table."""
        return tuple(min(rows, self.limit or rows) for rows in self.workload.data.table_rows)

    @property
    def batches(self) -> int:
        """Batches in the file."""
        return max(self.min_batches, MIN_SAMPLES // self.batch_size)


KAGGLE = Shape("Kaggle", 128, benchmarks.KAGGLE)
MLPERF = Shape("MLPerf", 2048, benchmarks.DLRM, limit=400_000)
LARGE = replace(MLPERF, batch_size=65536)
FULL = replace(LARGE, name="MLPerf, full tables", limit=None, plain=False)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--use-gpu", action="store_true", help="measure on the first GPU, with larger shapes")
    parser.add_argument(
        "--evaluate", type=int, default=0, metavar="N", help="also time an evaluation of N samples"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="number of rounds (default: 30)")
    parser.add_argument("--shapes", default="", help="only the shapes whose name contains this text")
    flags = parser.parse_args()
    if flags.use_gpu and not torch.cuda.is_available():
        sys.exit("measure_training.py: error: --use-gpu: no GPU is visible to PyTorch")
    device = torch.device("cuda" if flags.use_gpu else "cpu")
    shapes = (KAGGLE, MLPERF, LARGE, FULL) if flags.use_gpu else (KAGGLE, MLPERF)
    precisions = ("fp32", "tf32", "bf16") if flags.use_gpu else ("fp32", "bf16")
    print(f"{machine(device)}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{'':44}{'ms/step':>10}{'samples/s':>14}{'of floor':>10}{'of plain':>10}")
    for shape in shapes:
        if flags.shapes in shape.name:
            for precision in precisions:
                measure_if_it_fits(shape, precision, device, flags.rounds, flags.evaluate)


def machine(device: torch.device) -> str:
    """Return the name of the processor or GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    names = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    family = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("cpu family")]
    return f"{(names or [platform.processor()])[0]} (family {(family or ['unknown'])[0]})"


def _lines(path: str) -> Sequence[str]:
    return Path(path).read_text().splitlines() if os.path.exists(path) else []


def measure_if_it_fits(
    shape: Shape, precision: str, device: torch.device, rounds: int, evaluated: int, *, compiled: bool = True
) -> None:
    """Print the rows of one shape and precision, or the reason why there are none, and free all memory."""
    try:
        measure(shape, precision, device, rounds, evaluated, compiled=compiled)
    except (RunError, torch.OutOfMemoryError) as error:
        reason = str(error).partition("\n")[0]
        print(f"{shape.name}, batch {shape.batch_size}, {precision}: not measured: {reason}", flush=True)
    torch.compiler.reset()  # otherwise the next batch size is compiled with dynamic shapes
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def measure(
    shape: Shape, precision: str, device: torch.device, rounds: int, evaluated: int, *, compiled: bool = True
) -> None:
    """Print the rows of one shape and precision. compiled: whether torch.compile is timed too."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "measured.bin"
        settings = parse(
            [
                *shape.workload.network.flags,
                *f"--data-generation=dataset --processed-data-file={file}".split(),
                *f"--mini-batch-size={shape.batch_size} --precision={precision} --embedding-init=device".split(),
                *(["--use-gpu"] if device.type == "cuda" else []),
            ]
        )
        architecture = replace(settings.model.architecture, rows_per_table=shape.tables)
        start = time.perf_counter()
        model = build_model(architecture, device)
        initialize_model(settings, model, np.random.RandomState(1))
        _wait(device)
        initialized = time.perf_counter() - start
        write_rows(file, shape)
        source = BinaryFile(
            file,
            shape.batch_size * shape.batches,
            shape.batch_size,
            shape.tables,
            readers=settings.readers,
            pin_memory=settings.use_gpu,
        )
        step = make_step(model, settings, SGD(model))
        warm_up(step, shape.batch_size)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        floor = Floor(architecture, shape.batch_size, dtype, device)
        steps: dict[str, Step] = {"floor": captured(floor, device)}
        if shape.plain:
            batch = next(source.batches(0))
            steps["plain"] = PlainStep(architecture, batch, precision, device, RATE)
            compilers = ("gcc", "clang") if device.type == "cuda" else ("g++", "clang++")
            if compiled and any(map(shutil.which, compilers)):
                steps["plain, torch.compile"] = PlainStep(
                    architecture, batch, precision, device, RATE, compiled=True
                )
        kept = next(step.batches(source, 0))
        steps["this project, batch in memory"] = lambda: step.train(kept, RATE)
        stream = step.batches(Repeated(source, sys.maxsize), 0)
        steps["this project, from the file"] = lambda: step.train(next(stream), RATE)
        seconds = take_turns(steps, rounds, device)
        step.check()
        report(shape, precision, seconds, floor.seconds_of_tables)
        print(f"  {'initialization of the tables':<42}{1e3 * initialized:>10,.0f} ms")
        if evaluated:
            if device.type == "cuda":
                source = replace(source, batch_size=GPU_EVALUATION_BATCH)
            start = time.perf_counter()
            evaluate(make_scorer(model, settings), Repeated(source, evaluated), all_metrics=True)
            print(
                f"  {f'evaluation of {evaluated:,} samples':<42}{1e3 * (time.perf_counter() - start):>10,.0f} ms"
            )


def write_rows(path: Path, shape: Shape) -> None:
    """Write a file of synthetic rows."""
    stream = np.random.default_rng(1)
    with path.open("wb") as file:
        for _ in range(shape.batches):
            file.write(synthetic_rows(shape.batch_size, shape.tables, stream).tobytes())


def synthetic_rows(
    samples: int, table_rows: Sequence[int], stream: np.random.Generator, *, uniform: bool = False
) -> np.ndarray:
    """Return rows of the Criteo binary file, int32 [samples, 40].

    Ids are log-uniform in each table, so that a few are frequent, as in real data; or uniform.
    """
    rows = np.empty((samples, CRITEO.columns), CRITEO.dtype)
    rows[:, 0] = stream.random(samples) < 0.25
    rows[:, CRITEO.dense_columns] = stream.geometric(0.05, (samples, CRITEO.dense_features)) - 1
    for column, count in zip(rows[:, CRITEO.id_columns].T, table_rows, strict=True):
        drawn = count * stream.random(samples) if uniform else count ** stream.random(samples) - 1
        column[:] = np.minimum(drawn, count - 1)
    return rows


class Repeated:
    """A source of `samples` samples that reads a shorter file repeatedly, always to its end."""

    def __init__(self, source: BinaryFile, samples: int) -> None:
        self._source = source
        self.batches_per_epoch = math.ceil(samples / source.batch_size)
        self.samples = self.batches_per_epoch * source.batch_size

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield batches."""
        endless = chain.from_iterable(map(self._source.batches, repeat(0)))
        return islice(endless, first, self.batches_per_epoch)

    def raw_batches(self, epoch: int, first: int = 0) -> Iterator[RawBatch]:
        """Yield undecoded batches."""
        endless = chain.from_iterable(map(self._source.raw_batches, repeat(0)))
        return islice(endless, first, self.batches_per_epoch)


def take_turns(steps: dict[str, Step], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Return the step times in seconds for each contender. Short steps are repeated in each round.

    On a GPU, each round gives one value, the mean of its steps: the host runs ahead and prefetches, so slow reads
    show up only in a few later steps. The first steps of a round are not counted.
    """
    on_gpu = device.type == "cuda"
    count = {}
    for name, step in steps.items():
        timed(step, 3, device)
        max_steps = 100 if on_gpu else 10
        count[name] = max(1, min(max_steps, int(0.1 / statistics.median(timed(step, 5, device)))))
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            if on_gpu:
                leading = count[name] // 2 + 1
                seconds[name].append(statistics.fmean(timed(step, leading + count[name], device)[leading:]))
            else:
                timed(step, 1, device)  # warm up: another contender used the caches
                seconds[name] += timed(step, count[name], device)
    return seconds


def report(shape: Shape, precision: str, seconds: dict[str, list[float]], tables: float) -> None:
    """Print a row for each contender."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    medians["floor"] += tables
    print(
        f"{shape.name}, batch {shape.batch_size}, {precision} ({1e3 * tables:.2f} ms of the floor are the tables)"
    )
    for name, median in medians.items():
        of_plain = f"{median / medians['plain']:10.2f}" if "plain" in medians else f"{'':>10}"
        rate = shape.batch_size / median
        print(
            f"  {name:<42}{1e3 * median:>10.3f}{rate:>14,.0f}{median / medians['floor']:10.2f}{of_plain}",
            flush=True,
        )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(run_program("measure_training.py", main))
