"""Figure of one or several runs: loss, and accuracy or AUC, with the target."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING

from mlperf.plots.curves import Curves, Point
from mlperf.plots.legend import Style, add_legend, make_styles, plain
from mlperf.plots.packages import save_figure
from mlperf.util.errors import RunError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 12.0, 4.6  # inches; the width is that of a page
_TARGET_DASHES = ("--", ":")
_MAX_MARKED = 60  # a longer curve has no markers
# With more losses, the printed ones are drawn more faintly.
_MANY_LOSSES = 10
# A loss this many times the usual one does not determine the scale.
_OUTLIER = 3.0

_log = logging.getLogger(__name__)

_Drawn = tuple[list[float], list[float]]  # x and y of a curve


def has_curve(run: Curves, metric: str) -> bool:
    """Return whether the figure of this metric shows anything of a run."""
    return bool(run.loss or _tested(run, metric) or _trained(run, metric))


def draw_runs(
    runs: Sequence[tuple[str, Curves]],
    metric: str,
    axis: str,
    targets: Mapping[str, float],
    title: str,
    output: Path,
) -> None:
    """Draw the training loss, if a log has it, and the metric side by side into `output`.

    runs: label and curves of each run; runs with the same label have the same colour. metric: "auc" or
    "accuracy". axis: "iterations" or "epochs". targets: horizontal lines, by label. RunError if no log has either
    curve, or the file cannot be written.
    """
    from matplotlib.figure import Figure

    has_loss = any(run.loss for _, run in runs)
    has_metric = any(_tested(run, metric) or _trained(run, metric) for _, run in runs)
    if not has_metric and not has_loss:
        raise RunError(f"--metric={metric}: none of the logs contains it")
    styles = make_styles(list(dict.fromkeys(label for label, _ in runs)), len(runs))
    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    axes: list[Axes] = list(figure.subplots(1, has_loss + has_metric, squeeze=False)[0])
    styled = [(run, styles[label]) for label, run in runs]
    if has_loss:
        _draw_losses(axes[0], [(run, style) for run, style in styled if run.loss], axis)
    if has_metric:
        _draw_metrics(axes[-1], styled, metric, axis, targets)
    for panel in axes:
        panel.set_xlabel(axis)
        panel.set_xlim(left=0)
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    add_legend(figure, axes, runs, styles)
    if title:
        figure.suptitle(plain(title))
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            save_figure(figure, output, dpi=150)
    except OSError as error:
        raise RunError(f"--output={output}: cannot write the figure: {error.strerror or error}") from None
    except ValueError as error:
        raise RunError(f"--output={output}: cannot write the figure: {error}") from None
    if any("missing from" in str(warning.message) for warning in caught):  # of the font
        _log.warning("warning: the font lacks some characters of the labels, which are drawn as boxes")


def _draw_losses(panel: Axes, runs: list[tuple[Curves, Style]], axis: str) -> None:
    """Draw the printed losses; if there are many, faintly and with their running mean."""
    widths = set()
    drawn = []
    for run, style in runs:
        x, y = _values(_even(run.loss), axis)
        drawn.append((x, y))
        width = len(y) // 10
        widths.add(width)
        if width < 2:
            panel.plot(x, y, **style.line(1.6))
            continue
        panel.plot(x, y, **style.line(0.8, alpha=0.3 if len(runs) <= _MANY_LOSSES else 0.12))
        starts = (at - width // 2 for at in range(len(y)))
        means = [fmean(y[max(0, start) : start + width]) for start in starts]
        panel.plot(x, means, **style.line(2))
    means_of = f"mean of {max(widths)} lines" if len(widths) == 1 else "running mean"
    panel.set_ylabel("training loss" if max(widths) < 2 else f"training loss, {means_of}")
    _leave_out_start(panel, _without_outliers(drawn))


def _draw_metrics(
    panel: Axes, runs: list[tuple[Curves, Style]], metric: str, axis: str, targets: Mapping[str, float]
) -> None:
    from matplotlib.ticker import PercentFormatter

    drawn = []  # curves that determine the scale
    failed = [metric == "auc" and run.learned_nothing for run, _ in runs]
    for (run, style), has_failed in zip(runs, failed, strict=True):
        if trained := _even(_trained(run, metric)):
            drawn.append(_values(trained, axis))
            panel.plot(*drawn[-1], **style.line(1, alpha=0.45))
        if tested := _tested(run, metric):
            x, y = _values(tested, axis)
            marker = "o" if len(tested) <= _MAX_MARKED else ""
            panel.plot(x, y, **style.line(1.8, marker=marker, ms=4 * style.scale))
            if all(failed) or not has_failed:
                drawn.append((x, y))
    panel.set_ylabel({"auc": "AUC on the test split", "accuracy": "accuracy"}[metric])
    if metric == "accuracy":
        panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    for (text, target), dashes in zip(targets.items(), cycle(_TARGET_DASHES)):
        panel.axhline(target, color="0.3", lw=1, ls=dashes, label=text)
    both = any(_trained(run, metric) and _tested(run, metric) for run, _ in runs)
    if both:
        panel.plot([], [], color="0.3", lw=1.8, marker="o", ms=4, label="test")
    if any(_trained(run, metric) for run, _ in runs):
        panel.plot([], [], color="0.3", lw=1, alpha=0.45, label="training")
    _leave_out_start(panel, drawn, list(targets.values()))


def _leave_out_start(panel: Axes, curves: list[_Drawn], targets: Sequence[float] = ()) -> None:
    """Set the y limits from the values after the first 10 %, so that the steep start does not dominate."""
    points = [point for curve in curves for point in zip(*curve, strict=True)]
    start = max((x for x, _ in points), default=0.0) / 10
    later = [y for x, y in points if x > start]
    if later:
        later += targets
    if later and max(later) > min(later):
        margin = 0.06 * (max(later) - min(later))
        panel.set_ylim(min(later) - margin, max(later) + margin)


def _without_outliers(curves: list[_Drawn]) -> list[_Drawn]:
    """Drop the losses of runs that diverged: with them, the others could not be told apart."""
    usual = median([median(y) for _, y in curves if y] or [0.0])
    return [(x, y) for x, y in curves if y and median(y) <= _OUTLIER * usual] if usual > 0 else curves


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


def _values(points: list[Point], axis: str) -> _Drawn:
    at = [point.epochs if axis == "epochs" or point.iterations is None else point.iterations for point in points]
    return at, [point.value for point in points]
