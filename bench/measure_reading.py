"""Time the reading of batches from the page cache: python bench/measure_reading.py [--use-gpu].

For each number of reader threads and batch size, batches are read as the training and the evaluation do it and
dropped:

  - undecoded: rows as the GPU engine reads them, with --use-gpu in pinned memory
  - decoded: dense features, ids and labels as the other engines read them

Each rate is compared with a plain copy of as many bytes by the same number of threads, in the same rounds. The
file is written first, so that the page cache has it. Prints medians.
"""

from __future__ import annotations

import checkout  # noqa: F401

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch

from command_line import existing_folder, script_parser
from mlperf.benchmarks import DLRM
from mlperf.data.binary import BinaryFile
from mlperf.data.schema import CRITEO
from mlperf.settings.kinds import at_least
from mlperf.util.errors import UsageError
from mlperf.util.memory import require_memory
from mlperf.util.program import run_program
from synthetic_rows import write_rows

ROWS = 6_400_000  # 1 GB
ROUNDS = 5
THREADS = (1, 2, 4, 8, 16)
TABLE_ROWS = tuple(min(rows, 400_000) for rows in DLRM.data.table_rows)
# What reads batches of these sizes.
BATCH_SIZES = {65536: "training", 2048: "training", 128: "training", 131072: "evaluation"}
AIM = 30e6  # samples/s of a training step on a GPU


def main() -> None:
    """Print the table."""
    args = parse_arguments()
    size = args.rows * CRITEO.row_bytes
    require_memory(2 * size, f"--rows={args.rows}: a copy in memory")
    cores = len(os.sched_getaffinity(0))
    threads = [count for count in THREADS if count <= cores]
    pinned = "pinned memory" if args.use_gpu else "ordinary memory"
    print(
        f"{cores} cores, {args.rows:,} rows ({size / 1e9:.2f} GB), undecoded rows in {pinned}, "
        f"median of {args.rounds}; {AIM / 1e6:.0f} million samples/s are {AIM * CRITEO.row_bytes / 1e9:.1f} GB/s, "
        "from the disk if the file is not in the page cache"
    )
    print(f"{'':54}{'GB/s':>8}{'of copy':>9}{'million samples/s':>19}")
    source, target = torch.ones(size // 4, dtype=torch.int32), torch.zeros(size // 4, dtype=torch.int32)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        file = Path(folder) / "read.bin"
        write_rows(file, args.rows, TABLE_ROWS)
        data = BinaryFile(file, args.rows, 1, TABLE_ROWS, pin_memory=args.use_gpu)
        for count in threads:
            torch.set_num_threads(count)
            contenders = {"plain copy": lambda: target.copy_(source), **reads(replace(data, readers=count))}
            report(count, size, take_turns(contenders, args.rounds))


def parse_arguments() -> argparse.Namespace:
    """Return the flags. UsageError if one is wrong."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument("--use-gpu", action="store_true", help="read undecoded rows into pinned memory")
    parser.add_argument(
        "--rows", type=at_least(1), default=ROWS, metavar="N", help="rows of the file, 160 bytes each"
    )
    parser.add_argument("--rounds", type=at_least(1), default=ROUNDS, metavar="N", help="number of rounds")
    parser.add_argument(
        "--folder",
        type=existing_folder,
        metavar="PATH",
        help="folder of the file (default: the temporary folder)",
    )
    parser.add_argument("--reduced", action="store_true", help="a tiny file and one round, to test this script")
    args = parser.parse_args()
    if args.reduced:
        args.rows, args.rounds = 20_000, 1
    if args.use_gpu and not torch.cuda.is_available():
        raise UsageError("--use-gpu: no GPU is visible to PyTorch")
    return args


def reads(data: BinaryFile) -> dict[str, Callable[[], object]]:
    """Return functions that read the whole file, by what they read."""

    def drop(batches: Callable[[int], Iterable[object]]) -> Callable[[], object]:
        return lambda: deque(batches(0), maxlen=0)

    found = {}
    for batch_size, use in BATCH_SIZES.items():
        sized = replace(data, batch_size=batch_size)
        found[f"{use}, batches of {batch_size:,}, undecoded"] = drop(sized.raw_batches)
        found[f"{use}, batches of {batch_size:,}, decoded"] = drop(replace(sized, pin_memory=False).batches)
    return found


def take_turns(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each, after a call that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def report(threads: int, size: int, seconds: dict[str, float]) -> None:
    """Print a row for each contender. size: bytes that each has read."""
    print("1 thread" if threads == 1 else f"{threads} threads")
    copy = next(iter(seconds.values()))
    for name, value in seconds.items():
        samples = f"{size / CRITEO.row_bytes / value / 1e6:19.1f}" if value != copy else ""
        print(f"  {name:<52}{size / value / 1e9:8.2f}{copy / value:9.2f}{samples}", flush=True)


if __name__ == "__main__":
    sys.exit(run_program("measure_reading.py", main))
