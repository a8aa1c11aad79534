"""Measure what --time-breakdown costs on the CPU: python bench/measure_time_breakdown.py.

For each shape and engine, two steps of the same model take turns in one process, one of them with the stopwatch.

Prints medians of the times of a step, and of the differences and the ratios of both in the same round. With one
thread, it is the time of the processor, which other work on a shared machine changes least.
"""

from __future__ import annotations

import checkout  # noqa: F401

import gc
import statistics
import sys
from dataclasses import replace

import numpy as np
import torch

from command_line import script_parser
from measure_optimizers import BATCHES, CPU, draw_batch, timed
from mlperf.cli.train import parse
from mlperf.engines.autograd.engine import AutogradEngine
from mlperf.engines.choose import make_step_of
from mlperf.engines.cpu.engine import CpuEngine
from mlperf.engines.device_stopwatch import make_stopwatch
from mlperf.engines.protocol import Engine, TrainingStep
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.make import make_model
from mlperf.optim.optimizer import make_optimizer
from mlperf.runner.model import initialize_model
from mlperf.settings.kinds import at_least
from mlperf.settings.settings import Settings
from mlperf.util.program import run_program
from training_shapes import Shape, shapes_named

ROUNDS = 100
ENGINES: tuple[Engine, ...] = (CpuEngine(), AutogradEngine())


def main() -> None:
    """Print the table."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument("--shapes", help="one or several shapes of measure_training.py (default: its default)")
    parser.add_argument("--rounds", type=at_least(2), default=ROUNDS, metavar="N", help="number of rounds")
    parser.add_argument("--reduced", action="store_true", help="tiny sizes and two rounds, to test this script")
    args = parser.parse_args()
    shapes = shapes_named(args.shapes, use_gpu=False)
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{'shape, engine':44}{'ms/step':>10}{'measured':>10}{'us more':>10}{'ratio':>8}")
    for shape in shapes:
        measure(shape.reduced() if args.reduced else shape, 2 if args.reduced else args.rounds)
        gc.collect()


def measure(shape: Shape, rounds: int) -> None:
    """Print the rows of a shape."""
    settings = parse(
        [*shape.flags, "--data-generation=dataset", "--processed-data-file=x", "--embedding-init=device"]
    )
    model = make_model(replace(settings.model.architecture, rows_per_table=shape.tables), CPU)
    initialize_model(settings, model, np.random.RandomState(1))
    stream = np.random.default_rng(0)
    batches = [draw_batch(shape, stream) for _ in range(BATCHES)]
    for engine in ENGINES:
        plain, measured = (step_of(engine, model, settings, shape, measured=number == 1) for number in range(2))
        times: list[tuple[float, float]] = []
        for number in range(rounds):
            batch = batches[number % BATCHES]
            both = dict.fromkeys((plain, measured) if number % 2 else (measured, plain), 0.0)
            for step in both:
                timed(step, batch)  # the other step used the caches before
                both[step] = timed(step, batch)
            times.append((both[plain], both[measured]))
        without, with_stopwatch = (1e3 * statistics.median(one) for one in zip(*times, strict=True))
        more = 1e6 * statistics.median(after - before for before, after in times)
        ratio = statistics.median(after / before for before, after in times)
        name = f"{shape.name}, {engine.description.partition(' ')[0]}"
        print(f"{name:<44}{without:>10.3f}{with_stopwatch:>10.3f}{more:>10.1f}{ratio:>8.3f}", flush=True)


def step_of(engine: Engine, model: DLRM_Net, settings: Settings, shape: Shape, *, measured: bool) -> TrainingStep:
    """Return a step, warmed up, with the stopwatch if it is `measured`."""
    stopwatch = make_stopwatch(CPU) if measured else None
    step = make_step_of(engine, model, settings, make_optimizer("sgd", model), stopwatch)
    step.warm_up(shape.batch_size)
    return step


if __name__ == "__main__":
    sys.exit(run_program("measure_time_breakdown.py", main))
