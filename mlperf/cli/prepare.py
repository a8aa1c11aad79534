"""Prepare Criteo data: turn raw text into the binary files that training reads."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from mlperf.cli.program import program_name, run_program
from mlperf.settings.from_flags import parse_preparation


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 0 done, 1 failed, 2 wrong call."""
    name = program_name("prepare_criteo.py")
    return run_program(name, partial(_prepare, name, arguments))


def _prepare(name: str, arguments: Sequence[str] | None) -> int:
    settings = parse_preparation(arguments, name, __doc__)

    from mlperf.data.criteo.prepare.pipeline import prepare

    made = prepare(settings)
    if made.max_ind_range is None:
        print(
            f"{made.train}: rows that another program prepared, used as they are; nothing prepared",
            file=sys.stderr,
        )
    print(f"{made.train}: {made.train_rows:,} rows")
    print(f"{made.test}: {made.test_rows:,} rows")
    print(f"{made.val}: {made.val_rows:,} rows")
    if made.bad_rows:
        print(f"{made.bad_rows:,} bad rows left out; the manifest counts them per file and reason")
    print("rows per table: " + "-".join(str(count) for count in made.counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
