"""Time a step in each precision and with each kind of table update, and list the time of each of its kernels.

python bench/gpu/profile_step.py
"""

from __future__ import annotations

import bench_folder  # noqa: F401

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from gpu_workload import (
    RATE,
    SUMMED_UPDATES,
    Workload,
    make_batch,
    make_step,
    parse_workload,
    time_steps,
)
from torch.profiler import ProfilerActivity, profile

from command_line import script_parser
from mlperf.data.batch import RawBatch
from mlperf.engines.gpu.step import GpuStep
from mlperf.util.files import write_atomically
from mlperf.util.program import run_program
from training_shapes import PRECISIONS

STEPS = 8
PRINTED_KERNELS = 24


def main() -> None:
    """Print the tables and write them as JSON: each step's [kernel, launches, microseconds]."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument("--output", type=Path, default=Path("profile.json"), help="default: profile.json")
    workload, args = parse_workload(parser)
    measured = {precision: measure(workload, precision) for precision in PRECISIONS}
    for optimizer, table_precision in SUMMED_UPDATES:
        name = f"bf16, {optimizer}, tables in {table_precision}"
        measured[name] = measure(workload, "bf16", optimizer, table_precision)
    write_atomically(args.output, json.dumps(measured))


def measure(
    workload: Workload, precision: str, optimizer: str = "sgd", table_precision: str = "fp32"
) -> list[tuple[str, float, float]]:
    """Print the time of a step and of its slowest kernels, and return all kernels, slowest first."""
    step = make_step(workload, precision, optimizer=optimizer, table_precision=table_precision)
    step.warm_up(workload.batch_size)
    batches = [make_batch(workload, seed) for seed in range(workload.batches)]
    name = f"tables of at most {workload.row_limit:,} rows in {table_precision}, {optimizer}, {precision}"
    time_steps(workload, step, batches, name)
    kernels = print_kernels(workload, step, batches)
    del step
    torch.cuda.empty_cache()
    return kernels


def print_kernels(
    workload: Workload, step: GpuStep, batches: Sequence[RawBatch]
) -> list[tuple[str, float, float]]:
    """Print the slowest kernels of a step, and return all as [kernel, launches, microseconds], slowest first."""
    on_gpu = workload.device.type == "cuda"
    steps = STEPS if on_gpu else 1
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        for number in range(steps):
            step.train(batches[number % len(batches)], RATE)
        step.check()
    kernels = []
    for event in profiler.key_averages():
        microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        kernels.append((event.key, event.count / steps, microseconds / steps))
    kernels.sort(key=lambda kernel: -kernel[2])
    for name, launches, microseconds in kernels[:PRINTED_KERNELS]:
        print(f"  {microseconds:9.1f} us  x{launches:4.1f}  {name[:110]}")
    print(f"  {sum(kernel[2] for kernel in kernels):9.1f} us in all", flush=True)
    return kernels


if __name__ == "__main__":
    sys.exit(run_program("profile_step.py", main))
