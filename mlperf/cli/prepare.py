"""Prepare a click log: convert raw text to the binary files used for training."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import partial

from mlperf.benchmarks import dashed
from mlperf.settings.dataset import PreparationSettings
from mlperf.settings.from_flags import parse_preparation
from mlperf.util.program import program_name, run_program

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 0 success, 1 failure, 2 usage error."""
    name = program_name("prepare_criteo.py")
    return run_program(name, partial(_prepare, name, arguments))


def _prepare(name: str, arguments: Sequence[str] | None) -> int:
    settings = parse_preparation(arguments, name, __doc__)
    if settings.seed != PreparationSettings.seed and settings.randomize == "none" and not settings.sub_sample_rate:
        _log.warning("with --data-randomize=none, --numpy-rand-seed=%d has no effect", settings.seed)

    if settings.reference_files:
        return _prepare_reference_files(settings)

    from mlperf.data.prepare.column_facts import column_facts
    from mlperf.data.prepare.pipeline import prepare

    prepared = prepare(settings)
    if prepared.max_ind_range is None:
        _log.info("%s: prepared by another tool; used without preparing it again", prepared.train)
    print(f"{prepared.train}: {prepared.train_rows:,} rows")
    print(f"{prepared.test}: {prepared.test_rows:,} rows")
    print(f"{prepared.val}: {prepared.val_rows:,} rows")
    if prepared.bad_rows:
        print(f"{prepared.bad_rows:,} bad rows left out; the manifest counts them per file and reason")
    print("rows per table: " + dashed(prepared.table_rows))
    if prepared.data_set is not None:
        for line in column_facts(settings.processed_data_file):
            print(line)
    return 0


def _prepare_reference_files(settings: PreparationSettings) -> int:
    from mlperf.data.prepare.reference.preparation import prepare_reference_files

    made = prepare_reference_files(settings)
    last = len(made.rows_per_day) - 1
    print(
        f"{settings.processed_data_file}: day_0 to day_{last - 1}: {sum(made.rows_per_day[:-1]):,} rows, shuffled"
    )
    print(f"{settings.processed_data_file}: day_{last}: {made.rows_per_day[-1]:,} rows")
    if bad_rows := sum(sum(reasons.values()) for reasons in made.bad_rows.values()):
        print(f"{bad_rows:,} bad rows left out; the manifest counts them per file and reason")
    print("distinct ids per table: " + dashed(made.counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
