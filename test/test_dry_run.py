"""--dry-run: the plan of a run, and what it needs, without doing it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from program import GOLDEN, Finished, run_program
from small_runs import SHAPE, TRAIN, train

from mlperf.data.prepare.estimate import estimate
from mlperf.data.prepare.pipeline import prepare
from mlperf.settings.dataset import PreparationSettings


def plan_of(run: Finished) -> dict[str, list[str]]:
    """Return the lines of a plan by what they are about."""
    assert run.status == 0, run.stderr
    heading, *lines = run.stdout.splitlines()
    assert heading == "plan of the run; nothing is prepared, trained or written"
    plan: dict[str, list[str]] = {}
    for line in lines:
        if line[:10].strip():
            what = line[:10].strip()
        plan.setdefault(what, []).append(line[10:])
    return plan


def test_plan_of_a_training_says_what_it_does_and_needs(terabyte: Path, tmp_path: Path) -> None:
    flags = (*SHAPE, *TRAIN, f"--processed-data-file={terabyte}", "--checkpoint-every=5", "--plot-compute-graph")
    plan = plan_of(run_program(*flags, "--output-dir=new/run", "--dry-run", cwd=tmp_path))
    assert list(tmp_path.iterdir()) == []
    (data,) = plan["data"]
    assert data.startswith(f"{terabyte}_train.bin: 6,998 training rows, ")
    assert plan["model"][0].startswith("26 tables with ")
    assert (
        "bottom MLP 13-16-8, interaction dot, top MLP 359-16-1: 6,137 weights outside the tables"
        in plan["model"][0]
    )
    assert plan["start"] == ["weights that are drawn with seed 7"]
    assert plan["work"] == ["2 epochs of 110 batches of 64 samples: 220 steps of sgd, at most 38 evaluations"]
    assert plan["memory"][0].startswith("at least ")
    assert any("for the embedding tables (--embedding-precision" in line for line in plan["memory"])
    assert [" for new/run/model.pt, " in line for line in plan["disk"]] == [True, False]
    assert plan["files"] == [
        "new/run/settings.toml, new/run/model.pt, new/run/last.pt, new/run/metrics.jsonl, new/run/mlperf.log, "
        "new/run/dlrm_s_pytorch_graph.png"
    ]
    assert plan["engine"] == ["cpu (fused loops and oneDNN products)"]
    assert plan["time"][0].startswith("220 batches of ")
    assert plan["time"][1].startswith("38 evaluations of ")


def test_size_of_a_checkpoint_is_that_of_the_plan(terabyte: Path, tmp_path: Path) -> None:
    flags = ("--optimizer=adagrad", "--num-batches=6", "--nepochs=1", "--save-model=m.pt")
    plan = plan_of(
        run_program(*SHAPE, *TRAIN, f"--processed-data-file={terabyte}", *flags, "--dry-run", cwd=tmp_path)
    )
    train(terabyte, tmp_path, *flags)
    number, unit, *_ = plan["disk"][0].split()
    size = float(number) * {"MB": 1e6, "kB": 1e3}[unit]
    assert size == pytest.approx((tmp_path / "m.pt").stat().st_size, rel=0.1)


def test_run_without_enough_memory_is_planned_and_refused(tmp_path: Path) -> None:
    rows = "--arch-embedding-size=" + "-".join(["1000000000000"] * 2)
    run = run_program("--arch-mlp-top=2-1", rows, "--dry-run", cwd=tmp_path)
    assert run.status == 1
    assert "memory    at least 16000.0 GB" in run.stdout
    assert "error: needs 16000.0 GB of memory, " in run.stderr
    assert "time " not in run.stdout


def test_large_tables_are_timed_with_fewer_rows(tmp_path: Path) -> None:
    flags = ("--arch-embedding-size=200000000-3", "--arch-mlp-top=2-1", "--data-size=8", "--mini-batch-size=4")
    plan = plan_of(run_program(*flags, "--dry-run", cwd=tmp_path))
    assert plan["time"][-1] == (
        "measured with random rows in memory, and with at most 50,000,000 rows in a table: reading the data and "
        "large tables can take longer"
    )


def test_plan_of_a_continued_run_counts_what_is_left(terabyte: Path, tmp_path: Path) -> None:
    run = (*SHAPE, *TRAIN, f"--processed-data-file={terabyte}", "--num-batches=8", "--output-dir=run")
    assert run_program(*run, "--checkpoint-every=1e-9", "--nepochs=1", cwd=tmp_path).status == 0
    before = (tmp_path / "run" / "settings.toml").read_bytes()
    plan = plan_of(run_program("--output-dir=run", "--resume", "--nepochs=3", "--dry-run", cwd=tmp_path))
    assert plan["start"] == ["the checkpoint run/last.pt, after iteration 8 of epoch 0"]
    assert plan["work"] == ["3 epochs of 8 batches of 64 samples: 24 steps of sgd, at most 6 evaluations"]
    assert plan["time"][0].startswith("16 batches of ")
    assert plan["time"][1].startswith("4 evaluations of ")
    assert (tmp_path / "run" / "settings.toml").read_bytes() == before


def test_plan_of_an_evaluation(terabyte: Path, tmp_path: Path) -> None:
    train(terabyte, tmp_path, "--num-batches=6", "--nepochs=1", "--save-model=m.pt")
    flags = (*SHAPE, *TRAIN, f"--processed-data-file={terabyte}", "--load-model=m.pt", "--inference-only")
    plan = plan_of(run_program(*flags, "--dry-run", cwd=tmp_path))
    assert plan["start"] == ["the checkpoint m.pt"]
    assert plan["work"][0].startswith("evaluation of ")
    assert plan["time"][0].startswith("1 evaluation of ")
    assert plan["files"] == ["none is written"]


def test_plan_of_a_preparation_reads_the_beginning_of_the_text_only(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(GOLDEN / "terabyte", raw)
    flags = (*SHAPE, *TRAIN, f"--raw-data-file={raw / 'day'}", "--processed-data-file=p")
    plan = plan_of(run_program(*flags, "--dry-run", cwd=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
    assert plan["data"][0].startswith("p: is prepared first, from ")
    assert "of text in 24 files, about " in plan["data"][0]
    assert plan["time"][0].startswith("preparation: at least ")


@pytest.mark.parametrize(("data_set", "name"), [("terabyte", "day"), ("kaggle", "train.txt")])
def test_estimated_rows_and_sizes_are_close_to_those_of_the_preparation(
    data_set: str, name: str, tmp_path: Path
) -> None:
    settings = PreparationSettings(data_set, GOLDEN / data_set / name, tmp_path / "p", bin_loader=True)
    found = estimate(settings)
    prepared = prepare(settings)
    rows = prepared.train_rows + prepared.test_rows + prepared.val_rows
    size = sum((tmp_path / f"p_{split}.bin").stat().st_size for split in ("train", "test", "val"))
    assert found.rows == pytest.approx(rows, rel=0.02)
    assert found.file_bytes == pytest.approx(size, rel=0.02)
    assert found.disk_bytes > found.file_bytes
    assert found.text_seconds > 0
