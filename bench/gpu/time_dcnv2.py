"""Time a step of DLRM-DCNv2 and list its kernels, beside an estimate from the bytes that they move.

python bench/gpu/time_dcnv2.py

Tables in bf16, exact Adagrad. The benchmark's tables and sums of squares take 157 GB then; the largest tables are
cut to the number of rows with which they fit on the GPU.
"""

from __future__ import annotations

import bench_folder  # noqa: F401

import gc
import sys
from collections.abc import Sequence
from dataclasses import replace

import torch
from dcnv2_traffic import print_estimate, read_rows
from gpu_workload import Workload, make_batch, make_step, parse_workload, time_steps
from profile_step import print_kernels

from command_line import script_parser
from mlperf.benchmarks import DLRM_DCNV2
from mlperf.data.batch import RawBatch
from mlperf.util.program import run_program
from training_shapes import precisions_named

BYTES_BESIDE_TABLES = 14e9  # in tf32: activations 9 GB, gradients 1.5, partial sums 0.9, sort and batches 1
ROW_STEP = 1_000_000


def main() -> None:
    """Print times, kernels, memory and the estimate."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument("--precision", default="bf16,tf32", help="of the products (default: bf16,tf32)")
    workload, args = parse_workload(parser, DLRM_DCNV2)
    precisions = precisions_named(args.precision, use_gpu=True)
    dimension = workload.network.embedding_dimension
    row_bytes, sums_bytes = 2 * dimension, 4 * dimension
    if not args.reduced:
        workload = replace(workload, row_limit=largest_row_limit(workload, row_bytes + sums_bytes))
    batches = [make_batch(workload, seed) for seed in range(workload.batches)]
    for precision in precisions:
        measure(workload, precision, batches)
        gc.collect()
        torch.cuda.empty_cache()
    print_estimate(workload, read_rows(workload, batches[0]), row_bytes=row_bytes, sums_bytes=sums_bytes)


def largest_row_limit(workload: Workload, row_bytes: int) -> int:
    """Return the number of rows per table with which all tables fit in GPU memory, in millions at most."""
    available = torch.cuda.mem_get_info()[0] - BYTES_BESIDE_TABLES
    limit = max(workload.benchmark.data.table_rows)
    while limit > ROW_STEP and sum(replace(workload, row_limit=limit).table_rows) * row_bytes > available:
        limit -= ROW_STEP
    return limit


def measure(workload: Workload, precision: str, batches: Sequence[RawBatch]) -> None:
    """Print the time of a step, the time of its kernels, and the memory."""
    on_gpu = workload.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    step = make_step(workload, precision, table_precision="bf16")
    step.warm_up(workload.batch_size)
    tables = f"tables of at most {workload.row_limit:,} rows in bf16"
    time_steps(workload, step, batches, f"dlrm_dcnv2, {tables}, {workload.benchmark.optimizer}, {precision}")
    print_kernels(workload, step, batches)
    if on_gpu:
        peak, reserved = torch.cuda.max_memory_allocated() / 2**30, torch.cuda.memory_reserved() / 2**30
        size = step.tables.weight.nbytes / 1e9
        print(f"  {size:.1f} GB of tables, peak memory {peak:.1f} GiB, reserved {reserved:.1f} GiB", flush=True)


if __name__ == "__main__":
    sys.exit(run_program("time_dcnv2.py", main))
