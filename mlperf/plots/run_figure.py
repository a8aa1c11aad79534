"""Figure of one or several runs: loss, and accuracy or AUC, with the target."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING

from mlperf.plots.curves import Curves, Point
from mlperf.util.errors import RunError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH = 12.0  # inches, the full width of a page


def draw_runs(runs: dict[str, Curves], metric: str, axis: str, target: float, title: str, output: Path) -> None:
    """Draw the training loss, if a log has it, and the metric side by side into `output`.

    runs: curves by label. metric: "auc" or "accuracy". axis: "iterations" or "epochs". target: drawn as a
    horizontal line, unless it is 0. RunError if no log has either curve, or the file cannot be written.
    """
    from matplotlib.figure import Figure

    has_loss = any(run.loss for run in runs.values())
    has_metric = any(_tested(run, metric) or _trained(run, metric) for run in runs.values())
    panels = has_loss + has_metric
    if not has_metric and not has_loss:
        raise RunError(f"--metric={metric}: none of the logs contains it")
    figure = Figure(figsize=(_WIDTH, 4.6), layout="constrained")
    axes: list[Axes] = list(figure.subplots(1, panels, squeeze=False)[0])
    for number, (label, run) in enumerate(runs.items()):
        color = f"C{number % 10}"
        if run.loss:
            _draw_loss(axes[0], label, run, axis, color)
        if has_metric:
            _draw_metric(axes[-1], label, run, metric, axis, color)
    if has_loss:
        axes[0].set_ylabel("training loss")
        _leave_out_start(axes[0], [_values(_even(run.loss), axis) for run in runs.values()])
    if has_metric:
        tested = [_values(_tested(run, metric), axis) for run in runs.values()]
        trained = [_values(_even(_trained(run, metric)), axis) for run in runs.values()]
        _leave_out_start(axes[-1], [*tested, *trained], target)
        _finish_metric(axes[-1], metric, target)
    for panel in axes:
        panel.set_xlabel(axis)
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False)
    if title:
        figure.suptitle(title)
    try:
        figure.savefig(output, dpi=150)
    except (OSError, ValueError) as error:
        raise RunError(f"--output={output}: cannot write the figure: {error}") from None


def _draw_loss(panel: Axes, label: str, run: Curves, axis: str, color: str) -> None:
    """Draw the printed losses; if there are many, faintly and with their running mean."""
    x, y = _values(_even(run.loss), axis)
    width = len(y) // 10
    if width < 2:
        panel.plot(x, y, color=color, lw=1.6, label=label)
        return
    panel.plot(x, y, color=color, lw=0.8, alpha=0.3)
    means = [fmean(y[max(0, at - width + 1) : at + 1]) for at in range(len(y))]
    panel.plot(x, means, color=color, lw=2, label=f"{label}, mean of {width} lines")


def _leave_out_start(panel: Axes, curves: list[tuple[list[float], list[float]]], target: float = 0.0) -> None:
    """Set the y limits from the values after the first 10 %, so that the steep start does not dominate."""
    points = [point for curve in curves for point in zip(*curve, strict=True)]
    start = max((x for x, _ in points), default=0.0) / 10
    later = [y for x, y in points if x > start]
    if later and target > 0:
        later.append(target)
    if later and max(later) > min(later):
        margin = 0.06 * (max(later) - min(later))
        panel.set_ylim(min(later) - margin, max(later) + margin)


def _draw_metric(panel: Axes, label: str, run: Curves, metric: str, axis: str, color: str) -> None:
    if trained := _trained(run, metric):
        panel.plot(*_values(_even(trained), axis), color=color, lw=1, alpha=0.45, label=f"{label}, training")
    if tested := _tested(run, metric):
        marker = "o" if len(tested) <= 60 else ""
        name = f"{label}, test" if trained else label
        panel.plot(*_values(tested, axis), color=color, lw=1.8, marker=marker, ms=4, label=name)


def _finish_metric(panel: Axes, metric: str, target: float) -> None:
    from matplotlib.ticker import PercentFormatter

    panel.set_ylabel({"auc": "AUC on the test split", "accuracy": "accuracy"}[metric])
    if metric == "accuracy":
        panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    if target > 0:
        text = f"target {target:g}" if metric == "auc" else f"target {100 * target:g} %"
        panel.axhline(target, color="0.3", lw=1, ls="--", label=text)


def _even(points: list[Point]) -> list[Point]:
    """Drop points close to their predecessor: the last line of an epoch averages over few samples."""
    if not points:
        return []
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
