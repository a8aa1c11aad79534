"""Print what a benchmark fixes, one value a line, for shell scripts: python -m mlperf.benchmarks dlrm --flags."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from mlperf.benchmarks import BENCHMARKS, WORKLOADS, dashed, default_edition, editions_of
from mlperf.util.program import run_program

_NAME = "python -m mlperf.benchmarks"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the requested values and return 0. Usage errors exit with status 2."""
    return run_program(_NAME, partial(_print_values, arguments))


def _print_values(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog=_NAME,
        description="Print what a benchmark fixes, one value a line, for shell scripts.",
        allow_abbrev=False,
    )
    parser.add_argument("name", choices=WORKLOADS, help="the benchmark or workload")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--flags", action="store_true", help="flags of the trainer")
    what.add_argument("--data-flags", action="store_true", help="the subset for the preparation")
    what.add_argument("--sample-flags", action="store_true", help="more flags of the trainer on the sample")
    what.add_argument(
        "--table-rows", action="store_true", help="rows of the tables, as --arch-embedding-size takes them"
    )
    what.add_argument(
        "--editions", action="store_true", help="MLPerf Training editions that include the benchmark"
    )
    what.add_argument("--default-edition", action="store_true", help="the edition that runs use by default")
    args = parser.parse_args(arguments)
    workload = WORKLOADS[args.name]
    rows = workload.data.table_rows
    if args.flags:
        lines = workload.flags
    elif args.data_flags:
        lines = workload.data.preparation_flags
    elif args.sample_flags:
        lines = BENCHMARKS[args.name].sample_flags if args.name in BENCHMARKS else ()
    elif args.table_rows:
        lines = (dashed(rows),) if rows else ()
    elif args.default_edition:
        lines = (default_edition(BENCHMARKS[args.name]).name,) if args.name in BENCHMARKS else ()
    else:
        lines = tuple(edition.name for edition in editions_of(workload))
    for line in lines:
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
