"""Optional output files of a run: compute graph and ONNX model."""

from __future__ import annotations

import logging

from mlperf.export.onnx import ONNX_FILE, save_onnx
from mlperf.models.dlrm import DLRM_Net
from mlperf.plots.compute_graph import GRAPH_FILE, plot_compute_graph
from mlperf.settings.settings import Settings

_log = logging.getLogger(__name__)


def draw_compute_graph(model: DLRM_Net) -> None:
    """Draw the model (--plot-compute-graph)."""
    plot_compute_graph(model, GRAPH_FILE)
    _log.info("compute graph in %s", GRAPH_FILE)


def export_onnx(settings: Settings, model: DLRM_Net) -> None:
    """Export the model (--save-onnx)."""
    save_onnx(model, ONNX_FILE, multi_hot=settings.data.generation != "dataset")
    _log.info("model in %s", ONNX_FILE)
