"""Write the flag reference, mlperf/docs/flags.md, from the declarations: python -m mlperf.cli.flag_reference.

With --check, only report whether the file is out of date (status 1).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from mlperf.cli import check, convert_checkpoint, plot, report, sample, stack_distances, submit, verify, visualize
from mlperf.settings.argument_parser import Parser
from mlperf.settings.from_flags import make_preparation_parser, make_trainer_parser
from mlperf.util.errors import RunError
from mlperf.util.files import write_atomically
from mlperf.util.program import run_program

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "flags.md"

# Programs by their path in a checkout, with the function that creates the parser.
PROGRAMS: dict[str, Callable[[str], Parser]] = {
    "dlrm_s_pytorch.py": make_trainer_parser,
    "tools/prepare_criteo.py": make_preparation_parser,
    "tools/verify_data.py": verify.make_parser,
    "tools/make_sample.py": sample.make_parser,
    "tools/make_submission.py": submit.make_parser,
    "tools/check_submission.py": check.make_parser,
    "tools/convert_checkpoint.py": convert_checkpoint.make_parser,
    "tools/plot_run.py": plot.make_parser,
    "tools/report.py": report.make_parser,
    "tools/visualize.py": visualize.make_parser,
    "tools/stack_distances.py": stack_distances.make_parser,
}
_HEADING = """# Flags

`python -m mlperf.cli.flag_reference` writes this page from the declarations in `mlperf/settings/` and
`mlperf/cli/`.

Lists of numbers are separated by dashes. Numbers are decimal, such as 1000, +8, 0.5, .5 or 1e-3; 1_000, 0x10, nan
and inf are rejected. Real numbers other than 0 are at least 1e-37 in size: float32 can represent them. BOOL is
true or false, 1 or 0, yes or no; the flag alone means true. A value out of range, or two flags that contradict
each other, ends the program with status 2 and one line that names the flag, the value and what is allowed. Every
program has `--help` and `--version`.

`--data-generation=internal` refers to a data loader that the original authors never published; it is rejected.
"""
_DEFAULT = re.compile(r"(?P<meaning>.*?) ?\((?:default: (?P<default>.*)|(?P<required>required))\)", re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the reference; return 0, 1 if it is out of date, or 2 on a usage error."""
    name = "python -m mlperf.cli.flag_reference"
    return run_program(name, partial(_write_or_check, name, arguments))


def reference() -> str:
    """Return the text of the reference."""
    sections = (f"\n## {name}\n{''.join(_tables(make_parser(name)))}" for name, make_parser in PROGRAMS.items())
    return _HEADING + "".join(sections)


def _tables(parser: Parser) -> Iterator[str]:
    for group, rows in parser.rows():
        if rows:
            heading = f"\n### {group[0].upper()}{group[1:]}\n" if group else ""
            yield "\n".join(
                [heading, "| flag | default | numbers | meaning |", "|---|---|---|---|", *map(_row, rows), ""]
            )


def _row(row: tuple[str, str, str]) -> str:
    form, help, numbers = row
    found = _DEFAULT.fullmatch(help)
    is_switch = form.startswith("--") and " " not in form
    default = "off" if is_switch else "" if found is None else found["default"] or found["required"]
    meaning = help if found is None else found["meaning"]
    return f"| `{form}` | {default} | {numbers} | {meaning.replace('<', '&lt;')} |"


def _write_or_check(name: str, arguments: Sequence[str] | None) -> int:
    parser = Parser(name, __doc__)
    parser.add_argument("--check", action="store_true", help="only check; status 1 if the file is out of date")
    text = reference()
    if not parser.parse_args(arguments).check:
        REFERENCE.parent.mkdir(exist_ok=True)
        write_atomically(REFERENCE, text)
    elif not REFERENCE.is_file() or REFERENCE.read_text() != text:
        raise RunError(f"{REFERENCE} is out of date; run {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
