"""Check a compliance log with the official checker."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mlperf.compliance.check import check_log
from mlperf.compliance.rulesets import DEFAULT_EDITION, EDITIONS
from mlperf.flags import Parser
from mlperf.program import run_program


def main() -> int:
    """Print a verdict per edition; 0 if all pass, 1 otherwise."""
    parser = Parser("check_log.py", __doc__)
    parser.add_argument("log", type=Path, help="the log")
    parser.add_argument(
        "--edition",
        choices=[*EDITIONS, "all"],
        action="append",
        default=argparse.SUPPRESS,
        help=f"one or more (default: {DEFAULT_EDITION.name})",
    )
    flags = parser.parse_args()
    asked = getattr(flags, "edition", [DEFAULT_EDITION.name])
    results = check_log(flags.log, list(EDITIONS) if "all" in asked else asked)
    for result in results:
        print(f"official checker, edition {result.edition}: {'SUCCESS' if result.passed else 'FAILED'}")
        for finding in result.findings:
            print(f"    {finding}")
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(run_program("check_log.py", main))
