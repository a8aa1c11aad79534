"""Count the evaluations to the target per precision: python bench/measure_precisions.py [--use-gpu] [--seeds=5].

Runs `run_and_time.sh` for each seed, precision and precision of the embedding tables, on the sample unless DATADIR
names other data. Prints the number of evaluations and epochs until each run reached its target, and by how many
evaluations each column differs from the first.
"""

from __future__ import annotations

import checkout  # noqa: F401

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from command_line import named_values, script_parser
from mlperf.settings.kinds import at_least
from mlperf.settings.model import EMBEDDING_PRECISIONS
from mlperf.settings.settings import PRECISIONS
from mlperf.util.errors import RunError
from mlperf.util.program import run_program

ROOT = Path(__file__).resolve().parent.parent
TESTED = re.compile(r"^Testing at - (\d+)/(\d+) of epoch (\d+),$", re.MULTILINE)


def main() -> None:
    """Print the table. RunError if a run fails or misses its target."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument("--use-gpu", action="store_true", help="run on the GPU")
    parser.add_argument("--seeds", type=at_least(1), default=5, metavar="N", help="number of seeds: 1, 2, ...")
    parser.add_argument("--precision", help="one or several, separated by commas (default: all of the device)")
    parser.add_argument(
        "--embedding-precision", default="fp32", help="one or several of fp32, bf16, fp16 (default: fp32)"
    )
    args = parser.parse_args()
    on_device = [one for one in PRECISIONS if args.use_gpu or one != "tf32"]
    precisions = on_device if args.precision is None else named_values("--precision", args.precision, on_device)
    tables = named_values("--embedding-precision", args.embedding_precision, EMBEDDING_PRECISIONS)
    columns = list(product(precisions, tables))
    print(f"{'seed':>6}" + "".join(f"{title(*column):>24}" for column in columns))
    counts = []
    for seed in range(1, args.seeds + 1):
        row = [run(seed, *column, use_gpu=args.use_gpu) for column in columns]
        counts.append([evaluations for evaluations, _ in row])
        print(f"{seed:>6}" + "".join(f"{text:>24}" for _, text in row), flush=True)
    print_differences(counts)


def title(precision: str, tables: str) -> str:
    """Return the heading of a column."""
    return precision if tables == "fp32" else f"{precision}, tables {tables}"


def print_differences(counts: Sequence[Sequence[int]]) -> None:
    """Print the range of the differences of each column from the first. counts: evaluations, [seeds][columns]."""
    ranges = []
    for column in zip(*counts, strict=True):
        differences = [own - row[0] for own, row in zip(column, counts, strict=True)]
        ranges.append(f"{min(differences):+d} to {max(differences):+d}")
    print(f"{'':>6}" + "".join(f"{text:>24}" for text in ranges))


def run(seed: int, precision: str, tables: str, *, use_gpu: bool) -> tuple[int, str]:
    """Return the number of evaluations that a run needed to reach its target, and a text with the epochs."""
    flags = [f"--precision={precision}", f"--embedding-precision={tables}", *(["--use-gpu"] if use_gpu else [])]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["./run_and_time.sh", *flags],
            cwd=ROOT,
            env={**os.environ, "SEED": str(seed), "LOGDIR": folder},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunError(f"seed {seed}, {' '.join(flags)}: status {done.returncode}: {reason}")
    found = TESTED.findall(done.stdout)
    iteration, batches, epoch = map(int, found[-1])
    return len(found), f"{len(found)} ({epoch + iteration / batches:.2f} epochs)"


if __name__ == "__main__":
    sys.exit(run_program("measure_precisions.py", main))
