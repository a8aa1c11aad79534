"""Quantization of a model for inference (--quantize-mlp-with-bit, --quantize-emb-with-bit)."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from mlperf.data.source import BatchSource
from mlperf.engines.choose import choose_engine, make_scorer_of
from mlperf.evaluation.evaluate import evaluate
from mlperf.evaluation.metrics import Metrics
from mlperf.evaluation.predictions import Receiver
from mlperf.export.quantize import mlp_bytes, quantize_mlps
from mlperf.models.dlrm import DLRM_Net
from mlperf.reporting.time_breakdown import TimeBreakdown
from mlperf.runner.listeners import observer_of, timed_evaluation
from mlperf.runner.recorded_evaluation import recorded_evaluation
from mlperf.settings.reports import QuantizationSettings
from mlperf.settings.settings import Settings

_log = logging.getLogger(__name__)


def quantize_and_evaluate(
    settings: Settings,
    device: torch.device,
    model: DLRM_Net,
    test: BatchSource,
    receive: Receiver | None,
    times: TimeBreakdown | None,
) -> Metrics:
    """Return the metrics of the quantized model; log the memory saved and the change of the AUC.

    Where the AUC is undefined, the change of the accuracy is logged. The same engine evaluates both models.
    receive: takes the predictions of the quantized one. times: measures the parts of its evaluation.
    """
    engine = choose_engine(model, settings)
    not_quantized = replace(settings, quantization=QuantizationSettings())
    before = evaluate(engine.make_scorer(model, not_quantized), test, all_metrics=True)
    quantize(settings, model)
    scorer = make_scorer_of(engine, model, settings, observer_of(times))
    with recorded_evaluation(settings, device, engine.description) as report:
        with timed_evaluation(times, engine, test):
            after = evaluate(scorer, test, all_metrics=True, receive=receive)
        report(after, None if times is None else times.breakdown())
    name, old, new = "AUC", before.auc, after.auc
    if after.only_label is not None:
        name, old, new = "accuracy", before.accuracy, after.accuracy
    _log.info(f"{name}: {old:.6f} before, {new:.6f} quantized, change {new - old:+.6f}")
    return after


def quantize(settings: Settings, model: DLRM_Net) -> None:
    """Convert the weights to the bits of the settings, in place, and log the memory saved."""
    bits = settings.quantization
    if bits.mlp_bits != 32:
        size = mlp_bytes(model)
        quantize_mlps(model, bits.mlp_bits)
        what = "MLPs and cross network" if model.architecture.has_cross_network else "MLPs"
        _log_sizes(what, size, mlp_bytes(model), bits.mlp_bits)
    if bits.embedding_bits != 32:
        size = model.tables.nbytes()
        model.tables.quantize(bits.embedding_bits)
        _log_sizes("embedding tables", size, model.tables.nbytes(), bits.embedding_bits)


def _log_sizes(what: str, before: int, after: int, bits: int) -> None:
    _log.info(f"{what}: {before / 1e6:,.3f} MB in 32 bits, {after / 1e6:,.3f} MB in {bits} bits")
