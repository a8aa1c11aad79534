"""Time a step with full-size tables in fp32 and in bf16, with log-uniform and uniform ids; print the peak memory.

python bench/gpu/time_full_tables.py
"""

from __future__ import annotations

import bench_folder  # noqa: F401

import gc
import sys
import time
from dataclasses import replace

import torch
from gpu_workload import Workload, full_row_limit, make_batch, make_step, parse_workload, time_steps

from command_line import script_parser
from mlperf.benchmarks import DLRM
from mlperf.util.program import run_program


def main() -> None:
    """Print times and memory. Tables that do not fit in memory are limited to 24 million rows."""
    workload, args = parse_workload(script_parser(__file__, __doc__))
    for table_precision in ("fp32", "bf16"):
        sized = workload
        if not args.reduced:
            row_limit = full_row_limit(table_precision) or max(DLRM.data.table_rows)
            sized = replace(workload, row_limit=row_limit)
        measure(sized, table_precision)
        gc.collect()
        torch.cuda.empty_cache()


def measure(workload: Workload, table_precision: str) -> None:
    """Print times and memory with tables in one precision."""
    on_gpu = workload.device.type == "cuda"
    start = time.perf_counter()
    step = make_step(workload, "bf16", table_precision=table_precision)
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    size = step.tables.weight.nbytes / 1e9
    print(f"{size:.1f} GB of tables initialized in {time.perf_counter() - start:.1f} s", flush=True)
    step.warm_up(workload.batch_size)
    for uniform in (False, True):
        batches = [make_batch(workload, seed, uniform=uniform) for seed in range(workload.batches)]
        ids = "uniform" if uniform else "log-uniform"
        tables = f"tables of at most {workload.row_limit:,} rows in {table_precision}"
        time_steps(workload, step, batches, f"{tables}, bf16, {ids} ids")
    if on_gpu:
        peak, reserved = torch.cuda.max_memory_allocated() / 2**30, torch.cuda.memory_reserved() / 2**30
        print(f"peak memory {peak:.1f} GiB, reserved {reserved:.1f} GiB")


if __name__ == "__main__":
    sys.exit(run_program("time_full_tables.py", main))
