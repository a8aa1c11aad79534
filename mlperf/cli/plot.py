"""Plot the curves of one or several runs: loss, and accuracy or AUC, with the target.

    %(prog)s results/*.log --output=run.png

Reads console output of the trainer, and compliance logs of this project or of any MLPerf submission.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlperf.benchmarks import DEFAULT_EDITION
from mlperf.cli.program import program_name, run_program
from mlperf.settings.argument_parser import Parser
from mlperf.settings.kinds import between
from mlperf.util.errors import UsageError
from mlperf.util.one_process import require_one_process

if TYPE_CHECKING:
    from mlperf.plots.curves import Curves


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 0 success, 1 failure, 2 usage error."""
    name = program_name("plot_run.py")
    return run_program(name, partial(_plot, name, arguments))


def make_parser(name: str) -> Parser:
    """Return the parser of this program."""
    parser = Parser(name, __doc__)
    add = parser.add_argument
    add("logs", type=Path, nargs="+", help="console or compliance logs")
    add("--output", type=Path, default=Path("run.png"), help="output file: .png, .svg or .pdf")
    add("--labels", help="labels of the runs, separated by commas (default: the names of the logs)")
    add("--metric", choices=("auto", "auc", "accuracy"), default="auto", help="auto: AUC if a log contains it")
    add(
        "--x",
        choices=("auto", "iterations", "epochs"),
        default="auto",
        help="auto: iterations if all logs contain them",
    )
    add(
        "--target",
        type=between(0, 1),
        help=f"draw a horizontal line at this value (default: {DEFAULT_EDITION.auc_target} for AUC; 0: no line)",
    )
    add("--title", default="", help="title of the figure")
    return parser


def _plot(name: str, arguments: Sequence[str] | None) -> int:
    args = make_parser(name).parse_args(arguments)
    require_one_process()
    labels = args.labels.split(",") if args.labels else [log.stem for log in args.logs]
    if len(labels) != len(args.logs):
        raise UsageError(f"--labels={args.labels}: {len(labels)} names for {len(args.logs)} logs")

    from mlperf.plots.curves import Curves
    from mlperf.plots.packages import require_packages
    from mlperf.plots.run_figure import draw_runs

    require_packages("--output", "matplotlib")
    runs = dict(zip(_distinct(labels), (Curves.of_log(log) for log in args.logs), strict=True))
    metric = args.metric
    if metric == "auto":
        metric = "auc" if any(run.auc for run in runs.values()) else "accuracy"
    target = args.target
    if target is None:
        target = DEFAULT_EDITION.auc_target if metric == "auc" else 0.0
    draw_runs(runs, metric, _axis(runs, args.x), target, args.title, args.output)
    print(f"{args.output}: {len(runs)} run{'s' if len(runs) > 1 else ''}")
    return 0


def _axis(runs: dict[str, Curves], requested: str) -> str:
    points = [point for run in runs.values() for point in (*run.loss, *run.accuracy, *run.auc)]
    counted = all(point.iterations is not None for point in points)
    if requested == "iterations" and not counted:
        raise UsageError("--x=iterations: compliance logs contain only epochs; use --x=epochs")
    return requested if requested != "auto" else "iterations" if counted else "epochs"


def _distinct(labels: Sequence[str]) -> list[str]:
    """Number labels that occur more than once, such as equal file names in several folders."""
    return [
        label if labels.count(label) == 1 else f"{label} ({labels[: number + 1].count(label)})"
        for number, label in enumerate(labels)
    ]


if __name__ == "__main__":
    sys.exit(main())
