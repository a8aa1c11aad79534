"""Choice of the engine, and the log line about it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from program import GOLDEN
from small_models import CPU, make_batch, make_model

from mlperf.cli.train import parse
from mlperf.engines.choose import choose_engine, make_scorer, make_step
from mlperf.engines.requested import check_engine
from mlperf.engines.torchrec.supported import unsupported_setting
from mlperf.models.dlrm import Architecture, DLRM_Net
from mlperf.optim.optimizer import make_optimizer
from mlperf.registry import OPTIMIZERS
from mlperf.settings.kinds import MAX_INT32
from mlperf.settings.model import EMBEDDING_PRECISIONS
from mlperf.settings.settings import Settings
from mlperf.util.errors import UsageError

DATA_SET = ("--data-generation=dataset", "--data-set=terabyte", f"--raw-data-file={GOLDEN}/terabyte/day")
SIZES: dict[str, object] = {"rows_per_table": (2, 3), "dimension": 4, "mlp_bot": (13, 4), "mlp_top": (3, 1)}
FAST = {"cpu": "engine: cpu (fused loops and oneDNN products)"}
FAST["gpu"] = "engine: gpu (Triton kernels, each step replayed as a CUDA graph)"


def settings_of(*flags: str) -> Settings:
    return parse([*DATA_SET, "--arch-mlp-bot=13-4-2", *flags])


def architecture_of(**changes: object) -> Architecture:
    return Architecture(**{**SIZES, **changes})  # type: ignore[arg-type]


def model_of(**changes: object) -> DLRM_Net:
    return DLRM_Net(architecture_of(**changes), CPU)


@pytest.fixture
def chosen(caplog: pytest.LogCaptureFixture) -> Callable[[DLRM_Net, Settings], str]:
    """Return a function that chooses an engine and returns the one line it logs."""
    caplog.set_level(logging.INFO)

    def choose(model: DLRM_Net, settings: Settings) -> str:
        caplog.clear()
        choose_engine(model, settings)
        assert len(caplog.messages) == 1
        assert "\n" not in caplog.messages[0]
        return caplog.messages[0]

    return choose


Chosen = Callable[[DLRM_Net, Settings], str]


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_benchmark_model_runs_on_the_fast_engine(chosen: Chosen, device: str) -> None:
    flags = ["--use-gpu"] if device == "gpu" else []
    assert chosen(model_of(), settings_of(*flags)) == FAST[device]


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("--mlperf-grad-accum-iter=2", "--mlperf-grad-accum-iter=2 is not supported by the cpu and gpu engines"),
    ],
)
def test_unsupported_setting_is_named(chosen: Chosen, flags: str, reason: str, device: str) -> None:
    settings = settings_of(*flags.split(), *(["--use-gpu"] if device == "gpu" else []))
    assert chosen(model_of(), settings) == f"engine: autograd on the {device.upper()}, because {reason}"


@pytest.mark.parametrize(
    "flags", ["--quantize-emb-with-bit=8", "--quantize-emb-with-bit=4 --quantize-mlp-with-bit=8"]
)
def test_quantized_model_runs_on_the_fast_engine_of_the_cpu(chosen: Chosen, flags: str) -> None:
    settings = settings_of("--inference-only", *flags.split())
    assert chosen(model_of(mlp_top=(256, 256, 1)), settings) == FAST["cpu"]


def test_small_mlps_in_8_bits_keep_the_published_metrics(chosen: Chosen) -> None:
    flags = ("--inference-only", "--quantize-mlp-with-bit=8")
    reason = "--quantize-mlp-with-bit=8 reproduces published metrics of models with fewer than 65,536 MLP weights"
    assert chosen(model_of(), settings_of(*flags)) == f"engine: autograd on the CPU, because {reason}"
    assert chosen(model_of(), settings_of(*flags, "--engine=cpu")).startswith(FAST["cpu"])
    assert chosen(model_of(), settings_of(*flags, "--data-set=columns")) == FAST["cpu"]
    assert chosen(model_of(), settings_of("--inference-only", "--quantize-mlp-with-bit=16")) == FAST["cpu"]


def test_quantized_tables_on_a_gpu_need_the_general_engine(chosen: Chosen) -> None:
    settings = settings_of("--inference-only", "--use-gpu", "--quantize-emb-with-bit=8")
    reason = "quantized weights need PyTorch's own operators"
    assert chosen(model_of(), settings) == f"engine: autograd on the GPU, because {reason}"


@pytest.mark.parametrize("optimizer", ["adagrad", "rwsadagrad"])
def test_adagrad_of_small_float32_models_keeps_the_order_of_published_losses(
    chosen: Chosen, optimizer: str
) -> None:
    settings = settings_of(f"--optimizer={optimizer}")
    reason = (
        f"--optimizer={optimizer} in fp32 reproduces published losses of models with fewer than 65,536 MLP weights"
    )
    assert chosen(model_of(), settings) == f"engine: autograd on the CPU, because {reason}"
    assert chosen(model_of(mlp_top=(256, 256, 1)), settings) == FAST["cpu"]
    assert chosen(model_of(embedding_precision="bf16"), settings) == FAST["cpu"]
    assert chosen(model_of(), settings_of(f"--optimizer={optimizer}", "--precision=bf16")) == FAST["cpu"]


def test_random_data_is_trained_with_autograd(chosen: Chosen) -> None:
    line = chosen(model_of(), parse(["--arch-embedding-size=2-3"]))
    reason = "--data-generation=random can have several ids per table and sample"
    assert line == f"engine: autograd on the CPU, because {reason}"


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"interaction_op": "cat"}, "--arch-interaction-op=cat"),
        ({"activation": "tanh"}, "--activation-function=tanh"),
        ({"weighted_pooling": "learned"}, "--weighted-pooling=learned"),
        ({"rows_per_table": (2,) * 33}, "33 tables exceed the limit"),
    ],
)
def test_unsupported_model_is_named(chosen: Chosen, change: dict[str, object], named: str, device: str) -> None:
    settings = settings_of(*(["--use-gpu"] if device == "gpu" else []))
    line = chosen(model_of(**change), settings)
    assert line.startswith(f"engine: autograd on the {device.upper()}, because {named}")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rows_per_table": (2,) * 32}, "32 tables exceed the limit of 31"),
        ({"dimension": 257, "mlp_bot": (13, 257)}, "--arch-sparse-feature-size=257 exceeds the limit of 256"),
        ({"mlp_top": (2000, 1)}, "2000 inputs of the last layer exceed the limit of 1024"),
    ],
)
def test_sizes_above_the_kernel_limits_are_named(chosen: Chosen, change: dict[str, object], named: str) -> None:
    model = model_of(**change)
    assert named in chosen(model, settings_of("--use-gpu"))
    assert chosen(model, settings_of()) == FAST["cpu"]


def test_training_only_requirements_do_not_affect_evaluation(chosen: Chosen) -> None:
    assert chosen(model_of(), settings_of("--inference-only", "--optimizer=adagrad")) == FAST["cpu"]


def test_autograd_is_used_on_a_gpu_without_triton(chosen: Chosen, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("limits", "triton_support"):
        monkeypatch.setitem(sys.modules, f"mlperf.engines.gpu.{name}", None)
        monkeypatch.delattr(f"mlperf.engines.gpu.{name}", raising=False)
    line = chosen(model_of(), settings_of("--use-gpu"))
    assert line.startswith(
        "engine: autograd on the GPU, because the faster gpu engine needs Triton, a part of PyTorch's CUDA build, "
        "and a C compiler: "
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton finds the GPU")
def test_autograd_is_used_where_triton_cannot_launch(chosen: Chosen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    assert chosen(model_of(), settings_of("--use-gpu")).endswith(
        "and a C compiler: 0 active drivers ([]). There should only be one."
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
def test_precision_reaches_step_and_scorer_of_every_engine(optimizer: str) -> None:
    batch = make_batch(64, (2, 3), np.random.default_rng(0))
    losses, scores = set(), set()
    for precision in ("fp32", "bf16"):
        settings = settings_of(f"--optimizer={optimizer}", f"--precision={precision}")
        model = make_model(architecture_of())
        scores.add(float(make_scorer(model, settings).score(batch)[0].double().sum()))
        step = make_step(model, settings, make_optimizer(optimizer, model))
        step.train(batch, 0.1)
        losses.add(float(step.sums.loss))
    assert len(losses) == len(scores) == 2


def test_loss_and_its_weights_reach_the_step() -> None:
    batch = make_batch(64, (2, 3), np.random.default_rng(0))
    losses = []
    for flags in ("--loss-function=mse", "--loss-function=bce", "--loss-function=wbce --loss-weights=2-2"):
        model = make_model(architecture_of())
        step = make_step(model, settings_of(*flags.split()), make_optimizer("sgd", model))
        step.train(batch, 0.1)
        losses.append(float(step.sums.loss))
    assert losses[0] < losses[1]
    assert losses[2] == pytest.approx(2 * losses[1])


@pytest.mark.parametrize(("optimizer", "expected"), [("adagrad", "AVX2"), ("rwsadagrad", "AVX2"), ("sgd", None)])
def test_adagrad_uses_the_published_summation_order_on_intel_processors(
    optimizer: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MKL_CBWR", "")  # so that monkeypatch restores it
    monkeypatch.delenv("MKL_CBWR")
    monkeypatch.setattr(Path, "read_text", lambda path: "vendor_id : GenuineIntel")
    model = model_of()
    make_step(model, settings_of(f"--optimizer={optimizer}"), make_optimizer(optimizer, model))
    assert os.environ.get("MKL_CBWR") == expected


@pytest.mark.parametrize("precision", EMBEDDING_PRECISIONS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_gpu_engine_supports_all_optimizers_and_precisions_of_tables(
    chosen: Chosen, optimizer: str, precision: str
) -> None:
    settings = settings_of("--use-gpu", f"--optimizer={optimizer}")
    assert chosen(model_of(embedding_precision=precision), settings) == FAST["gpu"]


@pytest.mark.parametrize("engine", ["cpu", "autograd"])
def test_engine_of_the_flag_is_chosen(chosen: Chosen, engine: str) -> None:
    description = {"cpu": FAST["cpu"], "autograd": "engine: autograd"}[engine]
    assert chosen(model_of(), settings_of(f"--engine={engine}")) == f"{description}, chosen by --engine={engine}"


def test_engine_of_the_flag_need_not_reproduce_published_losses(chosen: Chosen) -> None:
    line = chosen(model_of(), settings_of("--engine=cpu", "--optimizer=adagrad"))
    assert line == f"{FAST['cpu']}, chosen by --engine=cpu"


def test_engine_of_the_flag_is_refused_if_it_does_not_support_the_run() -> None:
    with pytest.raises(UsageError, match=r"^--engine=cpu: --activation-function=tanh is not supported by the cpu"):
        choose_engine(model_of(activation="tanh"), settings_of("--engine=cpu"))
    with pytest.raises(UsageError, match=r"^--engine=cpu: --data-generation=random can have several ids"):
        choose_engine(model_of(), parse(["--arch-embedding-size=2-3", "--engine=cpu"]))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--engine=gpu", "--engine=gpu requires --use-gpu"),
        ("--engine=cpu --use-gpu", "--engine=cpu cannot be combined with --use-gpu"),
        (
            "--engine=torchrec --dist-backend=nccl",
            "--dist-backend=nccl requires --use-gpu: NCCL connects GPUs; use gloo on CPUs",
        ),
        (
            "--engine=torchrec --use-gpu --dist-backend=gloo",
            "--dist-backend=gloo cannot be combined with --use-gpu: it exchanges rows on CPUs",
        ),
    ],
)
def test_engine_and_backend_of_the_other_device_are_refused(flags: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        settings_of(*flags.split())
    assert str(raised.value) == message


@pytest.mark.parametrize("engine", ["cpu", "autograd"])
def test_engine_of_one_process_is_refused_for_several(engine: str) -> None:
    check_engine(settings_of(f"--engine={engine}"), 1)
    message = f"--engine={engine} runs on one process, but 3 were started; omit the flag, or pass torchrec"
    with pytest.raises(UsageError) as raised:
        check_engine(settings_of(f"--engine={engine}"), 3)
    assert str(raised.value) == message


@pytest.mark.parametrize("flag", ["--sharding=row-wise", "--sharding-constraints=plan.json"])
def test_flags_of_several_processes_are_refused_for_one(
    flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plan.json").write_text("{}")
    message = f"{flag} requires several processes or --engine=torchrec"
    for engine in ("auto", "cpu", "autograd"):
        with pytest.raises(UsageError) as raised:
            check_engine(settings_of(flag, f"--engine={engine}"), 1)
        assert str(raised.value) == message
    size = ("--arch-mlp-bot=13-4", "--arch-sparse-feature-size=4")
    check_engine(settings_of(*size, flag), 2)
    check_engine(settings_of(*size, flag, "--engine=torchrec"), 1)


@pytest.mark.parametrize("flags", ["--dist-backend=", "--dist-backend=gloo", "--dist-backend=nccl --use-gpu"])
def test_scripts_that_name_the_backend_also_run_one_process(flags: str) -> None:
    settings = settings_of(*flags.split())
    check_engine(settings, 1)
    assert settings.processes.backend_for(use_gpu=settings.use_gpu) == ("nccl" if settings.use_gpu else "gloo")


def test_ids_of_a_batch_that_32_bits_cannot_number_are_refused_by_torchrec() -> None:
    def reason(*flags: str) -> str | None:
        return unsupported_setting(settings_of("--arch-mlp-bot=13-4", "--arch-sparse-feature-size=4", *flags))

    largest = MAX_INT32 // 26
    assert reason(f"--mini-batch-size={largest}") is None
    for flag in ("--mini-batch-size", "--test-mini-batch-size"):
        refused = reason(f"{flag}={largest + 1}")
        assert refused is not None
        assert refused.startswith(f"{flag}={largest + 1} is not supported by several processes and --engine=")
    several = ("--arch-interaction-op=dcn", f"--multi-hot-sizes={'-'.join(['10'] * 26)}")
    assert reason(f"--mini-batch-size={MAX_INT32 // 260}", *several) is None
    assert reason(f"--mini-batch-size={MAX_INT32 // 260 + 1}", *several) is not None
