"""A picture of the network: every layer and table with its sizes, and how they are connected."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.embedding.compression import PrEmbeddingBag, QREmbeddingBag
from mlperf.util.errors import RunError, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRAPH_FILE = Path("dlrm_s_pytorch_graph.png")

_INPUT, _DENSE, _TABLE, _OP = "#e8e8e8", "#cfe2f3", "#d9ead3", "#fce5cd"
_HEIGHT = 0.6  # of a box, in a grid of unit steps
_TABLE_TOP = 3.2


def require_matplotlib(flag: str) -> None:
    """Raise UsageError if matplotlib is missing."""
    try:
        import matplotlib as mpl

        mpl.use("Agg")
    except ImportError:
        raise UsageError(f"{flag}: needs the package matplotlib (pip install matplotlib)") from None


def plot_compute_graph(model: DLRM_Net, path: Path) -> None:
    """Draw `model` into a PNG file: inputs at the bottom, the probability of a click at the top."""
    from matplotlib.figure import Figure

    bottom, top = _layers(model.bot_l), _layers(model.top_l)
    tables = list(model.emb_l)
    table_width = 0.5 if len(tables) > 6 else 1.7
    width = 2.9 + table_width * (len(tables) - 0.07) + 0.2  # ends where the last table does
    middle = max(len(bottom) + 1, 4)  # height of the interaction
    center = width / 2
    figure = Figure(figsize=(max(width * 0.72, 5), 0.72 * (middle + len(top) + 2.2)), layout="constrained")
    axes = figure.add_subplot()

    _box(axes, 1.3, 0, 2.2, f"dense features\n[B, {model.architecture.mlp_bot[0]}]", _INPUT)
    for level, text in enumerate(bottom, start=1):
        _box(axes, 1.3, level, 2.2, text, _DENSE)
        _arrow(axes, (1.3, level - 1), (1.3, level))
    _arrow(axes, (1.3, len(bottom)), (1.3, middle))
    for number, table in enumerate(tables):
        x = 2.9 + table_width * (number + 0.5)
        narrow = table_width < 1
        _box(axes, x, 0, 0.86 * table_width, "ids" if narrow else f"ids of table {number}", _INPUT)
        _tall_box(axes, x, 0.86 * table_width, _table_text(number, table, narrow), narrow)
        _arrow(axes, (x, 0), (x, 1 - _HEIGHT / 2 + _HEIGHT / 2))
        axes.annotate(
            "",
            (x, middle - _HEIGHT / 2),
            (x, _TABLE_TOP),
            arrowprops={"arrowstyle": "-|>", "color": "0.35", "lw": 0.8},
        )
    op, size = model.architecture.interaction_op, model.architecture.feature_size
    _box(
        axes,
        center,
        middle,
        width - 0.4,
        f"interaction: {op}   {len(tables) + 1} features [B, {size}]  to  [B, {model.top_widths[0]}]",
        _OP,
    )
    for level, text in enumerate([*top, "probability of a click [B, 1]"], start=middle + 1):
        _box(axes, center, level, 2.6, text, _DENSE if level <= middle + len(top) else _INPUT)
        _arrow(axes, (center, level - 1), (center, level))
    axes.set(xlim=(0, width), ylim=(-0.6, middle + len(top) + 1.6))
    axes.axis("off")
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise RunError(f"--plot-compute-graph: {path} cannot be written: {error.strerror}") from None


def _layers(mlp: nn.Sequential) -> list[str]:
    """Return what to write on each layer: sizes and activation."""
    children = list(mlp)
    texts = []
    for linear, activation in zip(children[0::2], children[1::2], strict=True):
        assert isinstance(linear, nn.Linear)
        texts.append(f"Linear {linear.in_features} to {linear.out_features}\n{type(activation).__name__}")
    return texts


def _table_text(number: int, table: nn.Module, narrow: bool) -> str:
    separator = "  " if narrow else "\n"
    if isinstance(table, QREmbeddingBag):
        kind = f"{table.operation} {list(table.weight_q.shape)} {list(table.weight_r.shape)}"
    elif isinstance(table, PrEmbeddingBag):
        kind = f"{list(table.embs.weight.shape)}"
        if isinstance(table.proj, nn.Linear):
            kind += f"{separator}to {table.proj.out_features}"
    else:
        assert isinstance(table, nn.EmbeddingBag)
        kind = f"{list(table.weight.shape)}"
    return f"table {number}{separator}{kind}"


def _tall_box(axes: Axes, x: float, width: float, text: str, narrow: bool) -> None:
    from matplotlib.patches import FancyBboxPatch

    height = _TABLE_TOP - (1 - _HEIGHT / 2)
    corner = (x - width / 2, 1 - _HEIGHT / 2)
    axes.add_patch(
        FancyBboxPatch(corner, width, height, "round,pad=0,rounding_size=0.06", fc=_TABLE, ec="0.35", lw=0.8)
    )
    rotation = 90 if narrow else 0
    axes.text(x, corner[1] + height / 2, text, ha="center", va="center", fontsize=7, rotation=rotation)


def _box(axes: Axes, x: float, y: float, width: float, text: str, color: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    corner = (x - width / 2, y - _HEIGHT / 2)
    axes.add_patch(
        FancyBboxPatch(corner, width, _HEIGHT, "round,pad=0,rounding_size=0.06", fc=color, ec="0.35", lw=0.8)
    )
    axes.text(x, y, text, ha="center", va="center", fontsize=7)


def _arrow(axes: Axes, start: tuple[float, float], stop: tuple[float, float]) -> None:
    """Draw an arrow between the edges of two boxes around these points."""
    (x, y), (to_x, to_y) = start, stop
    style = {"arrowstyle": "-|>", "color": "0.35", "lw": 0.8}
    axes.annotate("", (to_x, to_y - _HEIGHT / 2), (x, y + _HEIGHT / 2), arrowprops=style)
