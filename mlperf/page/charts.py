"""The charts of the page: each quantity over iterations, epochs and minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlperf.page.chart import Series, legend, line_chart
from mlperf.page.elements import Markup, element
from mlperf.page.runs import Curve, RunReport, TimedPoint


@dataclass(frozen=True)
class _Quantity:
    """A chart. curve: name in `RunReport.curves`. note: what the heading does not say."""

    curve: str
    title: str
    note: str
    is_complete: bool = False


_QUANTITIES = (
    _Quantity("auc", "AUC on the test split", "area under the ROC curve; higher is better"),
    _Quantity("loss", "Training loss", "mean of the samples since the report before; lower is better"),
    _Quantity("accuracy", "Accuracy on the test split", "share of samples whose rounded probability is the label"),
    _Quantity("learning_rate", "Learning rate", "of the last optimizer step", is_complete=True),
    _Quantity("speed", "Training speed", "samples per second, without evaluations", is_complete=True),
)
AXES = ("epochs", "iterations", "time")
_UNITS = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))  # of the time; the first that is exceeded twice


def time_unit(reports: Sequence[RunReport]) -> tuple[str, float]:
    """Return the unit of the axis of the time, and its seconds."""
    seconds = [p.seconds for each in reports for c in each.curves.values() for p in c if p.seconds is not None]
    longest = max(seconds, default=0.0)
    return next((unit for unit in _UNITS if longest >= 2 * unit[1]), _UNITS[-1])


def axes_of(reports: Sequence[RunReport]) -> list[str]:
    """Return the axes on which every point of some curve of every run has a place, epochs first."""
    return [axis for axis in AXES if all(any(_has(c, axis) for c in each.curves.values()) for each in reports)]


def charts(reports: Sequence[RunReport], axes: Sequence[str]) -> Markup:
    """Return the charts of all quantities that a run has, each drawn once for every axis."""
    figures = [figure for quantity in _QUANTITIES if (figure := _figure(quantity, reports, axes)) is not None]
    return element(
        "div", _legend(reports) if len(reports) > 1 else None, element("div", *figures, class_="charts")
    )


def _legend(reports: Sequence[RunReport]) -> Markup:
    """Return the runs with the colours of their curves; those with the same colour once, with their number."""
    groups: dict[int, list[str]] = {}
    for report in reports:
        groups.setdefault(report.group, []).append(report.label)
    names = [
        (labels[0] if len(labels) == 1 else f"{labels[0].removesuffix(' (1)')}, {len(labels)} runs", group)
        for group, labels in groups.items()
    ]
    return legend(names)


def _figure(quantity: _Quantity, reports: Sequence[RunReport], axes: Sequence[str]) -> Markup | None:
    curves = [(report.group, report.label, report.curves.get(quantity.curve, [])) for report in reports]
    targets = {report.targets[quantity.curve] for report in reports if quantity.curve in report.targets}
    target = targets.pop() if len(targets) == 1 else None
    unit, unit_seconds = time_unit(reports)
    titles = {"epochs": "epochs", "iterations": "iterations", "time": f"{unit} since the start"}
    scales = {"epochs": 1.0, "iterations": 1.0, "time": unit_seconds}
    drawn = []
    for axis in axes:
        series = [
            Series(label, number, [((_place(point, axis) or 0.0) / scales[axis], point.value) for point in curve])
            for number, label, curve in curves
            if _has(curve, axis)
        ]
        if series:
            chart = line_chart(
                f"{quantity.curve}-{axis}",
                series,
                x_title=titles[axis],
                y_title=quantity.title,
                target=target,
                is_complete=quantity.is_complete,
            )
            drawn.append(element("div", chart, class_=f"over {axis}"))
        else:
            missing = element("p", f"The logs do not contain the {axis} of these values.", class_="none")
            drawn.append(element("div", missing, class_=f"over {axis}"))
    if not any(curve for _, _, curve in curves):
        return None
    caption = element("figcaption", element("h3", quantity.title), element("p", quantity.note, class_="note"))
    return element("figure", caption, *drawn)


def _has(curve: Curve, axis: str) -> bool:
    return bool(curve) and all(_place(point, axis) is not None for point in curve)


def _place(point: TimedPoint, axis: str) -> float | None:
    return {"epochs": point.epochs, "iterations": point.iterations, "time": point.seconds}[axis]
