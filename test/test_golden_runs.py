"""Runs of the original implementation, reproduced from the seed or from its checkpoints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from program import GOLDEN, RUNS, Finished, golden_flags, run_program

FROM_THE_SEED = (
    "sgd",
    "adagrad",
    "rwsadagrad",
    "lr_policy",
    "cat",
    "itself_wbce",
    "weighted_learned",
    "kaggle_sgd",
)
KEYS = {"recall": "recall", "precision": "precision", "f1": "f1", "ap": "ap", "auc": "auc"}


def check_metrics(run: Finished, name: str) -> None:
    expected = RUNS[name]["evaluations"]
    assert len(run.metric_lines) == len(expected)
    for line, values in zip(run.metric_lines, expected, strict=True):
        for printed, key in KEYS.items():
            if key in values:
                match = re.search(rf"(?:^|, ){printed} ([\d.]+)", line)
                assert match, line
                assert float(match[1]) == pytest.approx(values[key], abs=1.01e-4), (name, line)
        accuracy = re.search(r"accuracy ([\d.]+) %", line)
        assert accuracy, line
        assert float(accuracy[1]) == pytest.approx(values["accuracy_percent"], abs=1e-3), (name, line)


@pytest.mark.parametrize("name", FROM_THE_SEED)
def test_run_is_reproduced_from_its_seed(name: str, terabyte: Path, kaggle: Path, tmp_path: Path) -> None:
    data = terabyte if RUNS[name]["data"] == "terabyte" else kaggle
    run = run_program(*golden_flags(name, data), cwd=tmp_path)
    assert run.status == 0, run.stderr
    assert run.losses == pytest.approx(RUNS[name]["train_loss"], abs=2e-5)
    check_metrics(run, name)


def test_published_checkpoint_gives_its_metrics(terabyte: Path, tmp_path: Path) -> None:
    model = GOLDEN / "terabyte" / "sgd.pt"
    run = run_program(*golden_flags("sgd_inference", terabyte), f"--load-model={model}", cwd=tmp_path)
    assert run.status == 0, run.stderr
    check_metrics(run, "sgd_inference")


@pytest.mark.parametrize("name", ["qr", "md"])
def test_checkpoint_of_compressed_tables_gives_its_metrics(name: str, terabyte: Path, tmp_path: Path) -> None:
    flags = [flag for flag in golden_flags(name, terabyte) if not flag.startswith("--test-freq")]
    model = GOLDEN / "terabyte" / f"{name}.pt"
    run = run_program(*flags, f"--load-model={model}", "--inference-only", cwd=tmp_path)
    assert run.status == 0, run.stderr
    last = RUNS[name]["evaluations"][-1]
    for key in ("recall", "precision", "f1", "ap", "auc"):
        match = re.search(rf"(?:^|, ){key} ([\d.]+)", run.metric_lines[0])
        assert match
        assert float(match[1]) == pytest.approx(last[key], abs=1.01e-4)


@pytest.mark.parametrize("name", ["sgd_mlp_8", "sgd_mlp_16"])
def test_quantized_mlps_give_the_metrics_of_the_original_implementation(
    name: str, terabyte: Path, tmp_path: Path
) -> None:
    before, after = quantized_aucs(name, terabyte, tmp_path)
    assert after == pytest.approx(RUNS[name]["evaluations"][-1]["auc"], abs=0.002)
    assert before == pytest.approx(0.539, abs=0.001)


@pytest.mark.parametrize("name", ["sgd_mlp_8", "sgd_mlp_16"])
def test_fast_quantized_mlps_change_the_auc_no_more_than_the_original_implementation(
    name: str, terabyte: Path, tmp_path: Path
) -> None:
    before, after = quantized_aucs(name, terabyte, tmp_path, "--engine=cpu")
    original = RUNS[name]["evaluations"][-1]["auc"]
    assert abs(after - before) <= abs(original - before) + 0.001


def quantized_aucs(name: str, terabyte: Path, tmp_path: Path, *flags: str) -> tuple[float, float]:
    """Return the AUC of the model and of the quantized model."""
    model = GOLDEN / "terabyte" / "sgd.pt"
    run = run_program(*golden_flags(name, terabyte), f"--load-model={model}", *flags, cwd=tmp_path)
    assert run.status == 0, run.stderr
    printed = re.search(r"auc ([\d.]+)", run.metric_lines[0])
    logged = re.search(r"^AUC: ([\d.]+) before, ([\d.]+) quantized, change", run.stderr, re.MULTILINE)
    assert printed
    assert logged
    assert float(printed[1]) == pytest.approx(float(logged[2]), abs=1e-4)
    return float(logged[1]), float(logged[2])


def test_kaggle_checkpoint_gives_the_accuracy_of_its_last_evaluation(kaggle: Path, tmp_path: Path) -> None:
    model = GOLDEN / "kaggle" / "sgd.pt"
    flags = golden_flags("kaggle_sgd", kaggle)
    run = run_program(*flags, f"--load-model={model}", "--inference-only", cwd=tmp_path)
    assert run.status == 0, run.stderr
    assert run.metric_lines == [" accuracy 57.009 %, best 57.009 %"]


def test_program_without_flags_trains_a_tiny_model(tmp_path: Path) -> None:
    run = run_program(cwd=tmp_path)
    assert run.status == 0, run.stderr
    assert len(run.losses) == 1


def test_sample_in_the_readme_prints_its_losses(tmp_path: Path) -> None:
    run = run_program("--mini-batch-size=2", "--data-size=6", cwd=tmp_path)
    assert run.stderr.splitlines() == [
        "engine: autograd on the CPU, because --data-generation=random can have several ids per table and sample"
    ]
    assert run.stdout.splitlines() == [
        "time/loss/accuracy (if enabled):",
        "Finished training it 1/3 of epoch 0, -1.00 ms/it, loss 0.451893, accuracy 0.000%",
        "Finished training it 2/3 of epoch 0, -1.00 ms/it, loss 0.402002, accuracy 0.000%",
        "Finished training it 3/3 of epoch 0, -1.00 ms/it, loss 0.275460, accuracy 0.000%",
    ]
