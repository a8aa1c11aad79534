"""What no single flag's range excludes: flags that contradict each other, or the machine's environment."""

from __future__ import annotations

import os
from collections.abc import Collection

from mlperf.benchmarks import DLRM
from mlperf.settings.dataset import PreparationSettings
from mlperf.settings.flags import changed_flags
from mlperf.settings.settings import Settings
from mlperf.util.errors import UsageError

DENSE_FEATURES = DLRM.network.bottom_mlp[0]  # of a row of Criteo's logs


def check_settings(settings: Settings, given: Collection[str]) -> None:
    """Raise UsageError if the flags of a run contradict each other. given: the keys of those that were given."""
    _check_environment()
    _check_precision(settings)
    _check_model(settings)
    _check_training(settings)
    _check_saving(settings)
    _check_data(settings)
    _check_generated_data(settings, given)
    _check_inference(settings)


def check_preparation(settings: PreparationSettings, given: Collection[str]) -> None:
    """Raise UsageError if the flags of a preparation contradict each other. given: the keys of those given."""
    if "max_bad_rows" in given and settings.bad_rows != "skip":
        raise UsageError(f"--max-bad-rows={settings.max_bad_rows:g}: needs --bad-rows=skip")


def _check_environment() -> None:
    world_size = os.environ.get("WORLD_SIZE", "1")
    if world_size not in ("", "1"):
        raise UsageError(f"WORLD_SIZE={world_size}: one process only, there is no distributed engine yet")


def _check_precision(settings: Settings) -> None:
    precision = settings.precision
    if precision == "tf32" and not settings.use_gpu:
        raise UsageError("--precision=tf32: only with --use-gpu, CPUs do not have it; allowed: fp32, bf16")
    if precision != "fp32" and settings.quantization.asked:
        raise UsageError(f"--precision={precision}: not together with quantization, which is compared with fp32")


def _check_model(settings: Settings) -> None:
    model, architecture = settings.model, settings.model.architecture
    bottom, size = architecture.mlp_bot, architecture.feature_size
    if bottom[-1] != size:
        if size != architecture.dimension:
            raise UsageError(
                f"--arch-mlp-bot ends in {bottom[-1]}: with --qr-operation=concat it must end in {size}, twice "
                "--arch-sparse-feature-size"
            )
        raise UsageError(f"--arch-mlp-bot ends in {bottom[-1]}: it must end in --arch-sparse-feature-size={size}")
    if len(bottom) < 2:
        raise UsageError(f"--arch-mlp-bot={bottom[0]}: at least two widths, as in 4-3-2")
    if architecture.mlp_top[-1] != 1:
        raise UsageError(f"--arch-mlp-top ends in {architecture.mlp_top[-1]}: it must end in 1, a probability")
    if architecture.interaction_itself and architecture.interaction_op != "dot":
        raise UsageError("--arch-interaction-itself: only with --arch-interaction-op=dot")
    if model.loss_weights != (1.0, 1.0) and model.loss != "wbce":
        raise UsageError("--loss-weights: only with --loss-function=wbce")


def _check_training(settings: Settings) -> None:
    training, schedule = settings.training, settings.training.schedule
    if schedule.decay_steps > 0 and schedule.decay_start_step < schedule.warmup_steps:
        raise UsageError(
            f"--lr-decay-start-step={schedule.decay_start_step}: at least --lr-num-warmup-steps="
            f"{schedule.warmup_steps}, the decay cannot begin before the warm-up ends"
        )
    if settings.data.generation == "dataset":
        return
    for name, is_set in (
        ("--inference-only", settings.inference_only),
        ("--test-freq", training.test_freq > 0),
        ("--mlperf-acc-threshold", training.accuracy_threshold > 0),
        ("--mlperf-auc-threshold", training.auc_threshold > 0),
        ("--mlperf-logging", settings.compliance.enabled),
        ("--save-model", settings.save_model is not None),
    ):
        if is_set:
            raise UsageError(f"{name}: needs --data-generation=dataset, random data has no test split")


def _check_saving(settings: Settings) -> None:
    path, training = settings.save_model, settings.training
    if path is None:
        return
    if not path.parent.is_dir():
        raise UsageError(f"--save-model={path}: there is no folder {path.parent}")
    if path.is_dir():
        raise UsageError(f"--save-model={path}: is a folder; allowed is the name of a file")
    if not training.evaluates and not settings.inference_only:
        raise UsageError("--save-model: needs --test-freq, the model is saved when its test metric improves")
    if training.test_freq > 0 and training.test_freq % training.accumulate:
        raise UsageError(
            f"--test-freq={training.test_freq}: with --save-model it must be a multiple of "
            f"--mlperf-grad-accum-iter={training.accumulate}, so that no gradients are pending at a save"
        )


def _check_data(settings: Settings) -> None:
    data = settings.data
    if data.generation != "dataset":
        for name, path in (
            ("--raw-data-file", data.raw_data_file),
            ("--processed-data-file", data.processed_data_file),
        ):
            if path is not None:
                raise UsageError(f"{name}={path}: needs --data-generation=dataset")
        return
    if data.raw_data_file is None and data.processed_data_file is None:
        raise UsageError("--data-generation=dataset: needs --raw-data-file or --processed-data-file")
    dense_features = settings.model.architecture.mlp_bot[0]
    if dense_features != DENSE_FEATURES:
        raise UsageError(
            f"--arch-mlp-bot begins with {dense_features}: Criteo data has {DENSE_FEATURES} dense features"
        )


def _check_generated_data(settings: Settings, given: Collection[str]) -> None:
    generation, generated, ids = settings.data.generation, settings.data.generated, settings.data.generated.ids
    if generation != "synthetic":
        if "data_trace_file" in given:
            raise UsageError(f"--data-trace-file={generated.trace_file}: only with --data-generation=synthetic")
        if generated.trace_padding:
            raise UsageError("--data-trace-enable-padding: only with --data-generation=synthetic")
    if ids.kind != "gaussian":
        for flag, value in changed_flags(ids):
            raise UsageError(f"{flag.name}={value:g}: only with --rand-data-dist=gaussian")
        return
    if generation != "random":
        raise UsageError("--rand-data-dist=gaussian: only with --data-generation=random")
    if ids.minimum > ids.maximum:
        raise UsageError(f"--rand-data-min={ids.minimum:g}: allowed is at most --rand-data-max={ids.maximum:g}")


def _check_inference(settings: Settings) -> None:
    quantization, report = settings.quantization, settings.report
    for flag, _ in changed_flags(quantization):
        if not settings.inference_only:
            raise UsageError(f"{flag.name}: only with --inference-only, the quantized model cannot be trained")
        if report.save_onnx:
            raise UsageError(f"--save-onnx: not together with {flag.name}, the exported model is not quantized")
    for name, is_set in (
        ("--debug-mode", report.debug),
        ("--enable-profiling", report.profile),
        ("--tensor-board-filename", report.tensor_board_folder is not None),
    ):
        if is_set and settings.inference_only:
            raise UsageError(f"{name}: not together with --inference-only, it shows the training")
