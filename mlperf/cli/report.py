"""Write one HTML page about one or several runs: curves, target, time breakdown, settings, system, comparison.

    %(prog)s DIR --output=report.html

Reads folders of runs, metrics files, compliance logs and console output. The page is one file that loads nothing.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mlperf.cli.run_files import output_file, output_path
from mlperf.distributed.launchers import require_one_process
from mlperf.settings.argument_parser import Parser
from mlperf.util.errors import RunError
from mlperf.util.files import write_atomically
from mlperf.util.plural import counted
from mlperf.util.program import program_name, run_program

_OUTPUT = Path("report.html")

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 0 success, 1 failure, 2 usage error."""
    name = program_name("report.py")
    return run_program(name, partial(_report, name, arguments))


def make_parser(name: str) -> Parser:
    """Return the parser of this program."""
    parser = Parser(name, __doc__)
    add = parser.add_argument
    add(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="folder of --output-dir, metrics file, compliance log or console output, or a folder of them",
    )
    add("--output", type=output_path, default=_OUTPUT, help="output file: .html")
    add(
        "--labels",
        help="labels of the arguments or of the runs, separated by commas; runs with the same label have the same "
        "colour (default: the names of the files or folders or, of several systems, the names in the logs)",
    )
    add("--title", default="Training report", help="title of the page")
    return parser


def _report(name: str, arguments: Sequence[str] | None) -> int:
    args = make_parser(name).parse_args(arguments)
    require_one_process()
    from mlperf.page.document import page_of
    from mlperf.page.runs import read_reports

    output = output_file(args.output, args.runs, _OUTPUT, one_format=True)
    reports, warnings = read_reports(args.runs, args.labels)
    page = page_of(reports, args.title, warnings)
    try:
        write_atomically(output, page)
    except OSError as error:
        raise RunError(f"--output={output}: cannot be written: {error.strerror}") from None
    for warning in warnings:
        _log.warning("%s", warning)
    print(f"{output}: {counted(len(reports), 'run')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
