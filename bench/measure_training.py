"""Time the training step, a lower bound and other programs: python bench/measure_training.py [--use-gpu].

For each shape and precision, in one process and with the same number of threads, the contenders take turns:

  - floor: a lower bound, the matrix products alone plus the time to move the embedding rows at copy bandwidth
  - plain: one sparse nn.EmbeddingBag per table, nn.Sequential, torch.optim.SGD
  - plain, torch.compile: the same with its dense part compiled, if there is a C++ compiler
  - torchrec: the same with fbgemm-gpu's table-batched embeddings and their fused optimizer, if it is installed
  - this project, with one batch kept in memory and with batches read from a binary file

Prints medians: on a CPU of the steps, on a GPU of the means of the rounds. What cannot be measured (no memory, no
equivalent, not installed) is printed with the reason. With --minutes, what matters most is measured first, in
fewer rounds, and the last line names what was left out.
"""

from __future__ import annotations

import checkout  # noqa: F401

import argparse
import gc
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from command_line import script_parser
from mlperf.cli.train import parse
from mlperf.data.binary import BinaryFile
from mlperf.data.multi_hot import MultiHotShape, MultiHotTables
from mlperf.data.schema import CRITEO
from mlperf.engines.choose import make_scorer, make_step
from mlperf.engines.protocol import TrainingStep
from mlperf.engines.warm_up import warm_up
from mlperf.evaluation.evaluate import evaluate
from mlperf.models.dlrm import Architecture, DLRM_Net
from mlperf.optim.optimizer import make_optimizer
from mlperf.registry import OPTIMIZERS
from mlperf.runner.data import reading_threads
from mlperf.runner.memory import RunSizes, available_on_gpu, require_run_memory, table_bytes
from mlperf.runner.model import build_model, initialize_model
from mlperf.settings.kinds import at_least, positive
from mlperf.settings.model import EMBEDDING_PRECISIONS
from mlperf.settings.settings import Settings
from mlperf.util.errors import RunError, UsageError
from mlperf.util.program import run_program
from synthetic_rows import Repeated, write_rows
from time_budget import TimeBudget
from training_baselines import RATE, Floor, Step, captured, state_per_row, timed
from training_contenders import COMPILED, PLAIN, OtherPrograms
from training_shapes import (
    BYTES_BESIDE_TABLES,
    ROWS_OF_SMALLER_TABLES,
    SHAPES,
    Shape,
    in_order,
    precisions_named,
    shapes_named,
)

ROUNDS = 30
MAX_FILE_BYTES = 1 << 28
GPU_EVALUATION_BATCH = 65536
REDUCED_EVALUATION = 1000  # samples
STEPS_PER_ROUND = {"cpu": 10, "cuda": 100}
COMPILATION_SECONDS = 90.0  # of torch.compile, which is not worth it in a shorter share of the time


@dataclass(frozen=True)
class Plan:
    """What is measured, for each shape and precision.

    evaluated: number of samples of an evaluation, in the first combination only. compile: also time torch.compile.
    """

    device: torch.device
    optimizer: str
    embedding_precision: str
    rounds: int
    evaluated: int
    compile: bool


def main() -> None:
    """Print the table."""
    args = parse_arguments()
    shapes = shapes_named(args.shapes, use_gpu=args.use_gpu)
    precisions = precisions_named(args.precision, use_gpu=args.use_gpu)
    if args.reduced:
        shapes = [shape.reduced() for shape in shapes]
    if args.use_gpu and not torch.cuda.is_available():
        raise UsageError("--use-gpu: no GPU is visible to PyTorch")
    plan = Plan(
        torch.device("cuda" if args.use_gpu else "cpu"),
        args.optimizer,
        args.embedding_precision,
        1 if args.reduced else args.rounds,
        min(args.evaluate, REDUCED_EVALUATION) if args.reduced else args.evaluate,
        args.compile and not args.reduced,
    )
    print(
        f"{machine(plan.device)}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"{plan.optimizer}, tables in {plan.embedding_precision}"
    )
    print(f"{'':44}{'ms/step':>10}{'samples/s':>14}{'of floor':>10}{'of plain':>10}")
    measure_all(in_order(shapes, precisions), plan, TimeBudget(args.minutes))


def parse_arguments() -> argparse.Namespace:
    """Return the flags. UsageError if one is wrong."""
    parser = script_parser(__file__, __doc__)
    names = ", ".join(shape.name for shape in SHAPES)
    parser.add_argument("--use-gpu", action="store_true", help="measure on the first GPU")
    parser.add_argument(
        "--shapes",
        help=f"one or several of {names}, separated by commas (default: those of DLRM, on a CPU "
        "the last two of them)",
    )
    parser.add_argument("--precision", help="one or several of fp32, tf32 (GPU), bf16 (default: all)")
    parser.add_argument("--optimizer", choices=list(OPTIMIZERS), default="sgd", help="default: sgd")
    parser.add_argument(
        "--embedding-precision", choices=EMBEDDING_PRECISIONS, default="fp32", help="of the tables (default: fp32)"
    )
    parser.add_argument(
        "--minutes", type=positive, metavar="X", help="measure as much as possible in this time (default: all)"
    )
    parser.add_argument("--rounds", type=at_least(1), default=ROUNDS, metavar="N", help="number of rounds at most")
    parser.add_argument(
        "--evaluate",
        type=at_least(0),
        default=0,
        metavar="N",
        help="also time an evaluation of N samples, the first time",
    )
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="do not time torch.compile")
    parser.add_argument("--reduced", action="store_true", help="tiny sizes and one round, to test this script")
    args = parser.parse_args()
    if args.reduced and args.use_gpu:
        raise UsageError("--reduced measures on the CPU: omit --use-gpu")
    return args


def machine(device: torch.device) -> str:
    """Return the name of the processor or GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    names = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    family = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("cpu family")]
    return f"{(names or [platform.processor()])[0]} (family {(family or ['unknown'])[0]})"


def _lines(path: str) -> Sequence[str]:
    return Path(path).read_text().splitlines() if os.path.exists(path) else []


def measure_all(cases: Sequence[tuple[Shape, str]], plan: Plan, budget: TimeBudget) -> None:
    """Print the rows of each shape and precision in the given order, then the names of those left out."""
    with tempfile.TemporaryDirectory() as folder:
        for number, (shape, precision) in enumerate(cases):
            name = f"{shape.name} {precision}"
            if number and not budget.allows(name):
                continue
            seconds = budget.share(len(cases) - number)
            if number:
                plan = replace(plan, evaluated=0)
            try:
                measure(shape, precision, plan, seconds, budget, Path(folder))
            except (RunError, MemoryError, torch.OutOfMemoryError) as error:
                reason = str(error).partition("\n")[0]
                print(f"{name}: not measured: {reason}", flush=True)
            torch.compiler.reset()  # otherwise the next batch size is compiled with dynamic shapes
            gc.collect()
            if plan.device.type == "cuda":
                torch.cuda.empty_cache()
    if budget.left_out:
        print(f"left out for lack of time: {'; '.join(budget.left_out)}")


def measure(shape: Shape, precision: str, plan: Plan, seconds: float, budget: TimeBudget, folder: Path) -> None:
    """Print the rows of one shape and precision.

    seconds: time for all of it; at least one round is made. folder: for the files, one for each shape.
    """
    start = time.perf_counter()
    own = prepare(shape, precision, plan, folder / f"{shape.name}.bin")
    architecture, step = own.model.architecture, own.step
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    batch = next(iter(own.source.batches(0)))
    floor = Floor(architecture, batch, dtype, plan.device, state_per_row(plan.optimizer, architecture))
    steps: dict[str, Step] = {"floor": captured(floor, plan.device)}
    missing: dict[str, str] = {}
    if shape.plain:
        with_compile = plan.compile and seconds > COMPILATION_SECONDS
        if plan.compile and not with_compile:
            budget.left_out.append(f"{shape.name} {precision} {COMPILED}")
        others = OtherPrograms(architecture, batch, precision, plan.device, plan.optimizer, with_compile)
        made, missing = others.make()
        steps.update(made)
    kept = next(iter(step.batches(own.source, 0)))
    steps["this project, batch in memory"] = lambda: step.train(kept, RATE)
    stream = iter(step.batches(Repeated(own.source, sys.maxsize), 0))
    steps["this project, from the file"] = lambda: step.train(next(stream), RATE)
    budget.note_preparation(time.perf_counter() - start)
    times = take_turns(steps, plan.rounds, plan.device, start + seconds)
    step.check()
    report(f"{own.shape.title}, {precision}", own.shape.batch_size, times, floor.seconds_of_tables, missing)
    print(f"  {'initialization of the tables':<42}{1e3 * own.initialized:>10,.0f} ms", flush=True)
    if plan.evaluated:
        time_evaluation(own, plan, f"{shape.name} {precision} evaluation", budget)


@dataclass(frozen=True)
class Prepared:
    """This project's step, ready to be timed. initialized: seconds to build and initialize the model."""

    shape: Shape
    settings: Settings
    model: DLRM_Net
    step: TrainingStep
    source: BinaryFile
    initialized: float


def prepare(shape: Shape, precision: str, plan: Plan, file: Path) -> Prepared:
    """Build the model, write `file` unless it exists, and warm up. RunError if the memory does not suffice."""
    settings = settings_of(shape, precision, plan, file)
    shape, architecture = fitted(shape, settings, plan)
    samples = rows_of_file(shape, plan)
    sizes = RunSizes(samples, 0)
    require_run_memory(settings, architecture, plan.device, sizes)
    if not file.exists():
        write_rows(file, samples, shape.tables)
    ids = shape.ids_per_table
    start = time.perf_counter()
    model = build_model(settings, architecture, plan.device, sizes)
    initialize_model(settings, model, np.random.RandomState(1))
    _wait(plan.device)
    initialized = time.perf_counter() - start
    source = BinaryFile(
        file,
        samples,
        shape.batch_size,
        shape.tables,
        readers=reading_threads(settings, train=True),
        pin_memory=settings.use_gpu,
        multi_hot=None if ids is None else MultiHotTables.drawn(MultiHotShape(shape.tables, ids)),
    )
    step = make_step(model, settings, make_optimizer(plan.optimizer, model, settings.seed))
    warm_up(step, shape.batch_size)
    return Prepared(shape, settings, model, step, source, initialized)


def settings_of(shape: Shape, precision: str, plan: Plan, file: Path) -> Settings:
    """Return the settings of a run with this project."""
    return parse(
        [
            *shape.flags,
            *("--data-generation=dataset", f"--processed-data-file={file}"),
            *f"--mini-batch-size={shape.batch_size} --precision={precision} --embedding-init=device".split(),
            *f"--optimizer={plan.optimizer} --embedding-precision={plan.embedding_precision}".split(),
            *(["--use-gpu"] if plan.device.type == "cuda" else []),
        ]
    )


def fitted(shape: Shape, settings: Settings, plan: Plan) -> tuple[Shape, Architecture]:
    """Return the shape, with smaller tables if the full ones do not fit on the GPU, and its architecture."""
    tables, ids = shape.tables, shape.ids_per_table
    architecture = replace(settings.model.architecture, rows_per_table=tables, ids_per_table=ids)
    if plan.device.type == "cuda" and shape.limit is None:
        state = 4 * state_per_row(plan.optimizer, architecture) * sum(shape.tables)
        if table_bytes(architecture) + state + BYTES_BESIDE_TABLES > available_on_gpu(plan.device):
            shape = replace(shape, limit=ROWS_OF_SMALLER_TABLES)
            architecture = replace(architecture, rows_per_table=shape.tables)
    return shape, architecture


def rows_of_file(shape: Shape, plan: Plan) -> int:
    """Return the rows to write: as many as the rounds can read, within MAX_FILE_BYTES.

    A shorter file is read again and again: in one that is too short the start of its readers would dominate.
    """
    steps = plan.rounds * 2 * STEPS_PER_ROUND[plan.device.type]
    batches = min(steps, MAX_FILE_BYTES // (CRITEO.row_bytes * shape.batch_size))
    return shape.batch_size * max(2, batches)


def take_turns(steps: dict[str, Step], rounds: int, device: torch.device, end: float) -> dict[str, list[float]]:
    """Return the step times in seconds for each contender. Short steps are repeated in each round.

    On a GPU, each round gives one value, the mean of its steps: the host runs ahead and prefetches, so slow reads
    show up only in a few later steps. The first steps of a round are not counted.

    end: time on the clock of `time.perf_counter` after which no further round starts.
    """
    on_gpu = device.type == "cuda"
    count = {}
    for name, step in steps.items():
        slowest = max(timed(step, 2, device)[1:])
        typical = slowest if slowest > 0.1 else statistics.median(timed(step, 5, device))
        count[name] = max(1, min(STEPS_PER_ROUND[device.type], int(0.1 / typical)))
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds):
        if number and time.perf_counter() > end:
            break
        for name, step in steps.items():
            if on_gpu:
                leading = count[name] // 2 + 1
                seconds[name].append(statistics.fmean(timed(step, leading + count[name], device)[leading:]))
            else:
                timed(step, 1, device)  # warm up: another contender used the caches
                seconds[name] += timed(step, count[name], device)
    return seconds


def report(
    title: str, batch_size: int, seconds: dict[str, list[float]], tables: float, missing: dict[str, str]
) -> None:
    """Print a row for each contender. tables: seconds that are added to the floor."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    medians["floor"] += tables
    print(f"{title} ({1e3 * tables:.2f} ms of the floor are the tables)")
    for name, median in medians.items():
        of_plain = f"{median / medians[PLAIN]:10.2f}" if PLAIN in medians else f"{'':>10}"
        rate = batch_size / median
        print(f"  {name:<42}{1e3 * median:>10.3f}{rate:>14,.0f}{median / medians['floor']:10.2f}{of_plain}")
    for name, reason in missing.items():
        print(f"  {name:<42}not measured: {reason}")


def time_evaluation(own: Prepared, plan: Plan, name: str, budget: TimeBudget) -> None:
    """Print the time of an evaluation with all metrics, if the budget has room for it."""
    source = own.source
    if plan.device.type == "cuda":
        source = replace(source, batch_size=GPU_EVALUATION_BATCH)
    scorer = make_scorer(own.model, own.settings)

    def evaluation(samples: int) -> float:
        start = time.perf_counter()
        evaluate(scorer, Repeated(source, samples), all_metrics=True)
        return time.perf_counter() - start

    part = max(1, plan.evaluated // 100)
    evaluation(part)  # compiles
    if evaluation(part) * plan.evaluated / part > budget.remaining:
        budget.left_out.append(name)
        return
    milliseconds = 1e3 * evaluation(plan.evaluated)
    print(f"  {f'evaluation of {plan.evaluated:,} samples':<42}{milliseconds:>10,.0f} ms", flush=True)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(run_program("measure_training.py", main))
