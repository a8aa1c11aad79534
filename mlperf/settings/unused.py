"""Flags that are valid but have no effect in a run."""

from __future__ import annotations

from collections.abc import Iterator

from mlperf.settings.flags import changed_flags, declared_flags
from mlperf.settings.reports import ComplianceSettings
from mlperf.settings.settings import Settings

_DATASET = (
    *("--data-set", "--days", "--max-ind-range", "--data-randomize", "--data-sub-sample-rate"),
    *("--mlperf-bin-loader", "--mlperf-bin-shuffle", "--num-workers"),
)
_TABLE_ROWS = ("--arch-embedding-size",)
_GENERATED = ("--data-size", "--num-indices-per-lookup", "--num-indices-per-lookup-fixed")
_EVALUATION = ("--test-mini-batch-size", "--test-num-workers")
# Only what could be expected to apply. The flags of a training are otherwise welcome when its model is evaluated.
_TRAINING = ("--num-batches", "--mlperf-acc-threshold", "--mlperf-auc-threshold")
# --mlperf-logging also selects the metrics, which an evaluation prints.
_LOG = tuple(flag.name for _, flag in declared_flags(ComplianceSettings) if flag.name != "--mlperf-logging")
_INITIALIZATION = ("--mlp-init", "--embedding-init")


def unused_flags(settings: Settings) -> Iterator[str]:
    """Yield one line for each condition under which flags of this run have no effect; it names these flags.

    Flags with default values are not named, nor is `--round-targets` for a data set, whose labels are 0 and 1.
    """
    changed = {flag.name: flag.kind.show(value) for flag, value in changed_flags(settings)}
    for condition, is_met, names in _conditions(settings):
        unused = [
            name if changed[name] == "true" else f"{name}={changed[name]}" for name in names if name in changed
        ]
        if is_met and unused:
            yield f"{condition}, these flags have no effect: {' '.join(unused)}"
    if settings.training.test_freq == 0 and not settings.inference_only:
        yield "--test-freq=0: the model is not evaluated during training"
    if settings.compliance.enabled and not settings.training.evaluates and not settings.inference_only:
        yield "--mlperf-logging without --test-freq or a threshold: the log will contain no evaluation"


def _conditions(settings: Settings) -> Iterator[tuple[str, bool, tuple[str, ...]]]:
    data, training = settings.data, settings.training
    dataset, inference = data.generation == "dataset", settings.inference_only
    evaluates = inference or training.evaluates
    yield f"with --data-generation={data.generation}", not dataset, (*_DATASET, *_EVALUATION)
    rows = () if data.traits.limits_rows else _TABLE_ROWS
    yield "with --data-generation=dataset", dataset, (*rows, *_GENERATED)
    yield "with --num-batches", not dataset and data.num_batches > 0, ("--data-size",)
    yield "without evaluations (--test-freq, a threshold)", dataset and not evaluates, _EVALUATION
    yield "with --inference-only", inference, (*_TRAINING, *_LOG)
    in_file_order = inference and settings.split == "train"
    yield "with --inference-only, which reads in the order of the file", in_file_order, ("--mlperf-bin-shuffle",)
    yield "with --load-model", settings.load_model is not None, _INITIALIZATION
    yield "with --load-weights", settings.load_weights is not None, _INITIALIZATION
    yield "without --lr-num-decay-steps", training.schedule.decay_steps == 0, ("--lr-decay-start-step",)
    yield "without --debug-mode", not settings.report.debug, ("--print-precision",)
