"""Plot the curves of one or several runs: loss, and accuracy or AUC, with the target.

    %(prog)s results --output=run.png

Reads console output of the trainer, and compliance logs of this project or of any MLPerf submission.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlperf.benchmarks import Benchmark
from mlperf.cli.run_files import output_file, output_path
from mlperf.distributed.launchers import require_one_process
from mlperf.settings.argument_parser import Parser
from mlperf.settings.kinds import between
from mlperf.util.errors import UsageError
from mlperf.util.plural import counted
from mlperf.util.program import program_name, run_program

if TYPE_CHECKING:
    from mlperf.plots.read_runs import Run

_OUTPUT = Path("run.png")

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 0 success, 1 failure, 2 usage error."""
    name = program_name("plot_run.py")
    return run_program(name, partial(_plot, name, arguments))


def make_parser(name: str) -> Parser:
    """Return the parser of this program."""
    parser = Parser(name, __doc__)
    add = parser.add_argument
    add(
        "logs",
        type=Path,
        nargs="+",
        help="console or compliance logs, or folders of them, such as results/ or a submission package",
    )
    add("--output", type=output_path, default=_OUTPUT, help="output file: .png, .svg or .pdf")
    add(
        "--labels",
        help="labels of the arguments or of the runs, separated by commas; runs with the same label have the same "
        "colour (default: the names of the logs or, of several systems, the names in the logs)",
    )
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
        help="draw a horizontal line at this value (default: for AUC, the target of the benchmark; 0: no line)",
    )
    add("--title", default="", help="title of the figure")
    return parser


def _plot(name: str, arguments: Sequence[str] | None) -> int:
    args = make_parser(name).parse_args(arguments)
    require_one_process()

    from mlperf.plots.packages import require_packages
    from mlperf.plots.read_runs import read_runs
    from mlperf.plots.run_figure import draw_runs, has_curve
    from mlperf.plots.run_labels import labels_of

    require_packages("plotting", "matplotlib")
    output = output_file(args.output, args.logs, _OUTPUT)
    runs, warnings = read_runs(args.logs)
    labels = labels_of(runs, args.labels, len(args.logs))
    metric = args.metric
    if metric == "auto":
        metric = "auc" if any(run.curves.auc for run in runs) else "accuracy"
    drawn = []
    for run, label in zip(runs, labels, strict=True):
        if has_curve(run.curves, metric):
            drawn.append((label, run.curves))
        else:
            warnings.append(f"warning: left out: {run.path}: contains neither loss nor {metric}")
    targets = _targets(args.target, metric, [curves.benchmark for _, curves in drawn])
    draw_runs(drawn, metric, _axis(runs, args.x), targets, args.title, output)
    for warning in warnings:
        _log.warning("%s", warning)
    print(f"{output}: {counted(len(drawn), 'run')}")
    return 0


def _targets(requested: float | None, metric: str, benchmarks: Iterable[Benchmark]) -> dict[str, float]:
    """Return the targets to draw, by label. benchmarks: of the runs."""
    if requested is not None:
        text = f"target {requested:g}" if metric == "auc" else f"target {100 * requested:g} %"
        return {text: requested} if requested > 0 else {}
    if metric != "auc":
        return {}
    distinct = {benchmark.name: benchmark for benchmark in benchmarks}.values()
    return {
        f"target {each.auc_target:g}{f' ({each.name})' if len(distinct) > 1 else ''}": each.auc_target
        for each in distinct
    }


def _axis(runs: Sequence[Run], requested: str) -> str:
    for run in runs:
        if any(point.iterations is None for point in (*run.curves.loss, *run.curves.accuracy, *run.curves.auc)):
            if requested == "iterations":
                raise UsageError(f"--x=iterations: {run.path} contains only epochs; use --x=epochs")
            return "epochs"
    return "epochs" if requested == "epochs" else "iterations"


if __name__ == "__main__":
    sys.exit(main())
