"""Time a step on the CPU with each optimizer and table precision: python bench/measure_optimizers.py.

For each shape and precision of the products, the combinations take turns in one process: each with the `cpu`
engine and, with float32 tables, with the `autograd` engine. The ids are uniform: most rows of a batch are
read once.

Prints medians of the times, and of the ratios to SGD with float32 tables in the same round. With one thread, it is
the time of the processor, which other work on a shared machine changes least.
"""

from __future__ import annotations

import checkout  # noqa: F401

import gc
import statistics
import sys
import time
from dataclasses import replace
from itertools import repeat

import numpy as np
import torch

from command_line import script_parser
from mlperf.cli.train import parse
from mlperf.data.batch import Batch
from mlperf.data.schema import CRITEO
from mlperf.engines.autograd.step import AutogradStep
from mlperf.engines.cpu.step import CpuStep
from mlperf.engines.protocol import TrainingStep
from mlperf.engines.warm_up import bag_offsets
from mlperf.models.dlrm import ROW_TYPES
from mlperf.models.loss import Loss
from mlperf.models.make import make_model
from mlperf.optim.optimizer import make_optimizer
from mlperf.registry import OPTIMIZERS
from mlperf.runner.model import initialize_model
from mlperf.settings.kinds import at_least
from mlperf.settings.model import EMBEDDING_PRECISIONS
from mlperf.util.memory import require_memory
from mlperf.util.program import run_program
from training_shapes import Shape, precisions_named, shapes_named

ROUNDS = 30
BATCHES = 8  # different ones, because the rows of a repeated batch stay in the cache
RATE = 1e-6  # low, because training on the same batches repeatedly must not diverge
CPU = torch.device("cpu")

Combination = tuple[str, str, str]  # engine, precision of the tables, optimizer
BASE: Combination = ("cpu", "fp32", "sgd")


def main() -> None:
    """Print the table."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument("--shapes", help="one or several shapes of measure_training.py (default: its default)")
    parser.add_argument("--precision", help="of the products: fp32, bf16 or both (default: both)")
    parser.add_argument("--rounds", type=at_least(1), default=ROUNDS, metavar="N", help="number of rounds")
    parser.add_argument("--reduced", action="store_true", help="tiny sizes and one round, to test this script")
    args = parser.parse_args()
    shapes = shapes_named(args.shapes, use_gpu=False)
    precisions = precisions_named(args.precision, use_gpu=False)
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{'products, tables, optimizer, engine':44}{'ms/step':>10}{'of SGD':>10}")
    for shape in shapes:
        for precision in precisions:
            chosen = shape.reduced() if args.reduced else shape
            print(f"{chosen.title}, batch {chosen.batch_size}")
            measure(chosen, precision, 1 if args.reduced else args.rounds)
            gc.collect()


def measure(shape: Shape, precision: str, rounds: int) -> None:
    """Print the rows of a shape and a precision of the products."""
    stream = np.random.default_rng(0)
    batches = [draw_batch(shape, stream) for _ in range(BATCHES)]
    steps = make_steps(shape, precision)
    seconds: dict[Combination, list[float]] = {combination: [] for combination in steps}
    for number in range(rounds):
        for combination, step in steps.items():
            for repetition in range(2):  # only the second counts: another combination used the caches before
                spent = timed(step, batches[(2 * number + repetition) % BATCHES])
            seconds[combination].append(spent)
    for (engine, tables, optimizer), values in seconds.items():
        ratio = statistics.median(own / base for own, base in zip(values, seconds[BASE], strict=True))
        name = f"{precision}, {tables}, {optimizer}, {engine}"
        print(f"  {name:<42}{1e3 * statistics.median(values):>10.3f}{ratio:>10.2f}", flush=True)


def make_steps(shape: Shape, precision: str) -> dict[Combination, TrainingStep]:
    """Return the step of each combination; those with the same tables share a model."""
    settings = parse(
        [*shape.flags, "--data-generation=dataset", "--processed-data-file=x", "--embedding-init=device"]
    )
    require_memory(bytes_of_all_tables(shape), f"--shapes={shape.name}: tables in each precision, and their sums")
    steps: dict[Combination, TrainingStep] = {}
    for tables in EMBEDDING_PRECISIONS:
        architecture = replace(
            settings.model.architecture, rows_per_table=shape.tables, embedding_precision=tables
        )
        model = make_model(architecture, CPU)
        initialize_model(settings, model, np.random.RandomState(1))
        for name in OPTIMIZERS:
            optimizer, loss = make_optimizer(name, model), Loss(settings.model.loss)
            fast = CpuStep(model, loss, optimizer, precision, shape.ids_per_table)
            engines: dict[str, TrainingStep] = {"cpu": fast}
            if tables == "fp32":
                engines["autograd"] = AutogradStep(model, loss, optimizer, precision)
            for engine, step in engines.items():
                step.warm_up(shape.batch_size)
                steps[engine, tables, name] = step
    return steps


def bytes_of_all_tables(shape: Shape) -> int:
    """Return the bytes of the tables in each precision, each with the sums of Adagrad and row-wise Adagrad."""
    dimension = shape.workload.network.embedding_dimension
    sums = 4 * dimension + 4
    return sum(shape.tables) * sum(ROW_TYPES[name].itemsize * dimension + sums for name in EMBEDDING_PRECISIONS)


def draw_batch(shape: Shape, stream: np.random.Generator) -> Batch:
    """Return a batch of uniform ids."""
    size, counts = shape.batch_size, shape.ids_per_table
    dense = torch.from_numpy(stream.random((size, CRITEO.dense_features), np.float32))
    ids = [
        torch.from_numpy(stream.integers(0, rows, size * count))
        for rows, count in zip(shape.tables, counts or repeat(1), strict=False)
    ]
    labels = torch.from_numpy((stream.random((size, 1)) < 0.3).astype(np.float32))
    if counts is None:
        return Batch(dense, torch.stack(ids), None, labels)
    return Batch(dense, torch.cat(ids), bag_offsets(counts, size, CPU), labels, counts)


def timed(step: TrainingStep, batch: Batch) -> float:
    """Return the seconds of a step."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    step.train(batch, RATE)
    return clock() - start


if __name__ == "__main__":
    sys.exit(run_program("measure_optimizers.py", main))
