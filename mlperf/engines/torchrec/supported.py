"""Settings that this engine does not support, checked before TorchRec is imported and anything is opened."""

from __future__ import annotations

from mlperf.benchmarks.data_sets import TABLES
from mlperf.settings.kinds import MAX_INT32
from mlperf.settings.settings import Settings

# FBGEMM's kernels read rows in groups of four values.
ROW_MULTIPLE = 4
OPTIMIZERS = ("sgd", "adagrad", "rwsadagrad")


def unsupported_setting(settings: Settings) -> str | None:
    """Return why several processes, or --engine=torchrec, do not support `settings`; None if they do."""
    for flag, is_used, reason in (*_of_model(settings), *_of_run(settings)):
        if is_used:
            return _refusal(flag, reason)
    return None


def _of_model(settings: Settings) -> list[tuple[str, bool, str]]:
    """Return flags with their values, whether they are used, and why they are not supported."""
    architecture, optimizer = settings.model.architecture, settings.training.optimizer
    size, precision = architecture.feature_size, architecture.embedding_precision
    return [
        ("--qr-flag or --md-flag", architecture.compression is not None, ", which shard uncompressed tables"),
        (f"--weighted-pooling={architecture.weighted_pooling}", architecture.weighted_pooling is not None, ""),
        (
            f"--embedding-precision={precision}",
            precision != "fp32",
            ": FBGEMM rounds to the nearest value on a CPU, which loses small updates, and on a GPU as it draws",
        ),
        (f"--arch-sparse-feature-size={size}", size % ROW_MULTIPLE != 0, ", which need a multiple of 4"),
        (f"--optimizer={optimizer}", optimizer not in OPTIMIZERS, f", but {', '.join(OPTIMIZERS)} are"),
    ]


def _of_run(settings: Settings) -> list[tuple[str, bool, str]]:
    accumulate, report = settings.training.accumulate, settings.report
    quantization = settings.quantization
    whole = ", because no process has the whole model"
    ids = _ids_per_sample(settings)
    return [
        (
            f"--mlperf-grad-accum-iter={accumulate}",
            accumulate > 1 and not settings.inference_only,
            ", whose tables are updated in the backward pass of every batch",
        ),
        *_too_many_ids(settings, ids),
        (f"--quantize-emb-with-bit={quantization.embedding_bits}", quantization.embedding_bits != 32, ""),
        (f"--quantize-mlp-with-bit={quantization.mlp_bits}", quantization.mlp_bits != 32, ""),
        ("--save-onnx", report.save_onnx, whole),
        (
            f"--score-text={settings.predictions.text}",
            settings.predictions.text is not None,
            ", because one process reads the text",
        ),
        ("--plot-compute-graph", report.plot_compute_graph, whole),
        ("--debug-mode", report.debug, whole),
    ]


def unsupported_batch(settings: Settings, ids: int) -> str | None:
    """Return why a batch is too large if a sample has `ids` ids of all tables; None if it is not."""
    for flag, is_used, reason in _too_many_ids(settings, ids):
        if is_used:
            return _refusal(flag, reason)
    return None


def _refusal(flag: str, reason: str) -> str:
    return f"{flag} is not supported by several processes and --engine=torchrec{reason}"


def _too_many_ids(settings: Settings, ids: int) -> list[tuple[str, bool, str]]:
    data, reason = settings.data, f", which number the ids of a batch in 32 bits: there may be {MAX_INT32:,}"
    return [
        (f"--mini-batch-size={data.batch_size}", data.batch_size * ids > MAX_INT32, reason),
        (
            f"--test-mini-batch-size={data.test_batch_size}",
            data.generation == "dataset" and data.test_batch_size * ids > MAX_INT32,
            reason,
        ),
    ]


def _ids_per_sample(settings: Settings) -> int:
    """Return the largest number of ids of a sample, of all tables; 1 if only the data set knows it."""
    if settings.data.generation != "dataset":
        tables = len(settings.model.architecture.rows_per_table)
    else:
        tables = 1 if settings.data.traits.has_columns_file else TABLES
    return sum(settings.data.ids_per_table(tables))
