"""Print what a benchmark fixes, one value a line, for shell scripts: python -m mlperf.benchmarks dlrm --flags."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mlperf.benchmarks import EDITIONS, WORKLOADS


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what the flags ask for; 0. A wrong call ends with status 2, as in argparse."""
    parser = argparse.ArgumentParser(
        prog="python -m mlperf.benchmarks",
        description="Print what a benchmark fixes, one value a line, for shell scripts.",
        allow_abbrev=False,
    )
    parser.add_argument("name", choices=WORKLOADS, help="the benchmark or workload")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--flags", action="store_true", help="flags of the trainer")
    what.add_argument("--data-flags", action="store_true", help="those of them that the preparation takes too")
    what.add_argument("--editions", action="store_true", help="editions of MLPerf Training that contain it")
    asked = parser.parse_args(arguments)
    workload = WORKLOADS[asked.name]
    if asked.flags:
        lines = workload.flags
    elif asked.data_flags:
        lines = workload.data.flags
    else:
        lines = tuple(name for name, edition in EDITIONS.items() if edition.benchmark is workload)
    for line in lines:
        print(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
