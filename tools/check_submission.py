"""Check a log, the logs of a result, or a submission package with the official checkers of mlperf-logging."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mlperf.compliance.check import Report, check_log, check_result, render
from mlperf.compliance.results import find_results
from mlperf.compliance.rulesets import EDITIONS, Edition
from mlperf.errors import UsageError
from mlperf.flags import Parser
from mlperf.program import run_program


def main() -> int:
    """Print a report per result and edition; 0 if all pass, 1 otherwise."""
    parser = Parser("check_submission.py", __doc__)
    parser.add_argument(
        "path", type=Path, help="a log, a folder with result_0.txt ..., or one with results/ and systems/"
    )
    parser.add_argument(
        "--edition",
        choices=[*EDITIONS, "all"],
        action="append",
        default=argparse.SUPPRESS,
        help="one or more (default: recognized from the logs' keys)",
    )
    parser.add_argument(
        "--rcps", type=Path, help="JSON file of convergence points to compare with instead of the edition's"
    )
    parser.add_argument(
        "--rcp-bypass",
        action="store_true",
        help="let a failed convergence check pass, as the package checker's switch",
    )
    flags = parser.parse_args()
    asked = getattr(flags, "edition", [])
    if flags.rcps is not None and not flags.rcps.is_file():
        raise UsageError(f"--rcps={flags.rcps}: no such file")
    editions: list[Edition | None] = [EDITIONS[name] for name in (EDITIONS if "all" in asked else asked)]
    passed = True
    for report in _reports(flags, editions or [None]):
        print(render(report), flush=True)
        passed = passed and report.passed
    return 0 if passed else 1


def _reports(flags: argparse.Namespace, editions: list[Edition | None]) -> list[Report]:
    if flags.path.is_file():
        return [check_log(flags.path, edition) for edition in editions]
    return [
        check_result(result, edition, points=flags.rcps, bypass=flags.rcp_bypass)
        for result in find_results(flags.path)
        for edition in editions
    ]


if __name__ == "__main__":
    sys.exit(run_program("check_submission.py", main))
