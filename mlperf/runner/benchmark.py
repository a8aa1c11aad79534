"""Run training or evaluation from settings."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import torch

from mlperf.data.criteo.days import TRAINING_SPLITS
from mlperf.data.prepared.dataset import PreparedData
from mlperf.distributed.agreement import decided_by_first
from mlperf.distributed.group import process_group
from mlperf.distributed.launchers import launched_processes
from mlperf.engines.choose import uses_torchrec
from mlperf.engines.requested import check_engine
from mlperf.engines.torchrec.packages import require_torchrec
from mlperf.export.onnx import require_onnx
from mlperf.export.predictions import require_format
from mlperf.models.dlrm import DLRM_Net
from mlperf.plots.compute_graph import require_graphviz
from mlperf.reporting.compliance_log_file import require_mlperf_logging
from mlperf.runner.checkpoints import check_loaded_checkpoints, checkpoints_reserved
from mlperf.runner.data import Splits, open_splits, verified_data
from mlperf.runner.device import device_of, gpu_name
from mlperf.runner.dry_run import dry_run
from mlperf.runner.evaluate import evaluate_only, load_model
from mlperf.runner.files import check_files
from mlperf.runner.listeners import require_tracker
from mlperf.runner.memory import RunSizes, require_run_memory, resource_failures
from mlperf.runner.model import architecture_of
from mlperf.runner.output_folder import in_output_folder, keep_settings, output_folder_reserved
from mlperf.runner.result import Result
from mlperf.runner.resume import with_latest
from mlperf.runner.same_run import require_same_run
from mlperf.runner.score_text import score_text
from mlperf.runner.train import train
from mlperf.settings.settings import Settings
from mlperf.util.errors import UsageError
from mlperf.util.output_files import NamedFile


def run_benchmark(settings: Settings) -> Result:
    """Train or evaluate according to `settings`. RunError or UsageError if that is not possible."""
    processes = launched_processes(local_rank=settings.processes.local_rank)
    check_engine(settings, processes.size)
    with ExitStack() as stack:
        stack.enter_context(resource_failures())
        device = device_of(settings, processes)
        if uses_torchrec(settings, processes.size):
            require_torchrec(use_gpu=settings.use_gpu)
            backend = settings.processes.backend_for(use_gpu=settings.use_gpu)
            stack.enter_context(process_group(processes, backend, gpu=gpu_name(device)))
            require_same_run(settings)
        return _run(settings, device)


def _run(settings: Settings, device: torch.device) -> Result:
    given, settings = settings, in_output_folder(settings)
    with output_folder_reserved(given):
        return _run_in_folder(given, with_latest(settings), device)


def _run_in_folder(given: Settings, settings: Settings, device: torch.device) -> Result:
    """Run with the `settings` that follow from those that were `given`."""
    if settings.compliance.enabled and not settings.inference_only:  # otherwise no log is written
        require_mlperf_logging()
    decided_by_first(lambda: check_files(settings))
    decided_by_first(lambda: check_loaded_checkpoints(settings))
    decided_by_first(lambda: require_tracker(settings))
    if settings.report.save_onnx:
        require_onnx()
    if settings.predictions.file is not None:
        require_format(settings.predictions.file)
    if settings.report.plot_compute_graph:
        require_graphviz("--plot-compute-graph")
    if settings.run.dry_run:
        return dry_run(settings, device)
    if settings.data.generation != "dataset":
        _require_memory(settings, device, None)
        with checkpoints_reserved(settings):
            keep_settings(given)
            return train(settings, device, None)
    if settings.inference_only:
        is_text = settings.predictions.text is not None
        prepared = _data(settings, device, () if is_text else [settings.split])
        keep_settings(given)
        return (score_text if is_text else evaluate_only)(settings, device, prepared)
    with checkpoints_reserved(settings):
        prepared = _data(settings, device, TRAINING_SPLITS)
        keep_settings(given)
        return train(settings, device, prepared)


def load_for_inference(settings: Settings, outputs: Sequence[NamedFile] = ()) -> tuple[DLRM_Net, Splits]:
    """Return the model with its weights, and its data, for inspection. Errors as in `run_benchmark`.

    outputs: files that the program is going to write.
    """
    model, prepared = open_for_inference(settings, TRAINING_SPLITS, outputs)
    return model, open_splits(settings, prepared)


def open_for_inference(
    settings: Settings, splits: Sequence[str], outputs: Sequence[NamedFile] = ()
) -> tuple[DLRM_Net, PreparedData]:
    """Return the model with its weights, and its data, with `splits` verified. See `load_for_inference`."""
    if settings.processes.engine == "torchrec":
        raise UsageError("--engine=torchrec: no process has the whole model, which is needed here; omit the flag")
    check_engine(settings, 1)
    check_files(settings, others=outputs)
    check_loaded_checkpoints(settings)
    with resource_failures():
        device = device_of(settings)
        prepared = _data(settings, device, splits)
        return load_model(settings, device, prepared), prepared


def draw_ids(settings: Settings) -> None:
    """Draw the ids of --multi-hot-sizes, as `run_benchmark` does first if they are missing."""
    with resource_failures():
        check_files(settings)
        _data(replace(settings, data=replace(settings.data, verify=False)), device_of(settings), ())


def _data(settings: Settings, device: torch.device, splits: Sequence[str]) -> PreparedData:
    """Return the data, with `splits` verified. A run that lacks memory ends before ids are drawn for it."""
    return verified_data(settings, splits, before_drawing=partial(_require_memory, settings, device))


def _require_memory(settings: Settings, device: torch.device, prepared: PreparedData | None) -> None:
    """Raise RunError if the run needs more memory than is available. prepared: None for generated data."""
    sizes = RunSizes.of(settings, prepared)
    require_run_memory(settings, architecture_of(settings, prepared), device, sizes)
