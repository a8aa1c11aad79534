"""Check a log, the logs of a result, or a submission package with the official checkers of mlperf-logging."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from mlperf.benchmarks import BENCHMARKS, EDITIONS, Benchmark, Edition, editions_of
from mlperf.compliance.log_reader import read_log
from mlperf.settings.argument_parser import Parser
from mlperf.settings.kinds import reason
from mlperf.settings.reports import ALL_EDITIONS, EDITION_OR_ALL
from mlperf.submission.candidates import EditionCandidates
from mlperf.submission.check import check_log, check_result
from mlperf.submission.rcp import check_rcp_file
from mlperf.submission.report import Report, render
from mlperf.submission.results import find_results, read_benchmark
from mlperf.util.errors import RunError, UsageError
from mlperf.util.program import program_name, run_program

_EDITION = re.compile(r"\d+\.\d+\.\d+|all")  # known or not: an unknown one is named in the error


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
        type=_editions,
        metavar=EDITION_OR_ALL.metavar,
        action="extend",
        default=[],
        help=f"editions to check for, separated by commas or spaces: {', '.join(EDITIONS)} or {ALL_EDITIONS}; may "
        "be repeated; each judges the results of the benchmark that it includes (default: recognized by the logs "
        "and their package)",
    )
    parser.add_argument(
        "--rcps", type=Path, help="JSON file of reference convergence points that replaces those of the edition"
    )
    parser.add_argument(
        "--rcp-bypass",
        action="store_true",
        help="ignore a failed convergence check, like --rcp_bypass of the package checker",
    )
    parser.add_argument(
        "--seed-bypass",
        type=reason,
        metavar=reason.metavar,
        help="ignore a failed seed check, like --seed-checker-bypass of the package checker, for this reason",
    )
    return parser


def _editions(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        EDITION_OR_ALL(name)
    return names


def _joined(arguments: Sequence[str]) -> list[str]:
    """Join the editions that follow `--edition` with commas: the path may follow them."""
    joined: list[str] = []
    for argument in arguments:
        follows = len(joined) > 1 and joined[-2] == "--edition" and _EDITION.fullmatch(argument) is not None
        if follows:
            joined[-1] += f",{argument}"
        else:
            joined.append(argument)
    return joined


def _check(name: str, arguments: Sequence[str] | None) -> int:
    args = make_parser(name).parse_args(_joined(sys.argv[1:] if arguments is None else arguments))
    requested = dict.fromkeys(args.edition)
    if args.rcps is not None and not args.rcps.is_file():
        raise UsageError(f"--rcps={args.rcps}: {'is a folder' if args.rcps.is_dir() else 'no such file'}")
    editions = [EDITIONS[name] for name in (EDITIONS if ALL_EDITIONS in requested else requested)]
    points = set[str]() if args.rcps is None else check_rcp_file(args.rcps)
    given = {"--rcps": args.rcps, "--rcp-bypass": args.rcp_bypass or None, "--seed-bypass": args.seed_bypass}
    for flag, value in given.items():
        if value is not None and args.path.is_file():
            raise UsageError(f"{flag}: {args.path} is one log; it is for the logs of a result")
    passed, errors = True, set[str]()
    with _errors_as_one_line(args.path):
        is_log = args.path.is_file()
        checks = _checks_of_log(args.path, editions) if is_log else _checks(args, editions, points)
    for check in checks:
        try:
            with _errors_as_one_line(args.path):
                report = check()
        except RunError as error:  # an unreadable log does not prevent the other checks
            passed = False
            if str(error) not in errors:  # once, not for each edition
                errors.add(str(error))
                print(f"{name}: error: {error}", file=sys.stderr, flush=True)
            continue
        print(render(report), flush=True)
        passed = passed and report.passed
    return 0 if passed else 1


def _checks_of_log(path: Path, editions: list[Edition]) -> list[Callable[[], Report]]:
    """Return one call per check of a log. editions: those asked for; if empty, it is recognized."""
    benchmark = BENCHMARKS.get(str(read_log(path).value("submission_benchmark")))
    judges = _judges(benchmark, editions)
    if not judges:
        raise UsageError(_not_included(path, [benchmark], editions))
    return [partial(check_log, path, edition) for edition in judges]


def _checks(args: argparse.Namespace, editions: list[Edition], points: set[str]) -> list[Callable[[], Report]]:
    """Return one call per check of a result.

    editions: those asked for; if empty, they are recognized. points: the benchmarks of the points in --rcps.
    """
    found = [(result, read_benchmark(result)) for result in find_results(args.path)]
    judged = [(result, benchmark) for result, benchmark in found if _judges(benchmark, editions)]
    if not judged:
        raise UsageError(_not_included(args.path, [benchmark for _, benchmark in found], editions))
    if len(judged) < len(found):
        others = ", ".join(str(result.folder) for result, benchmark in found if not _judges(benchmark, editions))
        note = f"left out, of a benchmark that --edition={_names(editions)} does not include: {others}"
        first, benchmark = judged[0]
        judged[0] = replace(first, notes=(*first.notes, note)), benchmark
    for result, benchmark in judged:
        if points and benchmark is not None and points != {benchmark.name}:
            names = " and ".join(sorted(points))
            raise UsageError(f"--rcps={args.rcps}: points of {names}; {result.folder} is of {benchmark.name}")
    check = partial(
        check_result,
        rcp_file=args.rcps,
        bypass=args.rcp_bypass,
        seed_bypass=args.seed_bypass,
        candidates=EditionCandidates(),
    )
    return [
        partial(check, result, edition) for result, benchmark in judged for edition in _judges(benchmark, editions)
    ]


def _judges(benchmark: Benchmark | None, editions: list[Edition]) -> list[Edition | None]:
    """Return the editions that judge a result; [None] if its edition is to be recognized, [] if it is left out.

    benchmark: that of the result; None if it is unknown, and any edition judges it.
    """
    return [edition for edition in editions if benchmark in (edition.benchmark, None)] if editions else [None]


def _not_included(path: Path, benchmarks: Sequence[Benchmark | None], editions: list[Edition]) -> str:
    known = dict.fromkeys(benchmark for benchmark in benchmarks if benchmark is not None)
    names = " and ".join(benchmark.name for benchmark in known)
    allowed = [edition for benchmark in known for edition in editions_of(benchmark)]
    return f"--edition={_names(editions)}: {path} is of {names}; allowed are {_names(allowed)}"


def _names(editions: Sequence[Edition]) -> str:
    return ", ".join(edition.name for edition in editions)


@contextmanager
def _errors_as_one_line(path: Path) -> Iterator[None]:
    """Turn an OSError about a file into a RunError that names it; `path` is what is being checked."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{error.filename or path}: {error.strerror or error}") from None


if __name__ == "__main__":
    sys.exit(main())
