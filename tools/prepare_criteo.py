"""Prepare Criteo data: raw text to the binary files the benchmark trains on."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mlperf.cli.program import run_program
from mlperf.data.criteo.prepare.prepare import prepare
from mlperf.settings.parse import parse_preparation


def main() -> int:
    """Prepare the data and say what was made."""
    made = prepare(parse_preparation(None, "prepare_criteo.py", __doc__))
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
    sys.exit(run_program("prepare_criteo.py", main))
