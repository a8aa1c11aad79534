"""Prepare Criteo data: turn raw text into the binary files that training reads."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from mlperf.cli.flags import Parser, file_name, integer, real
from mlperf.cli.program import program_name, run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 0 done, 1 failed, 2 wrong call."""
    name = program_name("prepare_criteo.py")
    return run_program(name, partial(_prepare, name, arguments))


def _parse(name: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(name, __doc__)
    add = parser.add_argument
    add("--data-set", choices=("kaggle", "terabyte"), default="kaggle", help="which Criteo data set")
    add("--raw-data-file", type=file_name, required=True, help="train.txt, or the prefix of day_0 ... day_23")
    prepared = "X, for X_train.bin, X_test.bin, X_val.bin, X.json"
    add("--processed-data-file", type=file_name, required=True, help=prepared)
    add("--max-ind-range", type=integer(1, -1), default=-1, help="ids modulo this, -1: no limit")
    add("--data-randomize", choices=("total", "day", "none"), default="total", help="shuffle of training rows")
    add("--data-sub-sample-rate", type=real(0, 1, open_end=True), default=0.0, help="share of label 0 dropped")
    add("--numpy-rand-seed", type=integer(0), default=123, help="the seed of the shuffle and of the dropped rows")
    add("--mlperf-bin-loader", action="store_true", help="Kaggle: leave no X.npz beside the binary files")
    add("--bad-rows", choices=("stop", "skip"), default="stop", help="stop at the first, or skip and count them")
    add("--max-bad-rows", type=real(0, 1), help="skip: the share of rows that may be bad (0.001)")
    add("--force", action="store_true", help="begin even if the disk looks too small")
    args = parser.parse_args(arguments)
    if args.max_bad_rows is not None and args.bad_rows != "skip":
        parser.error(f"--max-bad-rows={args.max_bad_rows:g}: needs --bad-rows=skip")
    return args


def _prepare(name: str, arguments: Sequence[str] | None) -> int:
    args = _parse(name, arguments)

    from mlperf.data.criteo.prepare.pipeline import prepare
    from mlperf.data.criteo.prepare.plan import PreparationSettings

    made = prepare(
        PreparationSettings(
            data_set=args.data_set,
            raw_data_file=args.raw_data_file,
            processed_data_file=args.processed_data_file,
            max_ind_range=args.max_ind_range,
            randomize=args.data_randomize,
            sub_sample_rate=args.data_sub_sample_rate,
            seed=args.numpy_rand_seed,
            write_npz=args.data_set == "kaggle" and not args.mlperf_bin_loader,
            bad_rows=args.bad_rows,
            max_bad_rows=0.001 if args.max_bad_rows is None else args.max_bad_rows,
            force=args.force,
        )
    )
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
