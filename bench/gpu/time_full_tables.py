"""Time a step with full-size tables, with log-uniform and with uniform ids, and print the peak memory.

python bench/gpu/time_full_tables.py
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace

import torch
from gpu_workload import full_row_limit, make_batch, make_step, parse_workload, time_steps

from mlperf.benchmarks import DLRM
from mlperf.util.program import run_program


def main() -> None:
    """Print times and memory. Tables that do not fit in memory are limited to 24 million rows."""
    workload, args = parse_workload(argparse.ArgumentParser(description=__doc__))
    on_gpu = workload.device.type == "cuda"
    if not args.reduced:
        workload = replace(workload, row_limit=full_row_limit() or max(DLRM.data.table_rows))
    start = time.perf_counter()
    step = make_step(workload, "bf16")
    if on_gpu:
        torch.cuda.synchronize()
    size = step.tables.weight.nbytes / 1e9
    print(f"{size:.1f} GB of tables initialized in {time.perf_counter() - start:.1f} s", flush=True)
    step.warm_up(workload.batch_size)
    for uniform in (False, True):
        batches = [make_batch(workload, seed, uniform=uniform) for seed in range(4)]
        ids = "uniform" if uniform else "log-uniform"
        time_steps(workload, step, batches, f"tables of at most {workload.row_limit:,} rows, bf16, {ids} ids")
    if on_gpu:
        peak, reserved = torch.cuda.max_memory_allocated() / 2**30, torch.cuda.memory_reserved() / 2**30
        print(f"peak memory {peak:.1f} GiB, reserved {reserved:.1f} GiB")


if __name__ == "__main__":
    sys.exit(run_program("time_full_tables.py", main))
