"""Validation across flags: contradictions that the range of a single flag cannot exclude."""

from __future__ import annotations

import os
from collections.abc import Collection

from mlperf.benchmarks import benchmark_with, dashed, editions_of
from mlperf.benchmarks.data_sets import COLUMNS, DENSE_FEATURES, TABLES, TERABYTE_DCNV2
from mlperf.distributed.launchers import require_one_process
from mlperf.settings.data import DataSettings, MultiHotSettings
from mlperf.settings.dataset import DAYS, DatasetSettings, PreparationSettings
from mlperf.settings.flags import changed_flags
from mlperf.settings.settings import LATEST, Settings
from mlperf.util.errors import UsageError
from mlperf.util.output_files import require_writable_file


def check_settings(settings: Settings) -> None:
    """Raise UsageError if the flags of a run contradict each other."""
    _check_precision(settings)
    _check_engine(settings)
    _check_model(settings)
    _check_training(settings)
    _check_saving(settings)
    _check_data(settings)
    _check_generated_data(settings)
    _check_inference(settings)
    _check_log(settings)


def check_preparation(settings: PreparationSettings, given: Collection[str]) -> None:
    """Raise UsageError if the flags of a preparation contradict each other. given: keys of the flags given."""
    require_one_process()
    _check_columns(settings)
    if settings.traits.has_columns_file and settings.columns is None:
        raise UsageError(f"--data-set={settings.data_set} requires --columns, a file that describes the columns")
    if settings.traits.limits_rows and settings.max_ind_range >= 0:
        raise UsageError(
            f"--max-ind-range={settings.max_ind_range}: --data-set={settings.data_set} is prepared without a "
            "limit; the training takes the flag, and ids modulo the rows of their table"
        )
    if settings.reference_files:
        if not settings.traits.has_reference_files:
            raise UsageError(f"--reference-files requires --data-set={TERABYTE_DCNV2.name}")
        if settings.ids_from is not None or settings.days is not None:
            flag = "--days" if settings.ids_from is None else "--ids-from"
            raise UsageError(
                f"{flag} cannot be combined with --reference-files: the reference prepares all days, and numbers "
                "their ids itself"
            )
        for key in ("data_randomize", "data_sub_sample_rate", "numpy_rand_seed"):
            if key in given:
                raise UsageError(
                    f"--{key.replace('_', '-')} cannot be combined with --reference-files: the reference keeps "
                    "all rows and shuffles those of days 0 to 22 with seed 0"
                )
    if "max_bad_rows" in given and settings.bad_rows != "skip":
        raise UsageError(f"--max-bad-rows={settings.max_bad_rows:g} requires --bad-rows=skip")


def _check_precision(settings: Settings) -> None:
    precision = settings.precision
    if precision == "tf32" and not settings.use_gpu:
        raise UsageError("--precision=tf32 requires --use-gpu; use fp32 or bf16 on a CPU")
    rows = settings.model.architecture.embedding_precision
    for flag, value in (("--precision", precision), ("--embedding-precision", rows)):
        if value != "fp32" and settings.quantization.requested:
            raise UsageError(f"{flag}={value} cannot be combined with quantization, whose baseline is fp32")
    if rows != "fp32" and settings.model.architecture.compression is not None:
        raise UsageError(
            f"--embedding-precision={rows} cannot be combined with --qr-flag or --md-flag: compressed tables are "
            "stored in fp32"
        )


def _check_engine(settings: Settings) -> None:
    """Refuse an engine or a backend of the other device. What needs the number of processes: engines/choose.py."""
    engine, backend = settings.processes.engine, settings.processes.backend
    if engine == "gpu" and not settings.use_gpu:
        raise UsageError("--engine=gpu requires --use-gpu")
    if backend == "nccl" and not settings.use_gpu:
        raise UsageError("--dist-backend=nccl requires --use-gpu: NCCL connects GPUs; use gloo on CPUs")
    if settings.use_gpu and engine == "cpu":
        raise UsageError("--engine=cpu cannot be combined with --use-gpu")
    if settings.use_gpu and backend == "gloo":
        raise UsageError("--dist-backend=gloo cannot be combined with --use-gpu: it exchanges rows on CPUs")


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
        raise UsageError(f"--arch-mlp-bot={bottom[0]}: needs at least two widths, e.g. 4-3-2")
    if 0 in bottom[1:]:
        raise UsageError(
            f"--arch-mlp-bot={dashed(bottom)}: only the number of dense features, the first, can be 0"
        )
    if architecture.mlp_top[-1] != 1:
        raise UsageError(f"--arch-mlp-top ends in {architecture.mlp_top[-1]}: it must end in 1 (one output)")
    if architecture.interaction_itself and architecture.interaction_op != "dot":
        raise UsageError("--arch-interaction-itself requires --arch-interaction-op=dot")
    if not architecture.has_cross_network:
        for flag in ("dcn_num_layers", "dcn_low_rank_dim"):
            if flag in settings.given:
                raise UsageError(f"--{flag.replace('_', '-')} requires --arch-interaction-op=dcn")
    if model.loss == "bce_logits" and architecture.loss_threshold > 0:
        raise UsageError(
            f"--loss-threshold={architecture.loss_threshold:g} cannot be combined with "
            "--loss-function=bce_logits, which does not use the predicted probabilities"
        )
    if model.loss_weights != (1.0, 1.0) and model.loss != "wbce":
        raise UsageError("--loss-weights requires --loss-function=wbce")


def _check_training(settings: Settings) -> None:
    training, schedule = settings.training, settings.training.schedule
    if training.optimizer not in ("adagrad", "rwsadagrad") and "adagrad_epsilon" in settings.given:
        raise UsageError(
            f"--adagrad-epsilon={training.adagrad_epsilon:g} requires --optimizer=adagrad or rwsadagrad"
        )
    if schedule.decay_steps > 0 and schedule.decay_start_step < schedule.warmup_steps:
        raise UsageError(
            f"--lr-decay-start-step={schedule.decay_start_step}: must be at least --lr-num-warmup-steps="
            f"{schedule.warmup_steps}, because the decay starts after the warm-up"
        )
    for flag, value in (
        ("--mlperf-acc-threshold", training.accuracy_threshold),
        ("--mlperf-auc-threshold", training.auc_threshold),
    ):
        if value > 0 and training.test_freq == 0:
            raise UsageError(
                f"--test-freq=0: {flag}={value:g} needs evaluations; omit --test-freq or pass a number"
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
            raise UsageError(f"{name} requires --data-generation=dataset: generated data has no test split")


def _check_saving(settings: Settings) -> None:
    path, training = settings.save_model, settings.training
    _check_folder(settings)
    _check_test_freq(settings)
    if path is None:
        if settings.loads_latest:
            raise UsageError(
                f"--load-model={LATEST} requires --save-model, which it loads; to load a file of that name, "
                "pass its absolute path"
            )
        return
    # The run first compares the file with its inputs, and knows whether its engine saves a folder.
    if not os.path.islink(path) and not os.path.isdir(path):
        require_writable_file("--save-model", path)
    if settings.inference_only:
        raise UsageError("--save-model cannot be used with --inference-only, because nothing is trained")
    if not training.evaluates:
        raise UsageError(
            "--save-model requires --test-freq of at least 1 or a threshold: the model is saved when its test "
            "metric improves"
        )


def _check_folder(settings: Settings) -> None:
    """Refuse flags that need the folder of a run, or a training."""
    run = settings.run
    for flag, is_set, why in (
        ("--resume", run.resume, "whose run it continues"),
        ("--checkpoint-every", run.checkpoint_minutes is not None, "in which it saves last.pt"),
    ):
        if is_set and run.output_dir is None:
            raise UsageError(f"{flag} requires --output-dir, {why}")
        if is_set and settings.inference_only:
            raise UsageError(f"{flag} cannot be used with --inference-only, because nothing is trained")


def _check_test_freq(settings: Settings) -> None:
    """Refuse evaluations with pending gradients if the model is saved after them."""
    training = settings.training
    flag = "--output-dir" if settings.keeps_best_model else "--save-model"
    if not settings.keeps_best_model and settings.save_model is None:
        return
    if training.test_freq > 0 and training.test_freq % training.accumulate:
        raise UsageError(
            f"--test-freq={training.test_freq}: with {flag} it must be a multiple of "
            f"--mlperf-grad-accum-iter={training.accumulate}, so that no gradients are pending at a save"
        )


def _check_data(settings: Settings) -> None:
    data = settings.data
    if data.generation != "dataset":
        for name, path in (
            ("--raw-data-file", data.raw_data_file),
            ("--processed-data-file", data.processed_data_file),
            ("--columns", data.columns),
            ("--ids-from", data.ids_from),
        ):
            if path is not None:
                raise UsageError(f"{name}={path} requires --data-generation=dataset")
        if settings.model.architecture.mlp_bot[0] == 0:
            raise UsageError(
                f"--arch-mlp-bot starts with 0, but --data-generation={data.generation} has dense features"
            )
        for flag, value in changed_flags(data.multi_hot):
            raise UsageError(f"{flag.name}={flag.kind.show(value)} requires --data-generation=dataset")
        if data.verify:
            raise UsageError("--verify-data requires --data-generation=dataset: generated data has no checksums")
        return
    if data.raw_data_file is None and data.processed_data_file is None:
        raise UsageError("--data-generation=dataset requires --raw-data-file or --processed-data-file")
    _check_columns(data)
    if data.traits.has_columns_file:
        _check_one_hot(data)
        return
    _check_multi_hot(data.multi_hot)
    dense_features = settings.model.architecture.mlp_bot[0]
    if dense_features != DENSE_FEATURES:
        raise UsageError(
            f"--arch-mlp-bot starts with {dense_features}, but Criteo data has {DENSE_FEATURES} dense features; "
            f"other data needs --data-set={COLUMNS.name}"
        )


def _check_columns(data: DatasetSettings) -> None:
    """Refuse flags of the other data sets. The architecture is compared with the columns when they are known."""
    if data.days is not None and not data.traits.has_days:
        raise UsageError(
            f"--days={DAYS.show(data.days)} cannot be combined with --data-set={data.data_set}: its "
            "text has no files for days"
        )
    if not data.traits.has_columns_file:
        if data.columns is not None:
            raise UsageError(f"--columns={data.columns} requires --data-set={COLUMNS.name}")
        return
    if data.max_ind_range > 0:
        raise UsageError(
            f"--max-ind-range={data.max_ind_range} cannot be combined with --data-set={data.data_set}, whose "
            "tables have a row for each id"
        )
    if data.randomize == "day":
        raise UsageError(
            f"--data-randomize=day cannot be combined with --data-set={data.data_set}, whose text has no days; "
            "allowed are total and none"
        )


def _check_one_hot(data: DataSettings) -> None:
    """Refuse flags that expand the ids of Criteo's data sets."""
    for flag, value in changed_flags(data.multi_hot):
        raise UsageError(
            f"{flag.name}={flag.kind.show(value)} cannot be combined with --data-set={data.data_set}, whose "
            "columns say how many ids they have"
        )


def _check_multi_hot(multi_hot: MultiHotSettings) -> None:
    if multi_hot.sizes is None:
        for flag, value in changed_flags(multi_hot):
            raise UsageError(f"{flag.name}={flag.kind.show(value)} requires --multi-hot-sizes")
    elif len(multi_hot.sizes) != TABLES:
        raise UsageError(
            f"--multi-hot-sizes has {len(multi_hot.sizes)} numbers, but Criteo data has {TABLES} tables"
        )


def _check_generated_data(settings: Settings) -> None:
    generation, generated, ids = settings.data.generation, settings.data.generated, settings.data.generated.ids
    if generation != "synthetic":
        if "data_trace_file" in settings.given:
            raise UsageError(f"--data-trace-file={generated.trace_file} requires --data-generation=synthetic")
        if generated.trace_padding:
            raise UsageError("--data-trace-enable-padding requires --data-generation=synthetic")
    if ids.kind != "gaussian":
        for flag, value in changed_flags(ids):
            raise UsageError(f"{flag.name}={value:g} requires --rand-data-dist=gaussian")
        return
    if generation != "random":
        raise UsageError("--rand-data-dist=gaussian requires --data-generation=random")
    if ids.minimum > ids.maximum:
        raise UsageError(f"--rand-data-min={ids.minimum:g}: must be at most --rand-data-max={ids.maximum:g}")


def _check_inference(settings: Settings) -> None:
    quantization, report = settings.quantization, settings.report
    _check_load_weights(settings)
    if settings.split != "test" and not settings.inference_only:
        raise UsageError(f"--split={settings.split} requires --inference-only: a training evaluates on test")
    for flag, value in changed_flags(settings.predictions):
        if not settings.inference_only:
            raise UsageError(f"{flag.name}={flag.kind.show(value)} requires --inference-only")
    _check_scored_text(settings)
    for flag, _ in changed_flags(quantization):
        if not settings.inference_only:
            raise UsageError(f"{flag.name} requires --inference-only: a quantized model cannot be trained")
        if report.save_onnx:
            raise UsageError(f"--save-onnx cannot be combined with {flag.name}: the export is not quantized")
    if settings.use_gpu and quantization.mlp_bits != 32:
        raise UsageError(
            f"--quantize-mlp-with-bit={quantization.mlp_bits}: PyTorch's dynamic quantization runs on the CPU "
            "only; leave out --use-gpu, or use --quantize-emb-with-bit"
        )
    if report.time_breakdown and report.profile:
        raise UsageError(
            "--time-breakdown cannot be combined with --enable-profiling, which slows the measured steps"
        )
    for name, is_set in (
        ("--debug-mode", report.debug),
        ("--enable-profiling", report.profile),
        ("--tensor-board-filename", report.tensor_board_folder is not None),
        ("--track", report.tracker is not None),
    ):
        if is_set and settings.inference_only:
            raise UsageError(f"{name} cannot be used with --inference-only, because it reports on the training")


def _check_scored_text(settings: Settings) -> None:
    text, data = settings.predictions.text, settings.data
    if text is None:
        return
    for flag, is_set, reason in (
        ("--load-model", settings.load_model is not None, "the model"),
        ("--processed-data-file", data.processed_data_file is not None, "whose numbers the ids get"),
    ):
        if not is_set:
            raise UsageError(f"--score-text={text} requires {flag}, {reason}")
    for flag, is_set, reason in (
        (f"--split={settings.split}", "split" in settings.given, "which is scored in place of a split"),
        ("--verify-data", data.verify, "which reads no split"),
        ("--save-onnx", settings.report.save_onnx, "which scores only"),
        ("--metrics-file", settings.report.metrics_file is not None, "which evaluates no split"),
        ("--plot-compute-graph", settings.report.plot_compute_graph, "which scores only"),
        ("--time-breakdown", settings.report.time_breakdown, "whose parts are not measured"),
        ("--dry-run", settings.run.dry_run, "whose number of rows is not known"),
    ):
        if is_set:
            raise UsageError(f"{flag} cannot be combined with --score-text={text}, {reason}")


def _check_load_weights(settings: Settings) -> None:
    architecture, path = settings.model.architecture, settings.load_weights
    if path is None:
        return
    arrays = path.suffix == ".npz"
    for flag, is_set, reason in (
        ("--load-model", settings.load_model is not None, "which loads all weights"),
        (
            "--weighted-pooling",
            arrays and architecture.weighted_pooling is not None,
            "whose weights the file does not have",
        ),
        (
            "--qr-flag or --md-flag",
            arrays and architecture.compression is not None,
            "whose tables the file does not have",
        ),
    ):
        if is_set:
            raise UsageError(f"--load-weights={path} cannot be combined with {flag}, {reason}")


def _check_log(settings: Settings) -> None:
    """Refuse the edition of another benchmark, and the entries and the path of a log that is not written."""
    interaction = settings.model.architecture.interaction_op
    benchmark = benchmark_with(interaction)
    if settings.edition.benchmark is not benchmark:
        raise UsageError(
            f"--mlperf-edition={settings.edition.name} includes {settings.edition.benchmark.name}, but "
            f"--arch-interaction-op={interaction} belongs to {benchmark.name}: allowed are "
            f"{', '.join(edition.name for edition in editions_of(benchmark))}"
        )
    if settings.compliance.enabled:
        return
    for flag, value in changed_flags(settings.compliance):
        if flag.key == "mlperf_edition" and settings.training.has_target:  # determines when to evaluate
            continue
        raise UsageError(f"{flag.name}={flag.kind.show(value)} requires --mlperf-logging")
