"""Diagram of a model: its inputs, MLPs, embedding tables and interaction with their sizes.

This module builds the graph; Graphviz (bundled with pygraphviz) lays it out and renders it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from torch import nn

from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.cross import CrossInteraction
from mlperf.plots.packages import require_packages
from mlperf.util.errors import RunError
from mlperf.util.files import write_atomically
from mlperf.util.plural import counted

if TYPE_CHECKING:
    from pygraphviz import AGraph

GRAPH_FILE = Path("dlrm_s_pytorch_graph.png")

_INPUT, _DENSE, _TABLE, _INTERACTION = "#e8e8e8", "#cfe2f3", "#d9ead3", "#fce5cd"
_LINE = "#595959"
_TABLES_PER_LINE = 7
_DRAW = """
import sys, pygraphviz
sys.stdout.buffer.write(pygraphviz.AGraph(sys.stdin.read()).draw(format="png", prog="dot"))
"""


def require_graphviz(flag: str) -> None:
    """Raise UsageError if a package needed to draw the graph is missing."""
    require_packages(flag, "pygraphviz", "matplotlib")


def plot_compute_graph(model: DLRM_Net, path: Path) -> None:
    """Draw `model` into the PNG file `path`. RunError if that fails."""
    image = _render(make_graph(model).string())
    try:
        write_atomically(path, image)
    except OSError as error:
        raise RunError(f"--plot-compute-graph: cannot write {path}: {error.strerror}") from None


def make_graph(model: DLRM_Net) -> AGraph:
    """Return the graph of `model`: inputs at the bottom, the probability of a click at the top."""
    from pygraphviz import AGraph

    sizes = model.architecture
    tables = len(model.emb_l)
    graph = AGraph(directed=True, rankdir="BT", nodesep=0.35, ranksep=0.35, dpi=160)
    graph.node_attr.update(shape="box", style="filled", color=_LINE, height=0.1, margin="0.12,0.06")
    graph.node_attr.update(fontname="DejaVu Sans", fontsize=10)
    graph.edge_attr.update(color=_LINE, arrowsize=0.7)

    def add(name: str, text: str, color: str) -> None:
        graph.add_node(name, label=text, fillcolor=color)

    def add_grid(name: str, cells: Iterable[str], columns: int, color: str) -> None:
        graph.add_node(name, label=_grid(list(cells), columns, color), shape="plain", style="")

    add("dense", f"dense features\n[B, {sizes.mlp_bot[0]}]", _INPUT)
    add("ids", f"ids of {counted(tables, 'table')}", _INPUT)
    add_grid("bottom MLP", reversed(_layers(model.bot_l)), 1, _DENSE)
    add_grid("tables", map(_table, range(tables), model.emb_l), _TABLES_PER_LINE, _TABLE)
    shapes = f"[B, {tables + 1}, {sizes.feature_size}] to [B, {model.top_widths[0]}]"
    if isinstance(model.interaction, CrossInteraction):
        cells = [f"concatenation\n{shapes}", *map(_cross_layer, model.interaction.layers())]
        add_grid("interaction", reversed(cells), 1, _INTERACTION)
    else:
        add("interaction", f"interaction: {sizes.interaction_op}\n{shapes}", _INTERACTION)
    add_grid("top MLP", reversed(_layers(model.top_l)), 1, _DENSE)
    add("probability", "probability of a click\n[B, 1]", _INPUT)
    for start, end in (
        ("dense", "bottom MLP"),
        ("ids", "tables"),
        ("bottom MLP", "interaction"),
        ("tables", "interaction"),
        ("interaction", "top MLP"),
        ("top MLP", "probability"),
    ):
        graph.add_edge(start, end)
    return graph


def _layers(mlp: nn.Sequential) -> list[str]:
    """Return one line per linear layer, with its sizes and activation."""
    lines: list[str] = []
    for module in mlp:
        if isinstance(module, nn.Linear):
            lines.append(f"Linear {module.in_features} to {module.out_features}")
        else:
            lines[-1] += f", {type(module).__name__}"
    return lines


def _cross_layer(layer: tuple[nn.Linear, nn.Linear]) -> str:
    """Return the formula of a layer of the cross network, with its sizes."""
    down, up = layer
    return f"x = x0 * (Linear {down.in_features} to {down.out_features} to {up.out_features}) + x"


def _table(number: int, table: nn.Module) -> str:
    """Return the number of a table and the shapes of its weights (several if it is compressed)."""
    return "\n".join([f"table {number}", *(str(list(weight.shape)) for weight in table.parameters())])


def _grid(cells: list[str], columns: int, color: str) -> str:
    """Return a Graphviz label: a grid of cells with `columns` columns."""
    drawn = [f'<td bgcolor="{color}">{escape(cell).replace(chr(10), "<br/>")}</td>' for cell in cells]
    lines = ["".join(drawn[start : start + columns]) for start in range(0, len(drawn), columns)]
    rows = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<<table border="0" cellborder="1" cellspacing="0" cellpadding="5" color="{_LINE}">{rows}</table>>'


def _render(dot: str) -> bytes:
    """Return the PNG of a graph in the DOT language.

    Graphviz runs in a separate process, because Fontconfig reads the environment only once per process and may
    print warnings. The font is taken from matplotlib, because a machine without a desktop may have none.
    """
    import matplotlib as mpl

    fonts = Path(mpl.get_data_path()) / "fonts" / "ttf"
    with TemporaryDirectory(prefix="dlrm-graph-") as folder:
        settings = Path(folder) / "fonts.conf"
        settings.write_text(
            f"<fontconfig><dir>{escape(str(fonts))}</dir><cachedir>{folder}</cachedir></fontconfig>"
        )
        completed = subprocess.run(
            [sys.executable, "-c", _DRAW],
            input=dot.encode(),
            capture_output=True,
            env={**os.environ, "FONTCONFIG_FILE": str(settings)},
            check=False,
        )
    if completed.returncode != 0 or not completed.stdout:
        reason = completed.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise RunError(f"--plot-compute-graph: Graphviz cannot draw the model: {reason}")
    return completed.stdout
