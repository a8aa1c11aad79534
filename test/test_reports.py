"""Reports in formats of other tools: profile, TensorBoard, compute graph, ONNX."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from dlrm_models import COMPRESSIONS, make_batch, make_model
from program import GOLDEN, golden_flags, run_program
from small_models import make_batch as make_small_batch
from small_models import make_model as make_small_model
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlperf.engines.choose import make_step
from mlperf.export.onnx import save_onnx
from mlperf.models.dlrm import Architecture
from mlperf.models.reference import ReferenceDLRM
from mlperf.optim.optimizer import make_optimizer
from mlperf.settings.from_flags import parse


@pytest.mark.parametrize(
    ("kind", "several", "op", "rows"),
    [
        *((kind, several, "dot", "fp32") for kind in COMPRESSIONS for several in (False, True)),
        ("none", False, "cat", "bf16"),
        ("none", True, "sum", "fp16"),
        ("none", True, "dcn", "bf16"),
        ("concat", False, "dcn", "fp32"),
    ],
)
def test_exported_model_predicts_the_same_at_any_batch_size(
    kind: str, several: bool, op: str, rows: str, tmp_path: Path
) -> None:
    pooling = "fixed" if kind == "md" else None
    model = make_model(kind, weighted_pooling=pooling, interaction_op=op, embedding_precision=rows)
    path = tmp_path / "model.onnx"
    save_onnx(model, path, multi_hot=several)
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path))
    for size in (1, 7, 64):
        batch = make_batch(size, several, size)
        with torch.no_grad():
            expected = model(batch).numpy()
        inputs = {name: value.numpy() for name, value in ReferenceDLRM.inputs(batch).items()}
        (found,) = session.run(None, inputs)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_save_onnx_exports_the_trained_model(terabyte: Path, tmp_path: Path) -> None:
    flags = golden_flags("sgd_inference", terabyte)
    run = run_program(*flags, f"--load-model={GOLDEN}/terabyte/sgd.pt", "--save-onnx", cwd=tmp_path)
    assert run.status == 0, run.stderr
    inputs = onnx.load(tmp_path / "dlrm_s_pytorch.onnx").graph.input
    assert [value.name for value in inputs] == ["dense", "indices"]
    assert inputs[0].type.tensor_type.shape.dim[0].dim_param
    trained = run_program("--data-size=8", "--mini-batch-size=2", "--save-onnx", cwd=tmp_path)
    assert trained.status == 0, trained.stderr
    names = [value.name for value in onnx.load(tmp_path / "dlrm_s_pytorch.onnx").graph.input]
    assert names == ["dense", "offsets", "indices_0", "indices_1", "indices_2"]


def test_tensorboard_contains_losses_and_test_metrics(terabyte: Path, tmp_path: Path) -> None:
    run = run_program(*golden_flags("sgd", terabyte), "--tensor-board-filename", cwd=tmp_path)
    assert run.status == 0, run.stderr
    events = EventAccumulator(str(tmp_path / "run_kaggle_pt"))
    events.Reload()
    assert [point.value for point in events.Scalars("Train/Loss")] == pytest.approx(run.losses, abs=1e-6)
    auc = events.Scalars("Test/AUC")
    assert [point.step for point in auc] == [5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55]
    assert auc[-1].value == pytest.approx(0.5398, abs=1e-4)
    assert "Test/Acc" in events.Tags()["scalars"]


def test_tensorboard_counts_the_iterations_of_all_epochs(tmp_path: Path) -> None:
    run = run_program(
        *("--data-size=6", "--mini-batch-size=2", "--nepochs=2", "--tensor-board-filename=curves"),
        "--lr-num-warmup-steps=2",
        cwd=tmp_path,
    )
    assert run.status == 0, run.stderr
    events = EventAccumulator(str(tmp_path / "curves"))
    events.Reload()
    assert [point.step for point in events.Scalars("Train/Loss")] == [1, 2, 3, 4, 5, 6]
    rates = [point.value for point in events.Scalars("Train/learning rate")]
    assert rates == pytest.approx([0.005, 0.01, 0.01, 0.01, 0.01, 0.01])
    (settings,) = events.Tensors("settings/text_summary")
    (text,) = settings.tensor_proto.string_val
    assert "| --lr-num-warmup-steps | 2 |" in text.decode().splitlines()
    assert "earlier run" not in run.stderr
    again = run_program("--data-size=6", "--tensor-board-filename=curves", cwd=tmp_path)
    assert "curves: has the curves of an earlier run" in again.stderr
    assert len(list((tmp_path / "curves").iterdir())) == 2


def test_file_is_no_folder_for_tensorboard(tmp_path: Path) -> None:
    (tmp_path / "curves").touch()
    run = run_program("--data-size=6", "--tensor-board-filename=curves", cwd=tmp_path)
    assert run.status == 2
    assert run.stderr == "dlrm_s_pytorch.py: error: --tensor-board-filename=curves is a file; must be a folder\n"


def test_profiling_writes_a_table_and_a_trace(tmp_path: Path) -> None:
    run = run_program("--data-size=300", "--mini-batch-size=2", "--enable-profiling", cwd=tmp_path)
    assert run.status == 0, run.stderr
    assert "profile of 100 steps" in run.stderr
    table = (tmp_path / "dlrm_s_pytorch.prof").read_text()
    assert "aten::index_select" in table
    assert "\n" + table in run.stderr
    trace = json.loads((tmp_path / "dlrm_s_pytorch.json").read_text())
    assert any(event["name"] == "aten::addmm" for event in trace["traceEvents"])


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (
            "",
            [
                *("embedding lookup and interaction", "gradient of the interaction"),
                *("update of the embedding tables", "bottom MLP", "top MLP", "loss and update of the last layer"),
                *("gradient and update of the top MLP", "gradient and update of the bottom MLP", "reading"),
                *("loop interaction.forward", "loop interaction.backward", "loop last_layer.last_layer"),
                *("loop mlp.relu_backward", "loop mlp.weight_update", "loop sgd_row_update.update"),
            ],
        ),
        (
            "--optimizer=adagrad",
            [
                *("reading", "embedding lookup", "bottom MLP", "interaction", "top MLP", "loss"),
                *("gradient of the loss", "gradient of the top MLP", "gradient of the interaction"),
                *("gradient of the bottom MLP", "update of the embedding tables", "update of the MLPs"),
            ],
        ),
    ],
)
def test_profile_names_the_parts_of_a_step_and_changes_no_result(
    flags: str, names: list[str], terabyte: Path, tmp_path: Path
) -> None:
    given = [*golden_flags("sgd", terabyte), *flags.split(), "--nepochs=1", "--num-batches=10"]
    profiled = run_program(*given, "--enable-profiling", cwd=tmp_path)
    assert profiled.status == 0, profiled.stderr
    trace = json.loads((tmp_path / "dlrm_s_pytorch.json").read_text())
    shown = Counter(event["name"] for event in trace["traceEvents"] if event.get("cat") == "user_annotation")
    table = (tmp_path / "dlrm_s_pytorch.prof").read_text()
    steps = len(profiled.progress_lines)
    for name in names:
        assert f"  {name}  " in table, name
        assert shown[name] >= steps > 0, name
    assert run_program(*given, cwd=tmp_path).stdout == profiled.stdout


def test_step_that_is_not_profiled_has_no_named_parts() -> None:
    model = make_small_model(Architecture((3, 50), 4, (13, 8, 4), (8, 1)))
    batch = make_small_batch(16, (3, 50), np.random.default_rng(0))
    for flags, expected in (([], False), (["--enable-profiling"], True)):
        settings = parse(
            [
                "--data-generation=dataset",
                "--processed-data-file=x",
                "--arch-mlp-bot=13-8-4",
                "--arch-sparse-feature-size=4",
                *flags,
            ]
        )
        step = make_step(model, settings, make_optimizer("sgd", model))
        with torch.profiler.profile() as found:
            step.train(batch, 0.1)
        names = {event.key for event in found.key_averages()}
        assert ("update of the embedding tables" in names) is expected


@pytest.mark.parametrize("flags", ["", "--qr-flag --qr-threshold=2", "--md-flag --md-threshold=2"])
def test_compute_graph_is_drawn(flags: str, tmp_path: Path) -> None:
    run = run_program("--plot-compute-graph", *flags.split(), cwd=tmp_path)
    assert run.status == 0, run.stderr
    picture = (tmp_path / "dlrm_s_pytorch_graph.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000


def test_progress_line_can_end_with_the_time_of_day(tmp_path: Path) -> None:
    run = run_program("--print-wall-time", cwd=tmp_path)
    assert run.progress_lines[0].endswith(")")
