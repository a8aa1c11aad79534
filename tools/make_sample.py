"""Make a Criteo-format sample with a planted signal: day_0 ... day_23 and sample.json."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mlperf.cli.program import run_program
from mlperf.data.criteo.sample.sample import LEAST_ROWS, SampleSettings, make_sample
from mlperf.settings.kinds import at_least
from mlperf.settings.parser import Parser


def main() -> int:
    """Make the sample and say what can be reached on it."""
    parser = Parser("make_sample.py", __doc__)
    add = parser.add_argument
    add("--folder", type=Path, default=Path("input"), help="where day_0 ... day_23 go")
    add("--rows", type=at_least(LEAST_ROWS), default=240_000, help="rows of all days together, 230 bytes each")
    add("--seed", type=at_least(0), default=1, help="of everything in the sample")
    flags = parser.parse_args()
    sample = make_sample(SampleSettings(flags.folder, flags.rows, flags.seed))
    print(
        f"sample in {flags.folder}: {sample.rows:,} rows, seed {sample.seed}, {sample.click_rate:.1%} clicks; "
        f"on its test split the best reachable AUC is {sample.best_auc:.4f}, with the integers alone "
        f"{sample.dense_auc:.4f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_program("make_sample.py", main))
