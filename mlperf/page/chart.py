"""Line charts as SVG. Colours are CSS variables, so that one chart suits light, dark and paper."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from mlperf.page.elements import Markup, element
from mlperf.page.numbers import tick_labels, ticks

WIDTH, HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 18, 14, 46
_OVER = 4  # pixels beyond the right end of the axis, for the last marker
_MAX_POINTS = 120  # more are drawn as the mean and the range of neighbours
_MAX_RANGES = 3  # with more curves, the ranges would hide each other
_MAX_MARKED = 40  # a longer curve has no markers
_MARGIN = 0.08  # of the range of the values, above and below
_SHARE_OF_START = 0.1  # of the width, in which values do not determine the scale: curves are steep there
_OUTLIER = 3.0  # a curve whose median is this many times the usual one does not determine the scale
COLORS, DASHES = 8, ("", "7 4", "2 3", "9 3 2 3")

XY = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """A curve. number: gives colour and dashes. points: ascending in x."""

    label: str
    number: int
    points: Sequence[XY]


@dataclass(frozen=True)
class _Drawn:
    """A curve as it is drawn: at most _MAX_POINTS points, and the range that each of them stands for."""

    series: Series
    points: list[XY]
    lows: list[float]
    highs: list[float]

    @property
    def is_reduced(self) -> bool:
        return len(self.points) < len(self.series.points)


@dataclass(frozen=True)
class _Scale:
    """Positions in the picture of values from `low` to `high`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)


def line_chart(
    name: str,
    series: Sequence[Series],
    *,
    x_title: str,
    y_title: str,
    target: float | None = None,
    is_complete: bool,
) -> Markup:
    """Return a chart and the points of its curves, for the script that shows them under the pointer.

    name: unique on the page. target: a horizontal line with its value. is_complete: the vertical axis contains 0
    and all values; otherwise it leaves out the steep starts of the curves and what is far from the others.
    """
    drawn = [_reduced(each) for each in series if each.points]
    x = _Scale(0.0, max(each.points[-1][0] for each in drawn) or 1.0, _LEFT, WIDTH - _RIGHT)
    limits = _all_limits(drawn) if is_complete else _limits(drawn, x.high, target)
    y = _Scale(*limits, HEIGHT - _BOTTOM, _TOP)
    clip = f"{name}-clip"
    plot = {"x": _LEFT, "y": _TOP, "width": WIDTH - _LEFT - _RIGHT + _OVER, "height": HEIGHT - _TOP - _BOTTOM}
    has_range = len(drawn) <= _MAX_RANGES
    curves = element("g", *(_curve(each, x, y, has_range=has_range) for each in drawn), clip_path=f"url(#{clip})")
    return element(
        "svg",
        element("title", f"{y_title} against {x_title}, {', '.join(each.label for each in series)}"),
        element("clipPath", element("rect", **plot), id=clip),
        _axes(x, y, x_title),
        *([] if target is None else [_target_line(target, y)]),
        curves,
        element("g", class_="pointer"),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        class_="chart",
        data_points=_points_of(drawn, x, y, x_title),
    )


def _reduced(series: Series) -> _Drawn:
    points = series.points
    if len(points) <= _MAX_POINTS:
        values = [value for _, value in points]
        return _Drawn(series, list(points), values, values)
    width = -(-len(points) // _MAX_POINTS)
    groups = [points[first : first + width] for first in range(0, len(points), width)]
    return _Drawn(
        series,
        [(fmean(x for x, _ in group), fmean(y for _, y in group)) for group in groups],
        [min(y for _, y in group) for group in groups],
        [max(y for _, y in group) for group in groups],
    )


def _limits(drawn: Sequence[_Drawn], width: float, target: float | None) -> XY:
    """Return the values at the bottom and at the top, from the curves without their steep starts."""
    usual = median(median(value for _, value in each.points) for each in drawn)
    kept = [each for each in drawn if median(v for _, v in each.points) <= _OUTLIER * usual or usual <= 0] or drawn
    later = [value for each in kept for x, value in each.points if x > _SHARE_OF_START * width]
    values = later or [value for each in kept for _, value in each.points]
    values = values if target is None else [*values, target]
    low, high = min(values), max(values)
    if low == high:
        return low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
    margin = _MARGIN * (high - low)
    return low - margin if low < 0 or low - margin > 0 else 0.0, high + margin


def _all_limits(drawn: Sequence[_Drawn]) -> XY:
    values = [value for each in drawn for _, value in each.points]
    low, high = min(0.0, *values), max(0.0, *values)
    return low, high + _MARGIN * (high - low) or 1.0


def _axes(x: _Scale, y: _Scale, x_title: str) -> Markup:
    across, up = ticks(x.low, x.high, 6), ticks(y.low, y.high, 5)
    lines = [element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y(value), y2=y(value), class_="grid") for value in up]
    left = [
        element("text", label, x=_LEFT - 8, y=y(value), class_="tick left")
        for value, label in zip(up, tick_labels(up), strict=True)
    ]
    below = [
        element("text", label, x=x(value), y=HEIGHT - _BOTTOM + 18, class_="tick below")
        for value, label in zip(across, tick_labels(across), strict=True)
    ]
    bottom = HEIGHT - _BOTTOM
    axis = element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=bottom, y2=bottom, class_="axis")
    title = element("text", x_title, x=(_LEFT + WIDTH - _RIGHT) / 2, y=HEIGHT - 6, class_="axis-title")
    return element("g", *lines, axis, *left, *below, title)


def _target_line(target: float, y: _Scale) -> Markup:
    at = y(target)
    line = element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=at, y2=at, class_="target")
    label = element("text", f"target {target:g}", x=_LEFT + 6, y=at - 5, class_="target-label")
    return element("g", line, label)


def _curve(drawn: _Drawn, x: _Scale, y: _Scale, *, has_range: bool) -> Markup:
    number = drawn.series.number
    at = [(x(across), y(value)) for across, value in drawn.points]
    parts: list[Markup] = []
    if drawn.is_reduced and has_range:
        above = [(x(a), y(high)) for (a, _), high in zip(drawn.points, drawn.highs, strict=True)]
        below = [(x(a), y(low)) for (a, _), low in zip(drawn.points, drawn.lows, strict=True)]
        parts.append(element("polygon", points=_pairs([*above, *reversed(below)]), class_="range"))
    dashes = DASHES[number // COLORS % len(DASHES)] or None
    parts.append(element("polyline", points=_pairs(at), class_="curve", stroke_dasharray=dashes))
    if len(at) <= _MAX_MARKED:
        parts += [element("circle", cx=cx, cy=cy, r=2.6, class_="mark") for cx, cy in at]
    return element("g", *parts, class_=f"run c{number % COLORS}", data_run=number)


def _pairs(points: Sequence[XY]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _points_of(drawn: Sequence[_Drawn], x: _Scale, y: _Scale, x_title: str) -> str:
    """Return the points as JSON: x and y in the picture, and both values as text."""
    unit = _spacing(drawn)
    return json.dumps(
        {
            "x": x_title,
            "runs": [
                {
                    "label": each.series.label,
                    "color": each.series.number % COLORS,
                    "at": [[x(a), y(v), f"{a:,.{unit}f}", f"{v:.6g}"] for a, v in each.points],
                }
                for each in drawn
            ],
        },
        separators=(",", ":"),
    )


def _spacing(drawn: Sequence[_Drawn]) -> int:
    """Return the decimals that tell neighbouring points of the x axis apart."""
    gaps = [
        after - before for each in drawn for (before, _), (after, _) in pairwise(each.points) if after > before
    ]
    smallest = min(gaps, default=1.0)
    return next((decimals for decimals in range(6) if smallest * 10**decimals >= 0.9), 6)


def legend(series: Sequence[tuple[str, int]]) -> Markup:
    """Return the names of the runs with the colours of their curves."""
    return element("ul", *(element("li", swatch(number), " ", label) for label, number in series), class_="legend")


def swatch(number: int) -> Markup:
    """Return a short line in the colour and dashes of a run."""
    dashes = DASHES[number // COLORS % len(DASHES)] or None
    line = element("line", x1=0, x2=22, y1=5, y2=5, class_="curve", stroke_dasharray=dashes)
    group = element("g", line, class_=f"c{number % COLORS}")
    return element("svg", group, viewBox="0 0 22 10", class_="swatch", aria_hidden="true")
