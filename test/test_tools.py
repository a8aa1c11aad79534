"""Plots of runs and models, and the scripts that measure time per iteration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from program import GOLDEN, ROOT, golden_flags, run_program

from mlperf.plots.curves import Curves
from mlperf.util.errors import RunError

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def console_log(terabyte: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what golden run `sgd` prints, and beside it its compliance log `run.log`."""
    folder = tmp_path_factory.mktemp("logs")
    run = run_program(*golden_flags("sgd", terabyte), "--mlperf-log-file=run.log", cwd=folder)
    assert run.status == 0, run.stderr
    (folder / "console.txt").write_text(run.stdout)
    return folder / "console.txt"


def test_curves_are_read_from_a_console_log(console_log: Path) -> None:
    curves = Curves.of_log(console_log)
    assert len(curves.loss) == 55
    assert curves.loss[0].value == pytest.approx(0.6, abs=0.2)
    assert [point.iterations for point in curves.auc] == list(range(5, 56, 5))
    assert curves.auc[-1].value == pytest.approx(0.5398)
    assert curves.accuracy[-1].value == pytest.approx(0.54605)
    assert curves.auc[-1].epochs == 1.0


def test_compliance_log_has_the_same_auc_by_epoch(console_log: Path) -> None:
    curves = Curves.of_log(console_log.with_name("run.log"))
    expected = Curves.of_log(console_log)
    assert [point.epochs for point in curves.auc] == pytest.approx([point.epochs for point in expected.auc])
    assert [point.value for point in curves.auc] == pytest.approx([p.value for p in expected.auc], abs=6e-5)


def foreign_log(path: Path, first_epoch: int) -> Path:
    """Write a log like those of other submitters: other keys, other text between the events."""
    events: list[tuple[str, float | None, float]] = [("epoch_start", None, first_epoch)]
    events += [("eval_accuracy", 0.79 + 0.01 * k, first_epoch + 0.05 * k) for k in range(1, 4)]
    lines = ["2022-05-01 loading ...", ":::MLLOG {cut"]
    for key, value, epoch in events:
        event = {"namespace": "", "time_ms": 1, "key": key, "value": value, "metadata": {"epoch_num": epoch}}
        lines.append("0: :::MLLOG " + json.dumps(event))
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("first_epoch", [0, 1])
def test_log_of_another_submitter_may_count_epochs_from_0_or_1(first_epoch: int, tmp_path: Path) -> None:
    curves = Curves.of_log(foreign_log(tmp_path / "foreign.log", first_epoch))
    assert [point.epochs for point in curves.auc] == pytest.approx([0.05, 0.10, 0.15])
    assert [point.value for point in curves.auc] == pytest.approx([0.80, 0.81, 0.82])


def test_output_of_the_original_implementation_is_read(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text(
        "Finished training it 1024/306969 of epoch 0, 9.31 ms/it, loss 0.520041, accuracy 75.581 %\n"
        "Testing at - 1024/306969 of epoch 0, loss 0.518, accuracy 76.123 %, best 76.123 %\n"
    )
    curves = Curves.of_log(tmp_path / "old.txt")
    assert (curves.loss[0].value, curves.train_accuracy[0].value) == (0.520041, pytest.approx(0.75581))
    assert curves.accuracy[0].iterations == 1024
    assert curves.accuracy[0].value == pytest.approx(0.76123)


def test_log_without_curves_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "empty.log").write_text("nothing here\n")
    with pytest.raises(RunError, match=r"empty\.log"):
        Curves.of_log(tmp_path / "empty.log")


@pytest.mark.parametrize("flags", ["", "--metric=accuracy --target=0.6", "--x=epochs --title=A --labels=one,two"])
def test_several_runs_are_plotted_in_one_figure(flags: str, console_log: Path, tmp_path: Path) -> None:
    logs = [str(console_log), str(console_log.with_name("run.log") if "epochs" in flags else console_log)]
    run = run_program(*logs, *flags.split(), cwd=tmp_path, program="tools/plot_run.py")
    assert run.status == 0, run.stderr
    assert (tmp_path / "run.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    ("flags", "status", "named"),
    [
        ("run.log --x=iterations", 2, "--x"),
        ("console.txt --labels=a,b", 2, "--labels"),
        ("missing.txt", 1, "missing.txt"),
        ("run.log --metric=accuracy", 1, "--metric"),
        ("console.txt --output=run.doc", 1, "--output"),
    ],
)
def test_failed_plot_reports_the_cause_in_one_line(flags: str, status: int, named: str, console_log: Path) -> None:
    run = run_program(*flags.split(), cwd=console_log.parent, program="tools/plot_run.py")
    assert run.status == status
    assert named in run.stderr
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize(("checkpoint", "method"), [("sgd", "umap"), ("qr", "tsne"), ("md", "tsne")])
def test_model_and_data_are_visualized(checkpoint: str, method: str, terabyte: Path, tmp_path: Path) -> None:
    flags = [flag for flag in golden_flags(checkpoint, terabyte) if not flag.startswith("--test-freq")]
    flags += [f"--load-model={GOLDEN}/terabyte/{checkpoint}.pt", f"--method={method}", "--most-rows=200"]
    run = run_program(*flags, "--output-dir=p", "--most-tables=2", cwd=tmp_path, program="tools/visualize.py")
    assert run.status == 0, run.stderr
    names = [f"p/{name}.png" for name in ("tables", "norms", "categories", "hidden")]
    assert run.stdout.splitlines() == names
    for name in names:
        assert (tmp_path / name).read_bytes().startswith(PNG)


def test_visualization_refuses_to_save_a_model(terabyte: Path, tmp_path: Path) -> None:
    flags = [*golden_flags("sgd", terabyte), "--load-model=m.pt", "--save-model=m.pt"]
    run = run_program(*flags, cwd=tmp_path, program="tools/visualize.py")
    assert (run.status, len(run.stderr.splitlines())) == (2, 1)
    assert "--save-model: nothing is trained" in run.stderr


def test_visualization_requires_a_checkpoint(terabyte: Path, tmp_path: Path) -> None:
    run = run_program(*golden_flags("sgd_inference", terabyte), cwd=tmp_path, program="tools/visualize.py")
    assert (run.status, len(run.stderr.splitlines())) == (2, 1)
    assert "--load-model" in run.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("dlrm_s_benchmark.sh", "--num-batches=2 --mini-batch-size=8 --print-freq=1"),
        ("dlrm_s_criteo_kaggle.sh", "--num-batches=3 --print-freq=1 --test-freq=3"),
        ("dlrm_s_criteo_terabyte.sh", "--num-batches=2 --print-freq=1 --mini-batch-size=64"),
    ],
)
def test_benchmark_script_forwards_its_flags_and_prints_minimum_and_median_time(
    script: str, flags: str, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    if "kaggle" in script:
        (folder / "train.txt").symlink_to(GOLDEN / "kaggle" / "train.txt")
    for day in range(24):
        (folder / f"day_{day}").symlink_to(GOLDEN / "terabyte" / f"day_{day}")
    done = subprocess.run(
        [str(ROOT / "bench" / script), *flags.split()],
        env={**os.environ, "DLRM_PYTHON": sys.executable, "LOGDIR": str(tmp_path / "logs"), "DATADIR": str(folder)}
        | {"ROWS": "1000"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (log,) = (tmp_path / "logs").iterdir()
    batches = int(flags.partition("--num-batches=")[2][0])
    assert log.read_text().count("Finished training it") == batches
    last = [line for line in done.stdout.splitlines() if "min" in line][-1]
    assert "median" in last
    assert f"{batches} lines" in last
