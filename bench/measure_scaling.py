"""Time the training step of several processes: python bench/measure_scaling.py [--processes=1,2] [--use-gpu].

For each shape the contenders take turns. All of them use all cores: one process has as many threads as there are
cores, P processes divide them.

  - one process with the engine of one device, cpu or gpu
  - one process with the engine of several processes, torchrec
  - P processes, for each kind of sharding

Each reads its batches from the same file. Prints medians over the rounds: the time of a step, its ratio to that of
the first contender in the same round, and

  - waits: share of the step in which the thread that trains sleeps, because it waits for other processes or for
    what they send. Linux counts it: the time less that on a core and that in the queue for one.
  - alone: time of the collectives of a step when nothing else is done, relative to the step. A part of it is
    hidden: the step computes meanwhile.
  - sent: bytes that all processes send to others for one sample, which Linux counts for each TCP connection
    (TCP_INFO), and the bytes that a formula predicts (bench/scaling_traffic.py)

NCCL does not use TCP, so that with --use-gpu nothing is counted.
"""

from __future__ import annotations

import checkout  # noqa: F401

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from command_line import named_values, script_parser
from measure_training import machine
from mlperf.registry import OPTIMIZERS
from mlperf.settings.kinds import at_least
from mlperf.util.errors import UsageError
from mlperf.util.memory import require_memory
from mlperf.util.program import run_program
from scaling_contenders import Contender
from scaling_traffic import sent_bytes
from scaling_worker import Measured, Task
from synthetic_rows import write_rows
from training_shapes import SHAPES, Shape, precisions_named

ROUNDS = 10
SECONDS_PER_ROUND, REDUCED_SECONDS = 0.5, 0.02
FILE_ROWS = 1 << 17
ROWS = 400_000
DEFAULT_SHAPES = {"cpu": "MLPerf-2048,Kaggle-128,DCNv2-2048", "cuda": "MLPerf-65536,DCNv2-65536"}
KINDS = ("table-wise", "row-wise", "column-wise")
HEADER = f"{'':44}{'ms/step':>10}{'samples/s':>12}{'ratio':>8}{'waits':>8}{'alone':>8}{'sent':>10}{'formula':>10}"


def main() -> None:
    """Print the table."""
    args = parse_arguments()
    shapes = named_values("--shapes", args.shapes, [shape.name for shape in SHAPES])
    device = torch.device("cuda" if args.use_gpu else "cpu")
    print(
        f"{machine(device)}, PyTorch {torch.__version__}, {args.cores} cores, {args.optimizer}, {args.precision}"
    )
    print(HEADER)
    with tempfile.TemporaryDirectory() as folder:
        for name in shapes:
            measure(name, args, Path(folder) / f"{name}.bin")


def parse_arguments() -> argparse.Namespace:
    """Return the flags. UsageError if one is wrong."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument("--use-gpu", action="store_true", help="measure on the first GPUs, one for each process")
    parser.add_argument(
        "--shapes",
        help=f"shapes of measure_training.py, separated by commas (default: {DEFAULT_SHAPES['cpu']}; "
        f"with --use-gpu: {DEFAULT_SHAPES['cuda']})",
    )
    parser.add_argument("--processes", default="2", help="numbers of processes, separated by commas (default: 2)")
    parser.add_argument("--sharding", default="table-wise,row-wise", help=f"one or several of {', '.join(KINDS)}")
    parser.add_argument("--optimizer", choices=list(OPTIMIZERS), default="sgd", help="default: sgd")
    parser.add_argument("--precision", default="fp32", help="fp32, tf32 (GPU) or bf16 (default: fp32)")
    parser.add_argument("--rows", type=at_least(1), default=ROWS, metavar="N", help="rows per table at most")
    parser.add_argument(
        "--cores", type=at_least(1), metavar="N", help="threads in all (default: one for each core)"
    )
    parser.add_argument("--rounds", type=at_least(1), default=ROUNDS, metavar="N", help="number of rounds")
    parser.add_argument("--reduced", action="store_true", help="tiny sizes and one round, to test this script")
    args = parser.parse_args()
    if args.reduced and args.use_gpu:
        raise UsageError("--reduced measures on the CPU: omit --use-gpu")
    gpus = torch.cuda.device_count()
    if args.use_gpu and not gpus:
        raise UsageError("--use-gpu: no GPU is visible to PyTorch")
    args.processes = [_number(text, args.processes) for text in args.processes.split(",")]
    if args.use_gpu and max(args.processes) > gpus:
        raise UsageError(f"--processes={max(args.processes)}: each needs a GPU, and {gpus} are visible to PyTorch")
    args.sharding = named_values("--sharding", args.sharding, KINDS)
    args.precision = precisions_named(args.precision, use_gpu=args.use_gpu)[0]
    args.shapes = args.shapes or DEFAULT_SHAPES["cuda" if args.use_gpu else "cpu"]
    args.cores = args.cores or len(os.sched_getaffinity(0))
    args.rounds = 1 if args.reduced else args.rounds
    return args


def _number(text: str, given: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise UsageError(f"--processes={given}: {text!r} must be a whole number from 1 on")
    return int(text)


def measure(name: str, args: argparse.Namespace, file: Path) -> None:
    """Print the rows of one shape. file: for its rows."""
    tasks = tasks_of(name, args, file)
    shape = tasks[0][1].measured_shape
    _require_room(shape, len(tasks), args)
    write_rows(file, -(-FILE_ROWS // shape.batch_size) * shape.batch_size, shape.tables)
    print(f"{shape.title}, batch {shape.batch_size}")
    with ExitStack() as stack:
        contenders = [stack.enter_context(Contender(title, task)) for title, task in tasks]
        rounds = take_turns(contenders, args.rounds, REDUCED_SECONDS if args.reduced else SECONDS_PER_ROUND)
    for number, contender in enumerate(contenders):
        ratio = statistics.median(one[number][0].seconds / one[0][0].seconds for one in rounds)
        report(contender, [one[number] for one in rounds], ratio, shape.batch_size, use_gpu=args.use_gpu)


def tasks_of(name: str, args: argparse.Namespace, file: Path) -> list[tuple[str, Task]]:
    """Return the contenders of a shape: their names and tasks."""

    def task(engine: str, sharding: str, size: int) -> Task:
        return Task(
            *(name, args.rows, args.reduced, args.optimizer, args.precision, engine, sharding, str(file)),
            *(args.use_gpu, 0, size, 0, max(1, args.cores // size)),
        )

    single = "gpu" if args.use_gpu else "cpu"
    found = [
        (f"1 process, {single}", task(single, "auto", 1)),
        ("1 process, torchrec", task("torchrec", "auto", 1)),
    ]
    return found + [
        (f"{size} processes, torchrec, {kind}", task("torchrec", kind, size))
        for size in args.processes
        for kind in args.sharding
        if size > 1
    ]


def _require_room(shape: Shape, contenders: int, args: argparse.Namespace) -> None:
    """Raise RunError if the tables of all contenders do not fit in memory."""
    values = sum(shape.tables) * shape.workload.network.embedding_dimension
    sums = 1 if args.optimizer == "sgd" else 2
    if not args.use_gpu:
        require_memory(
            4 * sums * contenders * values, f"--rows={args.rows}: the tables of {contenders} contenders"
        )


Round = tuple[Measured, Measured]  # of steps, and of their collectives alone


def take_turns(contenders: Sequence[Contender], rounds: int, seconds: float) -> list[list[Round]]:
    """Return for each round what was measured for each contender. Short steps are repeated for `seconds`."""
    counts = []
    for contender in contenders:
        contender.measure("train", 2)  # compiles and allocates
        contender.measure("communicate", 1)
        counts.append(max(1, int(seconds / contender.measure("train", 2).seconds)))
    found = []
    for _ in range(rounds):
        of_round = []
        for contender, count in zip(contenders, counts, strict=True):
            contender.measure("train", 1)  # warm up: another contender used the caches
            of_round.append((contender.measure("train", count), contender.measure("communicate", count)))
        found.append(of_round)
    return found


def report(contender: Contender, rounds: Sequence[Round], ratio: float, batch: int, *, use_gpu: bool) -> None:
    """Print the row of a contender."""
    seconds = statistics.median(step.seconds for step, _ in rounds)
    row = f"  {contender.name:<42}{1e3 * seconds:>10.2f}{batch / seconds:>12,.0f}{ratio:>8.2f}"
    if contender.size > 1:
        alone = statistics.median(alone.seconds / step.seconds for step, alone in rounds)
        row += (
            f"{'' if use_gpu else f'{statistics.median(step.waiting for step, _ in rounds):.0%}':>8}{alone:>8.0%}"
        )
        expected = sent_bytes(contender.network, contender.size, batch, reduce_factor=1 if use_gpu else 2)
        counted = statistics.median(step.sent for step, _ in rounds) / batch
        row += f"{'' if use_gpu else f'{counted:,.0f}':>10}{sum(expected.values()):>10,.0f}"
    print(row, flush=True)


if __name__ == "__main__":
    sys.exit(run_program("measure_scaling.py", main))
