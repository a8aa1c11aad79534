"""Generate a synthetic sample in the Criteo format, with a planted signal: day_0 ... day_23 and sample.json."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mlperf.benchmarks import MIN_SAMPLE_ROWS, SAMPLE
from mlperf.distributed.launchers import require_one_process
from mlperf.settings.argument_parser import Parser
from mlperf.settings.dataset import MAX_SEED
from mlperf.settings.kinds import whole_between
from mlperf.util.output_files import require_writable_folder
from mlperf.util.program import program_name, run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 0 success, 1 failure, 2 usage error."""
    name = program_name("make_sample.py")
    return run_program(name, partial(_make, name, arguments))


def make_parser(name: str) -> Parser:
    """Return the parser of this program."""
    parser = Parser(name, __doc__)
    add = parser.add_argument
    add("--folder", type=Path, default=Path("input"), help="output folder for day_0 ... day_23")
    add(
        "--rows",
        type=whole_between(MIN_SAMPLE_ROWS, 10**10),
        default=SAMPLE.rows,
        help=f"rows of all days together, at least {MIN_SAMPLE_ROWS}; about 230 bytes each",
    )
    add("--seed", type=whole_between(0, MAX_SEED), default=SAMPLE.seed, help="random seed of the sample")
    return parser


def _make(name: str, arguments: Sequence[str] | None) -> int:
    args = make_parser(name).parse_args(arguments)
    require_one_process()

    from mlperf.data.criteo.sample.generate import SampleSettings, make_sample

    require_writable_folder("--folder", args.folder)
    sample = make_sample(SampleSettings(args.folder, args.rows, args.seed))
    print(
        f"sample in {args.folder}: {sample.rows:,} rows, seed {sample.seed}, {sample.click_rate:.1%} clicks; "
        f"on its test split the best reachable AUC is {sample.best_auc:.4f}, with the integers alone "
        f"{sample.dense_auc:.4f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
