"""Count the evaluations to the target per precision: python bench/measure_precisions.py [--use-gpu] [--seeds=5].

Runs `run_and_time.sh` for each seed and precision, on the sample unless DATADIR names other data. Prints the
number of evaluations and epochs until each run reached its target.
"""

from __future__ import annotations

import checkout  # noqa: F401

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from mlperf.util.program import run_program

ROOT = Path(__file__).resolve().parent.parent
TESTED = re.compile(r"^Testing at - (\d+)/(\d+) of epoch (\d+),$", re.MULTILINE)


def main() -> None:
    """Print the table. Exit with status 1 if a run fails or misses its target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--use-gpu", action="store_true", help="run on the GPU, including tf32")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds: 1, 2, ... (default: 5)")
    flags = parser.parse_args()
    precisions = ("fp32", "tf32", "bf16") if flags.use_gpu else ("fp32", "bf16")
    print(f"{'seed':>6}" + "".join(f"{precision:>24}" for precision in precisions))
    for seed in range(1, flags.seeds + 1):
        row = [run(seed, precision, use_gpu=flags.use_gpu) for precision in precisions]
        print(f"{seed:>6}" + "".join(f"{text:>24}" for text in row), flush=True)


def run(seed: int, precision: str, *, use_gpu: bool) -> str:
    """Return the number of evaluations and epochs that a run needed to reach its target."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["./run_and_time.sh", f"--precision={precision}", *(["--use-gpu"] if use_gpu else [])],
            cwd=ROOT,
            env={**os.environ, "SEED": str(seed), "LOGDIR": folder},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        sys.exit(
            f"measure_precisions.py: error: seed {seed}, {precision}: status {done.returncode}\n{done.stderr}"
        )
    found = TESTED.findall(done.stdout)
    iteration, batches, epoch = map(int, found[-1])
    return f"{len(found)} ({epoch + iteration / batches:.2f} epochs)"


if __name__ == "__main__":
    sys.exit(run_program("measure_precisions.py", main))
