"""Draw the curves of one or several runs: loss, and accuracy or AUC, with the target.

    python tools/plot_run.py results/*.log --output=run.png

Takes what the program prints, and compliance logs of this project or of anyone's MLPerf submission.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mlperf.benchmarks.dlrm import DEFAULT_EDITION
from mlperf.cli.program import run_program
from mlperf.plots.compute_graph import require_matplotlib
from mlperf.plots.curves import Curves, Point
from mlperf.settings.kinds import between
from mlperf.settings.parser import Parser
from mlperf.util.errors import RunError, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def main() -> int:
    """Read the logs and draw them."""
    parser = Parser("plot_run.py", __doc__)
    add = parser.add_argument
    add("logs", type=Path, nargs="+", help="console or compliance logs")
    add("--output", type=Path, default=Path("run.png"), help="the picture: .png, .svg or .pdf")
    add("--labels", help="names of the runs in the legend, separated by commas; default: the files' names")
    add("--metric", choices=("auto", "auc", "accuracy"), default="auto", help="auto: AUC where a log has it")
    add(
        "--x",
        choices=("auto", "iterations", "epochs"),
        default="auto",
        help="auto: iterations where all have them",
    )
    add("--target", type=between(0, 1), help=f"a line; default: {DEFAULT_EDITION.auc_target} with AUC; 0: none")
    add("--title", default="")
    flags = parser.parse_args()
    labels = flags.labels.split(",") if flags.labels else [log.stem for log in flags.logs]
    if len(labels) != len(flags.logs):
        raise UsageError(f"--labels={flags.labels}: {len(labels)} names for {len(flags.logs)} logs")
    require_matplotlib("plot_run.py")
    runs = dict(zip(_distinct(labels), (Curves.of_log(log) for log in flags.logs), strict=True))
    metric = flags.metric
    if metric == "auto":
        metric = "auc" if any(run.auc for run in runs.values()) else "accuracy"
    target = flags.target
    if target is None:
        target = DEFAULT_EDITION.auc_target if metric == "auc" else 0.0
    draw(runs, metric, _axis(runs, flags.x), target, flags.title, flags.output)
    print(f"{flags.output}: {len(runs)} run{'s' if len(runs) > 1 else ''}")
    return 0


def draw(runs: dict[str, Curves], metric: str, axis: str, target: float, title: str, output: Path) -> None:
    """Draw loss (if any log has it) and metric side by side. axis: "iterations" or "epochs"."""
    from matplotlib.figure import Figure

    has_loss = any(run.loss for run in runs.values())
    has_metric = any(_tested(run, metric) or _trained(run, metric) for run in runs.values())
    panels = has_loss + has_metric
    if not has_metric and not has_loss:
        raise RunError(f"--metric={metric}: none of the logs has it")
    figure = Figure(figsize=(5.6 * panels, 3.9), layout="constrained")
    axes: list[Axes] = list(figure.subplots(1, panels, squeeze=False)[0])
    for number, (label, run) in enumerate(runs.items()):
        color = f"C{number % 10}"
        if run.loss:
            axes[0].plot(*_values(_even(run.loss), axis), color=color, lw=1.2, label=label)
        if has_metric:
            _draw_metric(axes[-1], label, run, metric, axis, color)
    if has_loss:
        axes[0].set_ylabel("training loss")
    if has_metric:
        _finish_metric(axes[-1], metric, target)
    for panel in axes:
        panel.set_xlabel({"iterations": "iterations", "epochs": "epochs"}[axis])
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize=8)
    if title:
        figure.suptitle(title)
    try:
        figure.savefig(output, dpi=150)
    except (OSError, ValueError) as error:
        raise RunError(f"--output={output}: the picture cannot be written: {error}") from None


def _draw_metric(panel: Axes, label: str, run: Curves, metric: str, axis: str, color: str) -> None:
    if trained := _trained(run, metric):
        panel.plot(*_values(_even(trained), axis), color=color, lw=0.9, alpha=0.45, label=f"{label}, training")
    if tested := _tested(run, metric):
        marker = "o" if len(tested) <= 60 else ""
        panel.plot(*_values(tested, axis), color=color, lw=1.4, marker=marker, ms=3, label=f"{label}, test")


def _finish_metric(panel: Axes, metric: str, target: float) -> None:
    from matplotlib.ticker import PercentFormatter

    panel.set_ylabel({"auc": "AUC on the test split", "accuracy": "accuracy"}[metric])
    if metric == "accuracy":
        panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    if target > 0:
        text = f"target {target:g}" if metric == "auc" else f"target {100 * target:g} %"
        panel.axhline(target, color="0.3", lw=1, ls="--", label=text)


def _even(points: list[Point]) -> list[Point]:
    """Leave out points that follow another closely: at the end of an epoch a line is a mean over few samples."""
    gaps = [after.epochs - before.epochs for before, after in pairwise(points)]
    usual = median(gaps) if gaps else 0.0
    close = [gap < usual / 2 for gap in gaps]
    return [point for point, skipped in zip(points, [False, *close], strict=True) if not skipped]


def _tested(run: Curves, metric: str) -> list[Point]:
    return run.auc if metric == "auc" else run.accuracy


def _trained(run: Curves, metric: str) -> list[Point]:
    return run.train_accuracy if metric == "accuracy" and any(p.value for p in run.train_accuracy) else []


def _values(points: list[Point], axis: str) -> tuple[list[float], list[float]]:
    at = [point.epochs if axis == "epochs" or point.iterations is None else point.iterations for point in points]
    return at, [point.value for point in points]


def _axis(runs: dict[str, Curves], asked: str) -> str:
    points = [point for run in runs.values() for point in (*run.loss, *run.accuracy, *run.auc)]
    counted = all(point.iterations is not None for point in points)
    if asked == "iterations" and not counted:
        raise UsageError("--x=iterations: a compliance log says epochs only; allowed is --x=epochs")
    return asked if asked != "auto" else "iterations" if counted else "epochs"


def _distinct(labels: Sequence[str]) -> list[str]:
    """Number the labels that occur more than once: the same file name in several folders."""
    return [
        label if labels.count(label) == 1 else f"{label} ({labels[: number + 1].count(label)})"
        for number, label in enumerate(labels)
    ]


if __name__ == "__main__":
    sys.exit(run_program("plot_run.py", main))
