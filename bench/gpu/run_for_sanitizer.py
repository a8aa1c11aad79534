"""Run a few steps without a CUDA graph, for compute-sanitizer, which checks all memory accesses of the kernels.

PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck python bench/gpu/run_for_sanitizer.py
"""

from __future__ import annotations

import bench_folder  # noqa: F401

import sys
from dataclasses import replace

from gpu_workload import SUMMED_UPDATES, make_batch, make_step, parse_workload, workload_of

from command_line import script_parser
from mlperf.benchmarks import DLRM_DCNV2
from mlperf.util.program import run_program


def main() -> None:
    """Train on two batches of different sizes and score them, in two precisions and with each kind of update."""
    workload, args = parse_workload(script_parser(__file__, __doc__))
    dlrm = replace(workload, row_limit=3000)
    dcnv2 = replace(workload_of(DLRM_DCNV2, reduced=args.reduced), row_limit=3000)
    for chosen, precision, optimizer, table_precision in (
        (dlrm, "bf16", "sgd", "fp32"),
        (dlrm, "fp32", "sgd", "fp32"),
        *((dlrm, "bf16", *update) for update in SUMMED_UPDATES),
        (dcnv2, "bf16", "adagrad", "bf16"),
        (dcnv2, "fp32", "sgd", "fp32"),
    ):
        step = make_step(chosen, precision, optimizer=optimizer, table_precision=table_precision)
        for size in (12, 5) if args.reduced else (300, 77):
            batch = make_batch(chosen, seed=size, size=size)
            step.train(batch, 0.1)
            step.score(batch)
        step.check()
        name = f"{chosen.benchmark.name}, {precision}, {optimizer}, tables in {table_precision}"
        print(f"{name}: loss {float(step.sums.loss):.6f}, summed over all samples", flush=True)


if __name__ == "__main__":
    sys.exit(run_program("run_for_sanitizer.py", main))
