"""From flags to a run: settings validated in one place."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from mlperf.cli.flags import make_parser
from mlperf.cli.program import program_name, run_program
from mlperf.settings.settings import (
    CompressionSettings,
    DataSettings,
    ModelSettings,
    QuantizationSettings,
    ReportSettings,
    Settings,
    TrainingSettings,
)
from mlperf.util.errors import UsageError

EXIT_TARGET_MISSED = 3
DEFAULT_TRACE_FILE = Path("./input/dist_emb_j.log")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 0 done, 1 failed, 2 wrong call, 3 target not reached."""

    def work() -> int:
        settings = parse(arguments)
        from mlperf.run.benchmark import run
        from mlperf.training.events import Outcome

        return 0 if run(settings) is Outcome.SUCCESS else EXIT_TARGET_MISSED

    return run_program(program_name("dlrm_s_pytorch.py"), work)


def parse(arguments: Sequence[str] | None) -> Settings:
    """Return the settings that the flags ask for. UsageError if they are wrong or contradict each other."""
    flags = make_parser().parse_args(arguments)
    _refuse_private_loader(flags)
    _check_environment()
    _check_precision(flags)
    _check_model(flags)
    _check_compression(flags)
    _check_training(flags)
    _check_data(flags)
    _check_made_up_data(flags)
    _check_reports(flags)
    return _settings(flags)


def _refuse_private_loader(flags: argparse.Namespace) -> None:
    if flags.data_generation == "internal":
        raise UsageError(
            "--data-generation=internal: names a private loader of the first authors that was never "
            "published; allowed: random, synthetic, dataset"
        )


def _check_made_up_data(flags: argparse.Namespace) -> None:
    synthetic = flags.data_generation == "synthetic"
    if flags.data_trace_file is not None and not synthetic:
        raise UsageError(f"--data-trace-file={flags.data_trace_file}: only with --data-generation=synthetic")
    if flags.data_trace_enable_padding and not synthetic:
        raise UsageError("--data-trace-enable-padding: only with --data-generation=synthetic")


def _check_environment() -> None:
    world_size = os.environ.get("WORLD_SIZE", "1")
    if world_size not in ("", "1"):
        raise UsageError(f"WORLD_SIZE={world_size}: one process only, there is no distributed engine yet")


def _check_precision(flags: argparse.Namespace) -> None:
    if flags.precision == "tf32" and not flags.use_gpu:
        raise UsageError("--precision=tf32: only with --use-gpu, CPUs have no such products; allowed: fp32, bf16")
    if flags.precision != "fp32" and (flags.quantize_mlp_with_bit != 32 or flags.quantize_emb_with_bit != 32):
        raise UsageError(
            f"--precision={flags.precision}: not together with quantization, which is compared with fp32"
        )


def _check_model(flags: argparse.Namespace) -> None:
    dimension = flags.arch_sparse_feature_size
    if flags.qr_flag and flags.qr_operation == "concat":
        if flags.arch_mlp_bot[-1] != 2 * dimension:
            raise UsageError(
                f"--arch-mlp-bot ends in {flags.arch_mlp_bot[-1]}: with --qr-operation=concat it must end in "
                f"{2 * dimension}, twice --arch-sparse-feature-size"
            )
    elif flags.arch_mlp_bot[-1] != dimension:
        raise UsageError(
            f"--arch-mlp-bot ends in {flags.arch_mlp_bot[-1]}: it must end in "
            f"--arch-sparse-feature-size={dimension}"
        )
    if len(flags.arch_mlp_bot) < 2:
        raise UsageError(f"--arch-mlp-bot={flags.arch_mlp_bot[0]}: at least two widths, as in 4-3-2")
    if flags.arch_mlp_top[-1] != 1:
        raise UsageError(f"--arch-mlp-top ends in {flags.arch_mlp_top[-1]}: allowed is 1, a probability")
    if flags.arch_interaction_itself and flags.arch_interaction_op != "dot":
        raise UsageError("--arch-interaction-itself: only with --arch-interaction-op=dot")
    if flags.loss_weights != (1.0, 1.0) and flags.loss_function != "wbce":
        raise UsageError("--loss-weights: only with --loss-function=wbce")


def _check_compression(flags: argparse.Namespace) -> None:
    if flags.qr_flag and flags.md_flag:
        raise UsageError("--md-flag: not together with --qr-flag, a table is compressed in one way")
    for name, value, default, on, switch in (
        ("--qr-threshold", flags.qr_threshold, 200, flags.qr_flag, "--qr-flag"),
        ("--qr-operation", flags.qr_operation, "mult", flags.qr_flag, "--qr-flag"),
        ("--qr-collisions", flags.qr_collisions, 4, flags.qr_flag, "--qr-flag"),
        ("--md-threshold", flags.md_threshold, 200, flags.md_flag, "--md-flag"),
        ("--md-temperature", flags.md_temperature, 0.3, flags.md_flag, "--md-flag"),
        ("--md-round-dims", flags.md_round_dims, False, flags.md_flag, "--md-flag"),
    ):
        if value != default and not on:
            raise UsageError(f"{name}: only with {switch}")


def _check_reports(flags: argparse.Namespace) -> None:
    quantizes = flags.quantize_mlp_with_bit != 32 or flags.quantize_emb_with_bit != 32
    name = "--quantize-mlp-with-bit" if flags.quantize_mlp_with_bit != 32 else "--quantize-emb-with-bit"
    if quantizes and not flags.inference_only:
        raise UsageError(f"{name}: only with --inference-only, the quantized model cannot be trained")
    if quantizes and flags.save_onnx:
        raise UsageError(f"--save-onnx: not together with {name}, the exported model is not quantized")
    for name, given in (
        ("--debug-mode", flags.debug_mode),
        ("--enable-profiling", flags.enable_profiling),
        ("--tensor-board-filename", flags.tensor_board_filename is not None),
    ):
        if given and flags.inference_only:
            raise UsageError(f"{name}: not together with --inference-only, it shows the training")


def _check_training(flags: argparse.Namespace) -> None:
    if flags.lr_num_decay_steps > 0 and flags.lr_decay_start_step < flags.lr_num_warmup_steps:
        raise UsageError(
            f"--lr-decay-start-step={flags.lr_decay_start_step}: at least --lr-num-warmup-steps="
            f"{flags.lr_num_warmup_steps}, the decay cannot begin before the warm-up ends"
        )
    evaluates = flags.test_freq > 0 or flags.mlperf_acc_threshold > 0 or flags.mlperf_auc_threshold > 0
    if flags.data_generation != "dataset":
        for name, given in (
            ("--inference-only", flags.inference_only),
            ("--test-freq", flags.test_freq > 0),
            ("--mlperf-acc-threshold", flags.mlperf_acc_threshold > 0),
            ("--mlperf-auc-threshold", flags.mlperf_auc_threshold > 0),
            ("--mlperf-logging", flags.mlperf_logging),
            ("--save-model", flags.save_model is not None),
        ):
            if given:
                raise UsageError(f"{name}: needs --data-generation=dataset, random data has no test split")
    if flags.save_model is not None and not flags.save_model.parent.is_dir():
        raise UsageError(f"--save-model={flags.save_model}: there is no folder {flags.save_model.parent}")
    if flags.save_model is not None and flags.save_model.is_dir():
        raise UsageError(f"--save-model={flags.save_model}: a folder; allowed is the name of a file")
    if flags.save_model is not None and not evaluates and not flags.inference_only:
        raise UsageError("--save-model: needs --test-freq, the model is saved when its test metric improves")
    if flags.save_model is not None and flags.test_freq > 0 and flags.test_freq % flags.mlperf_grad_accum_iter:
        raise UsageError(
            f"--test-freq={flags.test_freq}: a multiple of --mlperf-grad-accum-iter="
            f"{flags.mlperf_grad_accum_iter} with --save-model, so that no gradients wait when it saves"
        )


def _check_data(flags: argparse.Namespace) -> None:
    if flags.numpy_rand_seed > 2**32 - 1:
        raise UsageError(f"--numpy-rand-seed={flags.numpy_rand_seed}: allowed is 0 to {2**32 - 1}")
    if flags.data_generation != "dataset":
        for name, value in (
            ("--raw-data-file", flags.raw_data_file),
            ("--processed-data-file", flags.processed_data_file),
        ):
            if value is not None:
                raise UsageError(f"{name}={value}: needs --data-generation=dataset")
        return
    if flags.raw_data_file is None and flags.processed_data_file is None:
        raise UsageError("--data-generation=dataset: needs --raw-data-file or --processed-data-file")
    if flags.arch_mlp_bot[0] != 13:
        raise UsageError(f"--arch-mlp-bot begins with {flags.arch_mlp_bot[0]}: Criteo data has 13 dense features")


def _compression(flags: argparse.Namespace) -> CompressionSettings | None:
    if not (flags.qr_flag or flags.md_flag):
        return None
    return CompressionSettings(
        kind="quotient-remainder" if flags.qr_flag else "mixed-dimension",
        threshold=flags.qr_threshold if flags.qr_flag else flags.md_threshold,
        operation=flags.qr_operation,
        collisions=flags.qr_collisions,
        temperature=flags.md_temperature,
        round_dimensions=flags.md_round_dims,
    )


def _gaussian(flags: argparse.Namespace) -> tuple[float, float, float, float] | None:
    least, most, mean = flags.rand_data_min, flags.rand_data_max, flags.rand_data_mu
    if flags.rand_data_dist != "gaussian":
        for name, value, default in (
            ("--rand-data-min", least, 0.0),
            ("--rand-data-max", most, 1.0),
            ("--rand-data-mu", mean, -1.0),
            ("--rand-data-sigma", flags.rand_data_sigma, 1.0),
        ):
            if value != default:
                raise UsageError(f"{name}={value:g}: only with --rand-data-dist=gaussian")
        return None
    if flags.data_generation != "random":
        raise UsageError("--rand-data-dist=gaussian: only with --data-generation=random")
    if least > most:
        raise UsageError(f"--rand-data-min={least:g}: allowed is at most --rand-data-max={most:g}")
    return (least + most) / 2 if mean == -1 else mean, flags.rand_data_sigma, least, most


def _readers(asked: int, use_gpu: bool) -> int:
    """A GPU evaluates more rows than one thread copies out of the page cache."""
    return asked or (4 if use_gpu else 1)


def _settings(flags: argparse.Namespace) -> Settings:
    test_batch_size = flags.test_mini_batch_size if flags.test_mini_batch_size > 0 else flags.mini_batch_size
    readers = _readers(flags.num_workers, flags.use_gpu)
    test_readers = readers if flags.test_num_workers < 0 else _readers(flags.test_num_workers, flags.use_gpu)
    has_threshold = flags.mlperf_acc_threshold > 0 or flags.mlperf_auc_threshold > 0
    mlp_init = flags.mlp_init
    if mlp_init == "auto":
        mlp_init = "normal" if flags.data_generation == "dataset" else "uniform"
    return Settings(
        seed=flags.numpy_rand_seed,
        use_gpu=flags.use_gpu,
        precision=flags.precision,
        inference_only=flags.inference_only,
        load_model=flags.load_model,
        data=DataSettings(
            generation=flags.data_generation,
            data_set=flags.data_set,
            write_npz=flags.data_set == "kaggle" and not flags.mlperf_bin_loader,
            raw_data_file=flags.raw_data_file,
            processed_data_file=flags.processed_data_file,
            randomize=flags.data_randomize,
            max_ind_range=flags.max_ind_range,
            sub_sample_rate=flags.data_sub_sample_rate,
            batch_size=flags.mini_batch_size,
            test_batch_size=test_batch_size,
            readers=readers,
            test_readers=test_readers,
            shuffle_batches=flags.mlperf_bin_shuffle,
            data_size=flags.data_size,
            num_batches=flags.num_batches,
            lookups=flags.num_indices_per_lookup,
            lookups_fixed=flags.num_indices_per_lookup_fixed,
            round_targets=flags.round_targets,
            gaussian=_gaussian(flags),
            trace_file=flags.data_trace_file or DEFAULT_TRACE_FILE,
            trace_padding=flags.data_trace_enable_padding,
        ),
        model=ModelSettings(
            embedding_rows=flags.arch_embedding_size,
            dimension=flags.arch_sparse_feature_size,
            mlp_bot=flags.arch_mlp_bot,
            mlp_top=flags.arch_mlp_top,
            interaction_op=flags.arch_interaction_op,
            interaction_itself=flags.arch_interaction_itself,
            activation=flags.activation_function,
            weighted_pooling=flags.weighted_pooling,
            compression=_compression(flags),
            mlp_init=mlp_init,
            embedding_init=flags.embedding_init,
            loss=flags.loss_function,
            loss_weights=flags.loss_weights,
            loss_threshold=flags.loss_threshold,
        ),
        training=TrainingSettings(
            epochs=flags.nepochs,
            optimizer=flags.optimizer,
            learning_rate=flags.learning_rate,
            warmup_steps=flags.lr_num_warmup_steps,
            decay_start_step=flags.lr_decay_start_step,
            decay_steps=flags.lr_num_decay_steps,
            accumulate=flags.mlperf_grad_accum_iter,
            test_frequency=flags.test_freq if flags.test_freq > 0 else (None if has_threshold else 0),
            accuracy_threshold=flags.mlperf_acc_threshold,
            auc_threshold=flags.mlperf_auc_threshold,
        ),
        report=ReportSettings(
            print_frequency=flags.print_freq,
            print_time=flags.print_time,
            print_wall_time=flags.print_wall_time,
            all_metrics=flags.mlperf_logging,
            log_file=flags.mlperf_log_file,
            edition=flags.mlperf_edition,
            division=flags.mlperf_division,
            status=flags.mlperf_status,
            submitter=flags.mlperf_submitter,
            platform=flags.mlperf_platform,
            cache_cleared=flags.mlperf_cache_cleared,
            save_model=flags.save_model,
            debug=flags.debug_mode,
            print_precision=flags.print_precision,
            profile=flags.enable_profiling,
            plot_compute_graph=flags.plot_compute_graph,
            tensor_board_folder=flags.tensor_board_filename,
            save_onnx=flags.save_onnx,
        ),
        quantization=QuantizationSettings(flags.quantize_mlp_with_bit, flags.quantize_emb_with_bit),
    )
