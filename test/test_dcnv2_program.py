"""DLRM-DCNv2 with everything else that the program does: reports, exports, quantization, compressed tables."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from dlrm_models import make_model
from program import run_program
from small_runs import SHAPE, TRAIN, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import mlperf
from mlperf.runner.files import export_onnx
from mlperf.settings.from_flags import parse

SIZES = (3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1)
DCN = (
    *("--arch-interaction-op=dcn", "--dcn-num-layers=2", "--dcn-low-rank-dim=4", "--loss-function=bce_logits"),
    f"--multi-hot-sizes={'-'.join(map(str, SIZES))}",
)


@pytest.fixture(scope="module")
def folder(terabyte: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a trained model and the curves of its training."""
    folder = tmp_path_factory.mktemp("dcnv2")
    flags = ("--tensor-board-filename=curves", "--save-model=own.pt", "--learning-rate=0.01", "--num-batches=20")
    train(terabyte, folder, *DCN, *flags, "--optimizer=adagrad")
    return folder


def evaluation(terabyte: Path, folder: Path) -> tuple[str, ...]:
    data = f"--processed-data-file={terabyte}"
    return (*SHAPE, *TRAIN, *DCN, data, "--inference-only", f"--load-model={folder / 'own.pt'}")


@pytest.mark.parametrize(
    "flags",
    [
        "--quantize-mlp-with-bit=8",
        "--quantize-mlp-with-bit=16 --quantize-emb-with-bit=8",
        "--quantize-emb-with-bit=4",
    ],
)
def test_quantized_models_keep_their_auc(flags: str, folder: Path, terabyte: Path, tmp_path: Path) -> None:
    run = run_program(*evaluation(terabyte, folder), *flags.split(), cwd=tmp_path)
    assert run.status == 0, run.stderr
    change = re.search(r"^AUC: .* change ([+-][\d.]+)$", run.stderr, re.MULTILINE)
    assert change
    assert abs(float(change[1])) < 0.01
    assert ("MLPs and cross network: " in run.stderr) == ("mlp" in flags)


def test_layers_of_the_cross_network_are_quantized(folder: Path, terabyte: Path, tmp_path: Path) -> None:
    run = run_program(*evaluation(terabyte, folder), "--quantize-mlp-with-bit=8", cwd=tmp_path)
    sizes = re.search(r"network: ([\d.]+) MB in 32 bits, ([\d.]+) MB in 8 bits", run.stderr)
    assert sizes
    weights = torch.load(folder / "own.pt", weights_only=True)["state_dict"]
    saved = sum(3 * value.numel() for name, value in weights.items() if name.startswith("interaction.V"))
    assert float(sizes[1]) - float(sizes[2]) > 2 * saved / 1e6


def test_exported_model_takes_several_ids_per_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ("--data-generation=dataset", "--processed-data-file=x", "--arch-mlp-bot=13-2")
    model = make_model(interaction_op="dcn")
    model.architecture = replace(model.architecture, ids_per_table=(2, 1, 2))
    export_onnx(parse([*flags, DCN[-1]]), model)
    names = [value.name for value in onnx.load("dlrm_s_pytorch.onnx").graph.input]
    assert names == ["dense", "offsets", "indices_0", "indices_1", "indices_2"]


def test_tensorboard_has_the_curves(folder: Path) -> None:
    events = EventAccumulator(str(folder / "curves"))
    events.Reload()
    assert len(events.Scalars("Test/AUC")) > 1
    assert len(events.Scalars("Train/Loss")) > 1


def test_debug_mode_prints_all_ids_of_a_sample(terabyte: Path, tmp_path: Path) -> None:
    flags = (*SHAPE, *DCN, f"--processed-data-file={terabyte}", "--mini-batch-size=2", "--num-batches=1")
    run = run_program(*flags, "--debug-mode", cwd=tmp_path)
    assert run.status == 0, run.stderr
    (line,) = [line for line in run.stdout.splitlines() if line.startswith("[[[")]
    ids = [[len(sample.split(",")) for sample in table.split("], [")] for table in line[3:-3].split("]], [[")]
    assert ids == [[size, size] for size in SIZES]
    assert "(interaction): CrossInteraction(" in run.stdout


@pytest.mark.parametrize(
    "flags",
    [
        ("--qr-flag", "--qr-threshold=100", "--qr-operation=concat", "--arch-mlp-bot=13-16-16"),
        ("--md-flag", "--md-threshold=100"),
        ("--weighted-pooling=learned",),
    ],
    ids=" ".join,
)
def test_compressed_tables_and_weighted_pooling_take_several_ids(
    flags: tuple[str, ...], terabyte: Path, tmp_path: Path
) -> None:
    run = train(terabyte, tmp_path, *DCN, *flags, "--num-batches=12", "--save-model=own.pt")
    data = f"--processed-data-file={terabyte}"
    again = run_program(
        *SHAPE, *TRAIN, *DCN, data, *flags, "--inference-only", "--load-model=own.pt", cwd=tmp_path
    )
    assert again.status == 0, again.stderr
    assert again.metric_lines[0].split(", best")[0] in run.stdout


def test_python_api_takes_the_sizes_as_numbers(terabyte: Path) -> None:
    result = mlperf.run(
        arch_mlp_bot=(13, 2),
        arch_interaction_op="dcn",
        dcn_low_rank_dim=4,
        loss_function="bce_logits",
        multi_hot_sizes=SIZES,
        data_generation="dataset",
        processed_data_file=terabyte,
        mini_batch_size=64,
        num_batches=3,
    )
    assert result.samples == 192
    assert result.training_loss is not None
    assert 0.5 < result.training_loss < 1.5
