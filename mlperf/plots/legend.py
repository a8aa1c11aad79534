"""Legend of a figure of runs: line styles, and one legend beside or below the axes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlperf.util.printable import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mlperf.plots.curves import Curves

_FONT_SIZE = 9
# Inches in the legend, at this font size.
_LINE_HEIGHT, _CHARACTER_WIDTH, _HANDLE_WIDTH = 0.205, 0.078, 0.7
_MIN_PANEL_WIDTH = 4.4
# A legend with more entries is placed below the axes, in columns.
_MAX_ENTRIES_BESIDE = 20
_MAX_LABEL = 64  # characters
# With more runs, each line is thinner.
_MANY_RUNS = 10


@dataclass(frozen=True)
class Style:
    """Colour, dashes and relative width of the lines of an entry."""

    color: Any
    dashes: str
    scale: float

    def line(self, width: float, **extra: Any) -> dict[str, Any]:
        """Return the keywords of matplotlib for a line `width` points wide."""
        return {"color": self.color, "ls": self.dashes, "lw": width * self.scale, **extra}


def make_styles(labels: Sequence[str], runs: int) -> dict[str, Style]:
    """Return a style for each label. Over 20 colours are hard to tell apart: dashes differ too."""
    from matplotlib import colormaps

    number = len(labels)
    dashes: tuple[str, ...] = ("-",)
    if number <= 10:
        colors: list[Any] = [f"C{index}" for index in range(number)]
    elif number <= 20:  # of the 10 pairs of tab20, the dark colours first
        colors = [colormaps["tab20"]((2 * index) % 20 + index // 10) for index in range(number)]
    else:
        colors = [colormaps["turbo"](0.03 + 0.94 * index / (number - 1)) for index in range(number)]
        dashes = ("-", "--", "-.", ":")
    scale = 1.0 if runs <= _MANY_RUNS else 0.7
    return {label: Style(colors[index], dashes[index % len(dashes)], scale) for index, label in enumerate(labels)}


def add_legend(
    figure: Figure, panels: Sequence[Axes], runs: Sequence[tuple[str, Curves]], styles: Mapping[str, Style]
) -> None:
    """Add one legend beside the axes, or below them if it is long, and make the figure larger by its size.

    runs: label and curves of each run. styles: by label. Labelled lines of the last panel, such as the target,
    follow.
    """
    from matplotlib.lines import Line2D

    handles: list[Any] = [Line2D([], [], **style.line(2)) for style in styles.values()]
    others, names = panels[-1].get_legend_handles_labels()
    labels, heading = _entries(runs)
    handles, labels = [*handles, *others], [*map(plain, labels), *names]
    width = _HANDLE_WIDTH + _CHARACTER_WIDTH * max(map(len, labels))
    beside = len(handles) <= _MAX_ENTRIES_BESIDE
    if beside:
        columns = 1
        figure.set_figwidth(max(figure.get_figwidth(), _MIN_PANEL_WIDTH * len(panels) + width))
    else:
        columns = max(int(figure.get_figwidth() // width), 1)
        lines = -(-len(handles) // columns) + (heading is not None)
        figure.set_figheight(figure.get_figheight() + _LINE_HEIGHT * lines)
    figure.legend(
        handles,
        labels,
        loc="outside right upper" if beside else "outside lower center",
        ncols=columns,
        title=heading,
        frameon=False,
        fontsize=_FONT_SIZE,
        title_fontsize=_FONT_SIZE,
        alignment="left",
    )


def _entries(runs: Sequence[tuple[str, Curves]]) -> tuple[list[str], str | None]:
    """Return the entries, with the number of runs of each and of those that learned nothing, and the heading."""
    counts = Counter(label for label, _ in runs)
    failed = Counter(label for label, run in runs if run.learned_nothing)
    same = len(set(counts.values())) == 1 and len(counts) > 1 and max(counts.values()) > 1
    entries = []
    for label, count in counts.items():
        remarks = [f"{count} runs"] if count > 1 and not same else []
        if failed[label] and failed.total() < len(runs):
            remarks.append("learned nothing" if count == 1 else f"{failed[label]} learned nothing")
        entries.append(f"{_shorten(label)} ({', '.join(remarks)})" if remarks else _shorten(label))
    return entries, f"{max(counts.values())} runs each" if same else None


def _shorten(text: str) -> str:
    """Return a label without its middle if it is too long: file names often differ at the end."""
    half = _MAX_LABEL // 2
    return text if len(text) <= _MAX_LABEL else f"{text[:half]}\N{HORIZONTAL ELLIPSIS}{text[-half:]}"


def plain(text: str) -> str:
    """Escape text for matplotlib: $ would start mathematics, and a leading underscore hides a label."""
    text = one_line(text).replace("$", r"\$")
    return f"\N{ZERO WIDTH SPACE}{text}" if text.startswith("_") else text
