"""A short form of bench/measure_training.py: short files, few rounds and no torch.compile.

python bench/gpu/measure_engine.py
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import torch
from gpu_workload import full_row_limit

from measure_training import FULL, KAGGLE, LARGE, MLPERF, Shape, machine, measure_if_it_fits
from mlperf.benchmarks import DLRM
from mlperf.util.program import run_program

MIN_BATCHES = 16
ROUNDS = 8


def main() -> None:
    """Print the rows of each shape and precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reduced", action="store_true", help="one small shape on the CPU, to test the script")
    args = parser.parse_args()
    if not args.reduced and not torch.cuda.is_available():
        print(f"{parser.prog}: error: no GPU is visible to PyTorch; --reduced runs without one", file=sys.stderr)
        sys.exit(2)
    device = torch.device("cpu" if args.reduced else "cuda")
    print(f"{machine(device)}, PyTorch {torch.__version__}")
    for shape, precision, evaluated in reduced_selection() if args.reduced else selection():
        short = replace(shape, min_batches=MIN_BATCHES)
        rounds = 1 if args.reduced else ROUNDS
        measure_if_it_fits(short, precision, device, rounds, evaluated, compiled=False)


def selection() -> list[tuple[Shape, str, int]]:
    """Return shapes, precisions, and the numbers of samples to evaluate.

    If the full tables do not fit in memory, they are limited to 24 million rows.
    """
    full, limit = FULL, full_row_limit()
    if limit is not None:
        full = replace(FULL, name=f"MLPerf, tables of at most {limit:,} rows", limit=limit)
    return [
        (full, "bf16", DLRM.data.eval_samples),
        (full, "tf32", 0),
        (full, "fp32", 0),
        (LARGE, "bf16", 0),
        (MLPERF, "bf16", 0),
        (KAGGLE, "fp32", 0),
    ]


def reduced_selection() -> list[tuple[Shape, str, int]]:
    """Return a small shape for a CPU."""
    return [(replace(KAGGLE, limit=1000), "fp32", 10_000)]


if __name__ == "__main__":
    sys.exit(run_program("measure_engine.py", main))
