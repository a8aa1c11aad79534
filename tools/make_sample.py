"""Make a Criteo-format sample with a planted signal: day_0 ... day_23 and sample.json."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mlperf.data.criteo.sample import LEAST_ROWS, SampleSettings, make_sample
from mlperf.errors import RunError, UsageError
from mlperf.flags import Parser, integer


def main() -> int:
    """Make the sample and say what can be reached on it; 0 done, 1 failed, 2 wrong call, 130 interrupted."""
    parser = Parser(
        prog="make_sample.py",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--folder", type=Path, default=Path("input"), help="where day_0 ... day_23 go")
    add("--rows", type=integer(LEAST_ROWS), default=240_000, help="rows of all days together, 230 bytes each")
    add("--seed", type=integer(0), default=1, help="of everything in the sample")
    try:
        flags = parser.parse_args()
        sample = make_sample(SampleSettings(flags.folder, flags.rows, flags.seed))
    except (RunError, UsageError) as error:
        print(f"make_sample.py: error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("make_sample.py: interrupted", file=sys.stderr)
        return 130
    print(
        f"sample in {flags.folder}: {sample.rows:,} rows, seed {sample.seed}, {sample.click_rate:.1%} clicks; "
        f"on its test split the best reachable AUC is {sample.best_auc:.4f}, with the integers alone "
        f"{sample.dense_auc:.4f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
