"""Figure of a time breakdown: a bar for each part of each phase of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlperf.plots.packages import save_figure
from mlperf.reporting.time_table import EVALUATION, TRAINING, engine_name, measured_processes
from mlperf.util.errors import RunError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH = 9.0  # inches
_BAR, _MARGIN = 0.24, 1.0  # inches: height of a bar, and of heading and axis
_COLOURS = {TRAINING: "#4878a8", EVALUATION: "#6a9f58"}
_OTHER_COLOUR = "#a0a0a0"


@dataclass(frozen=True)
class _Bar:
    """width: percent of the run; 0 for a phase whose parts have bars. spread: to the least and most."""

    name: str
    width: float
    note: str
    colour: str
    is_phase: bool
    spread: tuple[float, float] = (0.0, 0.0)


def draw_time_breakdown(breakdown: Mapping[str, Any], output: Path) -> None:
    """Draw a breakdown, as `Listener.time_breakdown` takes it. RunError if the file cannot be written.

    Lines at the ends of the bars are from the least to the greatest time of a process.
    """
    from matplotlib.figure import Figure

    bars = _bars(breakdown)
    figure = Figure(figsize=(_WIDTH, _MARGIN + _BAR * len(bars)), layout="constrained")
    axes: Axes = figure.subplots()
    positions = range(len(bars))
    axes.barh(
        positions,
        [bar.width for bar in bars],
        xerr=list(zip(*(bar.spread for bar in bars), strict=True))
        if breakdown["measured_processes"] > 1
        else None,
        color=[bar.colour for bar in bars],
        ecolor="#404040",
    )
    axes.set_yticks(positions, [bar.name for bar in bars], fontsize=8)
    for label, bar in zip(axes.get_yticklabels(), bars, strict=True):
        label.set_fontweight("bold" if bar.is_phase else "normal")
    for position, bar in zip(positions, bars, strict=True):
        end = (bar.width + bar.spread[1], position)
        weight = "bold" if bar.is_phase else "normal"
        axes.annotate(
            bar.note, end, xytext=(4, 0), textcoords="offset points", va="center", fontsize=8, fontweight=weight
        )
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlim(0, 1.3 * max(bar.width + bar.spread[1] for bar in bars))
    axes.set_xlabel("percent of the time of the run")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(_title(breakdown), fontsize=10)
    try:
        save_figure(figure, output, dpi=150)
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"--time-breakdown: {output}: cannot write the figure: {reason}") from None


def _title(breakdown: Mapping[str, Any]) -> str:
    title = f"{breakdown['seconds']:,.1f} s, engine {engine_name(breakdown)}"
    return ", ".join(filter(None, (title, measured_processes(breakdown))))


def _bars(breakdown: Mapping[str, Any]) -> list[_Bar]:
    bars = []
    for phase in breakdown["phases"]:
        unit = phase.get("unit")
        colour = _COLOURS.get(phase["name"], _OTHER_COLOUR)
        whole = _bar(phase, unit, colour, is_phase=True)
        if unit is None:
            bars.append(whole)
        else:
            bars.append(replace(whole, width=0.0, spread=(0.0, 0.0)))
            bars += [_bar(part, unit, colour, is_phase=False) for part in phase["parts"]]
    return bars


def _bar(timed: Mapping[str, Any], unit: str | None, colour: str, *, is_phase: bool) -> _Bar:
    percent = timed["percent"]
    note = f"{percent:.1f} %" + ("" if unit is None else f", {timed['ms']:.3f} ms per {unit}")
    if "min_ms" not in timed or not timed["ms"]:
        return _Bar(timed["name"], percent, note, colour, is_phase)
    scale = percent / timed["ms"]
    spread = (scale * (timed["ms"] - timed["min_ms"]), scale * (timed["max_ms"] - timed["ms"]))
    return _Bar(timed["name"], percent, note, colour, is_phase, spread)
