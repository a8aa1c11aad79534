"""Evaluation without training: of the loaded or the quantized model."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from mlperf.data.prepared.dataset import PreparedData
from mlperf.distributed.processes import current
from mlperf.engines.choose import choose_engine, make_scorer_of
from mlperf.evaluation.evaluate import evaluate
from mlperf.evaluation.predictions import Receiver
from mlperf.export.predictions import predictions_file
from mlperf.models.dlrm import DLRM_Net
from mlperf.reporting.console import print_metrics
from mlperf.reporting.undefined_metrics import report_one_class
from mlperf.runner.data import open_split
from mlperf.runner.files import draw_compute_graph, draw_times, export_onnx
from mlperf.runner.listeners import make_time_breakdown, observer_of, timed_evaluation, timed_receiver
from mlperf.runner.memory import RunSizes
from mlperf.runner.model import architecture_of, build_model, fill_weights
from mlperf.runner.quantized import quantize_and_evaluate
from mlperf.runner.recorded_evaluation import recorded_evaluation
from mlperf.runner.remarks import report_unused_flags
from mlperf.runner.result import Result
from mlperf.settings.settings import Settings
from mlperf.training.events import Outcome
from mlperf.util.plural import counted

_log = logging.getLogger(__name__)


def evaluate_only(settings: Settings, device: torch.device, prepared: PreparedData) -> Result:
    """Evaluate on the split of --split and print the metrics."""
    model = load_model(settings, device, prepared)
    report_unused_flags(settings)
    if settings.report.plot_compute_graph:
        draw_compute_graph(settings, model)
    test = open_split(settings, prepared, settings.split, is_evaluated=True)
    all_metrics = settings.compliance.enabled
    times = make_time_breakdown(settings, device)
    print("Testing for inference only", flush=True)
    with predictions_of(settings) as receiver:
        receive = timed_receiver(times, receiver)
        if settings.quantization.requested:
            metrics = quantize_and_evaluate(settings, device, model, test, receive, times)
        else:
            engine = choose_engine(model, settings)
            scorer = make_scorer_of(engine, model, settings, observer_of(times))
            with recorded_evaluation(settings, device, engine.description) as report:
                with timed_evaluation(times, engine, test):
                    metrics = evaluate(scorer, test, all_metrics=all_metrics, receive=receive)
                report(metrics, None if times is None else times.breakdown())
    print_metrics(metrics, metrics, all_metrics=all_metrics)
    if metrics.only_label is not None:
        report_one_class(metrics, settings)
    if times is not None:
        times.time_breakdown(times.breakdown())
        draw_times(times)
    if settings.report.save_onnx:
        export_onnx(settings, model)
    return Result(Outcome.SUCCESS, metrics=metrics, best_metrics=metrics)


def load_model(settings: Settings, device: torch.device, prepared: PreparedData) -> DLRM_Net:
    """Return the model with the weights of --load-model or --load-weights, otherwise with drawn ones."""
    architecture = architecture_of(settings, prepared)
    model = build_model(settings, architecture, device, RunSizes.of(settings, prepared))
    if settings.load_model is None and settings.load_weights is None:
        _log.warning("--inference-only without --load-model: the model has its initial weights")
    fill_weights(settings, model, np.random.RandomState(settings.seed), prepared)
    return model


@contextmanager
def predictions_of(settings: Settings) -> Iterator[Receiver | None]:
    """Yield what writes predictions to the file of --save-predictions, None without the flag.

    The first process writes the file, which is complete when the `with` block ends. RunError if that fails.
    """
    path = settings.predictions.file
    if path is None:
        yield None
        return
    if not current().is_first:
        yield lambda scores, labels: None
        return
    with predictions_file(path) as file:
        yield file.append
    _log.info("predictions of %s in %s", counted(file.rows, "row"), path)
