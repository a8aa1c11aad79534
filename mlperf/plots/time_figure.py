"""Figure of a time breakdown: a bar for each part of each phase of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlperf.plots.packages import save_figure
from mlperf.util.errors import RunError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH = 9.0  # inches
_BAR, _MARGIN = 0.26, 1.0  # inches: height of a bar, and of heading and axis
_COLOURS = {"training": "#4878a8", "evaluation": "#6a9f58"}
_OTHER_COLOUR = "#a0a0a0"


def draw_time_breakdown(breakdown: Mapping[str, Any], output: Path) -> None:
    """Draw a breakdown, as `Listener.time_breakdown` takes it. RunError if the file cannot be written."""
    from matplotlib.figure import Figure

    bars = _bars(breakdown)
    figure = Figure(figsize=(_WIDTH, _MARGIN + _BAR * len(bars)), layout="constrained")
    axes: Axes = figure.subplots()
    positions = range(len(bars))
    axes.barh(positions, [percent for _, percent, _, _ in bars], color=[colour for *_, colour in bars])
    axes.set_yticks(positions, [name for name, *_ in bars], fontsize=8)
    axes.invert_yaxis()
    for position, (_, percent, note, _) in zip(positions, bars, strict=True):
        axes.annotate(
            note, (percent, position), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_xlabel("percent of the time of the run")
    axes.set_xlim(0, 1.25 * max(percent for _, percent, _, _ in bars))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{breakdown['seconds']:,.1f} s, engine {breakdown['engine'].partition(' ')[0]}", fontsize=10)
    try:
        save_figure(figure, output, dpi=150)
    except OSError as error:
        raise RunError(f"--time-breakdown: {output}: cannot write the figure: {error.strerror or error}") from None


def _bars(breakdown: Mapping[str, Any]) -> list[tuple[str, float, str, str]]:
    """Return the name of each bar, its percent, its note and its colour."""
    bars = []
    for phase in breakdown["phases"]:
        name, unit = phase["name"], phase.get("unit")
        colour = _COLOURS.get(name, _OTHER_COLOUR)
        if unit is None:
            bars.append((name, phase["percent"], f"{phase['percent']:.1f} %", colour))
            continue
        for part in phase["parts"]:
            note = f"{part['percent']:.1f} %, {part['ms']:.3g} ms per {unit}"
            bars.append((f"{name}: {part['name']}", part["percent"], note, colour))
    return bars
