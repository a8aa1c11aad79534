"""Files of a run: what it reads and writes, and its optional outputs."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

from mlperf.data.columns.description_file import read_description
from mlperf.data.prepared.named_files import (
    named_counts,
    named_described_files,
    named_prepared_files,
    named_raw_files,
    named_reference_files,
    named_work_files,
)
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.data.prepared.raw_files import raw_files
from mlperf.data.prepared.reference_paths import reference_prefix
from mlperf.export.onnx import ONNX_FILE, WEIGHTS_FILE, save_onnx
from mlperf.models.dlrm import DLRM_Net
from mlperf.plots.compute_graph import GRAPH_FILE, plot_compute_graph
from mlperf.plots.time_figure import draw_time_breakdown
from mlperf.reporting.compliance_log_file import check_log_file, log_name
from mlperf.reporting.metrics_file import check_metrics_file, continues_metrics
from mlperf.reporting.profile import profile_files
from mlperf.reporting.time_breakdown import TimeBreakdown, time_files
from mlperf.runner.checkpoints import require_writable_checkpoints, resumes_in_place, saved_files
from mlperf.runner.data import prepared_prefix, trace_files
from mlperf.runner.output_folder import named_settings
from mlperf.settings.data import DataSettings
from mlperf.settings.run import SETTINGS_FILE
from mlperf.settings.settings import Settings
from mlperf.util.output_files import (
    NamedFile,
    named,
    require_distinct,
    require_writable_file,
    require_writable_folder,
)

_log = logging.getLogger(__name__)

_REPLACED = ", in place of an older file"


def check_files(settings: Settings, *, others: Sequence[NamedFile] = ()) -> None:
    """Raise UsageError if an output of the run is one of its inputs or another output, or cannot be written.

    Called before anything is opened, created or replaced. others: further outputs of the program.
    """
    writes = [*output_files(settings), *others]
    if settings.data.generation == "dataset" and (prepared := _prepared_data(settings)) is not None:
        writes += named_work_files(*prepared)
    require_distinct(_inputs(settings), writes)
    for file in others:
        if file.path.parent.is_dir():  # otherwise it is created
            require_writable_file("", file.path, shown=file.name)
    require_writable_checkpoints(settings)
    report, tables = settings.report, settings.data.multi_hot.tables_file
    predictions = settings.predictions.file
    for flag, is_set, path in (
        *((("--multi-hot-tables", not os.path.exists(tables), tables),) if tables is not None else ()),
        *((("--save-predictions", True, predictions),) if predictions is not None else ()),
        ("--plot-compute-graph", report.plot_compute_graph, settings.run.path(GRAPH_FILE)),
        ("--save-onnx", report.save_onnx, settings.run.path(ONNX_FILE)),
        ("--save-onnx", report.save_onnx, settings.run.path(WEIGHTS_FILE)),
    ):
        if is_set:
            require_writable_file(flag, path)
    if report.profile:
        require_writable_folder("--enable-profiling", settings.run.output_dir or Path())
    if report.time_breakdown:
        require_writable_folder("--time-breakdown", settings.run.output_dir or Path())
    if report.tensor_board_folder is not None:
        require_writable_folder("--tensor-board-filename", report.tensor_board_folder)
    if report.metrics_file is not None:
        check_metrics_file(report.metrics_file, continues=continues_metrics(settings))
    if settings.compliance.enabled and not settings.inference_only:
        check_log_file(settings)


def _prepared_data(settings: Settings) -> tuple[DatasetPaths, str] | None:
    """Return the paths of the prepared data and the flag from which they follow.

    None if the data consists of files of the DLRM-DCNv2 reference.
    """
    data, prefix = settings.data, prepared_prefix(settings.data)
    if reference_prefix(prefix) is not None:
        return None
    flag = "--raw-data-file" if data.processed_data_file is None else "--processed-data-file"
    named_by = data.raw_data_file if data.processed_data_file is None else data.processed_data_file
    return DatasetPaths.from_name(prefix), f"{flag}={named_by}"


def _inputs(settings: Settings) -> list[NamedFile]:
    data = settings.data
    inputs = [] if resumes_in_place(settings) else named("--load-model", settings.load_model)
    inputs += named("--load-weights", settings.load_weights)
    inputs += named("--score-text", settings.predictions.text)
    if not _is_kept(settings.run.config, settings):  # it has been read, and is replaced by the same settings
        inputs += named("--config", settings.run.config)
    if data.generation == "synthetic":
        inputs += [NamedFile(path, f"--data-trace-file={path}") for path in trace_files(settings)]
    if data.generation == "dataset":
        inputs += named_raw_files(data.raw_data_file) + named_described_files(data, _described_texts(data))
        inputs += named("--multi-hot-tables", data.multi_hot.tables_file)
        if (prepared := _prepared_data(settings)) is not None:
            inputs += chain(named_prepared_files(*prepared), named_counts(*prepared))
        else:
            inputs += named_reference_files(data.processed_data_file)
    return inputs


def _is_kept(config: Path | None, settings: Settings) -> bool:
    """Return whether the file of --config is the one that the folder of the run keeps."""
    folder = settings.run.output_dir
    if config is None or folder is None:
        return False
    return os.path.abspath(config) == os.path.abspath(folder / SETTINGS_FILE)


def _described_texts(data: DataSettings) -> list[Path]:
    """Return the raw text that --columns describes, which may be several files."""
    if data.columns is None or data.raw_data_file is None:
        return []
    return raw_files(data.raw_data_file, data.data_set, read_description(data.columns))


def output_files(settings: Settings) -> list[NamedFile]:
    """Return the files that the run writes, besides those of the preparation, and its locks."""
    report = settings.report
    outputs = [*named_settings(settings), *saved_files(settings), *named("--metrics-file", report.metrics_file)]
    if settings.compliance.enabled and not settings.inference_only:
        log = log_name(settings)
        outputs += [NamedFile(log, f"--mlperf-log-file={log}")]
    if report.save_onnx:
        paths = (settings.run.path(ONNX_FILE), settings.run.path(WEIGHTS_FILE))
        outputs += [NamedFile(path, f"{path} of --save-onnx") for path in paths]
    if report.plot_compute_graph:
        path = settings.run.path(GRAPH_FILE)
        outputs.append(NamedFile(path, f"{path} of --plot-compute-graph"))
    if report.profile:
        paths = profile_files(settings.run.output_dir or Path())
        outputs += [NamedFile(path, f"{path} of --enable-profiling") for path in paths]
    outputs += named("--save-predictions", settings.predictions.file)
    if report.time_breakdown:
        outputs += [NamedFile(path, f"{path} of --time-breakdown") for path in time_files(settings.run.output_dir)]
    return outputs + named("--tensor-board-filename", report.tensor_board_folder, is_folder=True)


def draw_compute_graph(settings: Settings, model: DLRM_Net) -> None:
    """Draw the model (--plot-compute-graph)."""
    path = settings.run.path(GRAPH_FILE)
    older = path.exists()
    plot_compute_graph(model, path)
    _log.info("compute graph in %s%s", path, _REPLACED if older else "")


def draw_times(times: TimeBreakdown) -> None:
    """Draw what has been measured (--time-breakdown), if matplotlib is installed."""
    measured, picture = times.measured, times.picture
    if measured is None or picture is None:  # nothing was trained
        return
    if find_spec("matplotlib") is None:
        _log.info("no picture of the time breakdown: matplotlib is not installed (pip install matplotlib)")
        return
    draw_time_breakdown(measured, picture)
    _log.info("picture of the time breakdown in %s", picture)


def export_onnx(settings: Settings, model: DLRM_Net) -> None:
    """Export the model (--save-onnx)."""
    path = settings.run.path(ONNX_FILE)
    older = path.exists()
    multi_hot = settings.data.generation != "dataset" or model.architecture.ids_per_table is not None
    save_onnx(model, path, multi_hot=multi_hot)
    _log.info("model in %s%s", path, _REPLACED if older else "")
