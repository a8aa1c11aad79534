"""Check a log, the logs of a result, or a submission package with the official checkers of mlperf-logging."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mlperf.benchmarks.dlrm import EDITIONS, Edition
from mlperf.cli.program import run_program
from mlperf.settings.parser import Parser
from mlperf.submission.check import Report, check_log, check_result, render
from mlperf.submission.points import check_points
from mlperf.submission.results import find_results
from mlperf.util.errors import RunError, UsageError


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
    if flags.rcps is not None:
        check_points(flags.rcps)
    passed = True
    try:
        for check in _checks(flags, editions or [None]):
            passed = _say(check) and passed
    except OSError as error:
        raise RunError(f"{error.filename or flags.path}: {error.strerror or error}") from None
    return 0 if passed else 1


def _checks(flags: argparse.Namespace, editions: list[Edition | None]) -> Iterator[Callable[[], Report]]:
    """Return what is to be checked, a call each."""
    if flags.path.is_file():
        for edition in editions:
            yield partial(check_log, flags.path, edition)
        return
    for result in find_results(flags.path):
        for edition in editions:
            yield partial(check_result, result, edition, points=flags.rcps, bypass=flags.rcp_bypass)


def _say(check: Callable[[], Report]) -> bool:
    """Print a report and return whether it passed; one that cannot be read does not end the checks of others."""
    try:
        report = check()
    except RunError as error:
        print(f"check_submission.py: error: {error}", file=sys.stderr, flush=True)
        return False
    print(render(report), flush=True)
    return report.passed


if __name__ == "__main__":
    sys.exit(run_program("check_submission.py", main))
