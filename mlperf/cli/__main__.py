"""List the programs of this package: python -m mlperf.cli."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from mlperf.settings.argument_parser import Parser
from mlperf.util.program import run_program

# (installed program, script in a checkout, purpose)
PROGRAMS = (
    ("dlrm-train", "dlrm_s_pytorch.py", "train or evaluate a model"),
    ("dlrm-prepare", "tools/prepare_criteo.py", "convert raw Criteo text to binary training files"),
    ("dlrm-verify", "tools/verify_data.py", "verify prepared data"),
    ("dlrm-sample", "tools/make_sample.py", "generate a synthetic sample in the Criteo format"),
    ("dlrm-convert", "tools/convert_checkpoint.py", "convert a checkpoint between a file and a folder"),
    ("dlrm-check", "tools/check_submission.py", "check logs and submission packages"),
    ("dlrm-submit", "tools/make_submission.py", "make a submission package (needs a checkout)"),
    ("dlrm-plot", "tools/plot_run.py", "plot loss and metric of runs"),
    ("dlrm-report", "tools/report.py", "write an HTML page about runs"),
    ("dlrm-visualize", "tools/visualize.py", "plot a trained model and its data"),
    (
        "dlrm-stack-distances",
        "tools/stack_distances.py",
        "compute stack distances or generate traces",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the programs and return 0; 2 on a usage error."""
    name = "python -m mlperf.cli"
    return run_program(name, partial(_list_programs, name, arguments))


def _list_programs(name: str, arguments: Sequence[str] | None) -> int:
    Parser(name, "List the programs of this package.").parse_args(arguments)
    heading = ("installed", "in a checkout", "purpose; --help lists the flags")
    for row in (heading, *PROGRAMS):
        print("{:22}{:27}{}".format(*row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
