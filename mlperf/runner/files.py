"""Optional output files of a run: checkpoint, compute graph and ONNX model."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mlperf.export.onnx import ONNX_FILE, save_onnx
from mlperf.models.dlrm import DLRM_Net
from mlperf.plots.compute_graph import GRAPH_FILE, plot_compute_graph
from mlperf.settings.settings import Settings
from mlperf.training.checkpoint_file import is_checkpoint
from mlperf.util.errors import UsageError
from mlperf.util.failures import system_failures
from mlperf.util.files import has_content
from mlperf.util.locking import exclusive

_log = logging.getLogger(__name__)

_REPLACED = ", in place of an older file"


@contextmanager
def checkpoint_reserved(settings: Settings) -> Iterator[None]:
    """Keep other runs from saving to the same file while this one does (--save-model).

    RunError if another run is saving to it. UsageError if the file is not a checkpoint, because it would be lost.
    """
    path = settings.save_model
    if path is None:
        yield
        return
    with ExitStack() as stack:
        with system_failures(path, "the checkpoint cannot be written"):
            if has_content(path) and path != settings.load_model and not is_checkpoint(path):
                raise UsageError(f"--save-model={path}: exists and is not a checkpoint; name another file")
            lock = path.with_name(f".{path.name}.lock")
            stack.enter_context(exclusive(lock, "another run saves to this file", subject=f"--save-model={path}"))
        yield


def draw_compute_graph(model: DLRM_Net) -> None:
    """Draw the model (--plot-compute-graph)."""
    older = GRAPH_FILE.exists()
    plot_compute_graph(model, GRAPH_FILE)
    _log.info("compute graph in %s%s", GRAPH_FILE, _REPLACED if older else "")


def export_onnx(settings: Settings, model: DLRM_Net) -> None:
    """Export the model (--save-onnx)."""
    older = ONNX_FILE.exists()
    save_onnx(model, ONNX_FILE, multi_hot=settings.data.generation != "dataset")
    _log.info("model in %s%s", ONNX_FILE, _REPLACED if older else "")
