"""Check a log, the logs of a result, or a submission package with the official checkers of mlperf-logging."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from mlperf.benchmarks import EDITIONS, Edition
from mlperf.cli.program import program_name, run_program
from mlperf.settings.argument_parser import Parser
from mlperf.submission.check import check_log, check_result
from mlperf.submission.rcp import check_rcp_file
from mlperf.submission.report import Report, render
from mlperf.submission.results import find_results
from mlperf.util.errors import RunError, UsageError


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a report per result and edition; return 0 if all pass, 1 if one fails, 2 on a usage error."""
    name = program_name("check_submission.py")
    return run_program(name, partial(_check, name, arguments))


def make_parser(name: str) -> Parser:
    """Return the parser of this program."""
    parser = Parser(name, __doc__)
    parser.add_argument(
        "path",
        type=Path,
        help="a log, a folder with result_0.txt ..., or a package",
    )
    parser.add_argument(
        "--edition",
        choices=[*EDITIONS, "all"],
        action="append",
        default=argparse.SUPPRESS,
        help="edition to check for; may be repeated (default: recognized by the keys in the logs)",
    )
    parser.add_argument(
        "--rcps", type=Path, help="JSON file of reference convergence points that replaces those of the edition"
    )
    parser.add_argument(
        "--rcp-bypass",
        action="store_true",
        help="ignore a failed convergence check, like --rcp_bypass of the package checker",
    )
    return parser


def _check(name: str, arguments: Sequence[str] | None) -> int:
    args = make_parser(name).parse_args(arguments)
    requested = getattr(args, "edition", [])
    if args.rcps is not None and not args.rcps.is_file():
        raise UsageError(f"--rcps={args.rcps}: no such file")
    editions: list[Edition | None] = [EDITIONS[name] for name in (EDITIONS if "all" in requested else requested)]
    if args.rcps is not None:
        check_rcp_file(args.rcps)
    passed = True
    try:
        for check in _checks(args, editions or [None]):
            passed = _report(check, name) and passed
    except OSError as error:
        raise RunError(f"{error.filename or args.path}: {error.strerror or error}") from None
    return 0 if passed else 1


def _checks(args: argparse.Namespace, editions: list[Edition | None]) -> Iterator[Callable[[], Report]]:
    """Yield one call per check."""
    if args.path.is_file():
        for edition in editions:
            yield partial(check_log, args.path, edition)
        return
    for result in find_results(args.path):
        for edition in editions:
            yield partial(check_result, result, edition, rcp_file=args.rcps, bypass=args.rcp_bypass)


def _report(check: Callable[[], Report], name: str) -> bool:
    """Print a report and return whether it passed. An unreadable log does not prevent the other checks."""
    try:
        report = check()
    except RunError as error:
        print(f"{name}: error: {error}", file=sys.stderr, flush=True)
        return False
    print(render(report), flush=True)
    return report.passed


if __name__ == "__main__":
    sys.exit(main())
