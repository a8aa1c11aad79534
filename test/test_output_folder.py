"""--output-dir: everything of a run in one folder, which belongs to one run."""

from __future__ import annotations

from pathlib import Path

import pytest
from program import run_program
from run_folders import names, records
from small_runs import SHAPE, TRAIN, train

from mlperf.util.locking import exclusive

TINY = ("--mini-batch-size=2", "--data-size=6")


def test_all_files_of_a_run_are_in_its_folder(terabyte: Path, tmp_path: Path) -> None:
    reports = ("--tensor-board-filename", "--time-breakdown", "--checkpoint-every=60")
    train(terabyte, tmp_path, "--output-dir=new/run", "--num-batches=6", "--nepochs=1", *reports)
    assert names(tmp_path) == ["new"]
    assert names(tmp_path / "new" / "run") == [
        *("last.pt", "metrics.jsonl", "mlperf.log", "model.pt", "run_kaggle_pt", "settings.toml", "time.json"),
        "time.png",
    ]
    saved = [record for record in records(tmp_path / "new" / "run") if record["event"] == "checkpoint"]
    assert [(record["path"], record["kind"]) for record in saved] == [
        ("new/run/model.pt", "best"),
        ("new/run/last.pt", "last"),
    ]


def test_profile_and_plot_of_the_model_are_in_the_folder_too(tmp_path: Path) -> None:
    run = run_program(*TINY, "--output-dir=run", "--enable-profiling", "--plot-compute-graph", cwd=tmp_path)
    assert run.status == 0, run.stderr
    assert names(tmp_path) == ["run"]
    files = ["dlrm_s_pytorch.json", "dlrm_s_pytorch.prof", "dlrm_s_pytorch_graph.png"]
    assert names(tmp_path / "run") == [*files, "metrics.jsonl", "settings.toml"]


def test_files_that_flags_name_are_elsewhere(terabyte: Path, tmp_path: Path) -> None:
    named = ("--save-model=m.pt", "--metrics-file=m.jsonl", "--mlperf-log-file=m.log", "--tensor-board-filename=m")
    train(terabyte, tmp_path, "--output-dir=run", "--num-batches=6", "--nepochs=1", *named)
    assert names(tmp_path) == ["m", "m.jsonl", "m.log", "m.pt", "run"]
    assert names(tmp_path / "run") == ["settings.toml"]


def test_settings_in_the_folder_repeat_the_run(terabyte: Path, tmp_path: Path) -> None:
    first = train(terabyte, tmp_path, "--output-dir=a", "--num-batches=6")
    again = run_program("--config=a/settings.toml", "--output-dir=b", cwd=tmp_path)
    assert again.stdout == first.stdout != ""
    assert names(tmp_path / "b") == names(tmp_path / "a")
    assert (tmp_path / "b" / "settings.toml").read_text() == (tmp_path / "a" / "settings.toml").read_text()


def test_settings_of_a_training_evaluate_its_model(terabyte: Path, tmp_path: Path) -> None:
    train(terabyte, tmp_path, "--output-dir=a", "--num-batches=6", "--nepochs=1")
    reports = ("--checkpoint-every=60", "--tensor-board-filename=curves", "--time-breakdown")
    train(
        terabyte,
        tmp_path,
        "--output-dir=b",
        "--num-batches=6",
        "--nepochs=1",
        "--load-weights=a/model.pt",
        *reports,
    )
    flags = ("--config=b/settings.toml", "--inference-only", "--load-model=b/model.pt", "--save-predictions=p.npy")
    run = run_program(*flags, cwd=tmp_path)
    assert run.status == 0, run.stderr
    assert (tmp_path / "p.npy").is_file()


def test_settings_in_the_folder_may_also_be_named_by_config(tmp_path: Path) -> None:
    assert run_program(*TINY, "--output-dir=run", cwd=tmp_path).status == 0
    flags = ("--config=run/settings.toml", "--output-dir=run", "--dry-run")
    assert "has the files of another run; pass --resume" in run_program(*flags, cwd=tmp_path).stderr
    run = run_program(*flags, "--resume", cwd=tmp_path)
    assert run.status == 0, run.stderr


def test_evaluation_keeps_its_settings_in_a_folder_too(terabyte: Path, tmp_path: Path) -> None:
    flags = (*SHAPE, *TRAIN, f"--processed-data-file={terabyte}", "--inference-only", "--output-dir=run")
    run = run_program(*flags, cwd=tmp_path)
    assert run.status == 0, run.stderr
    assert names(tmp_path / "run") == ["settings.toml"]
    assert "have no effect" not in run.stderr
    assert "inference-only = true\n" in (tmp_path / "run" / "settings.toml").read_text()


def test_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    assert run_program(*TINY, "--output-dir=run", cwd=tmp_path).status == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    run = run_program(*TINY, "--output-dir=run", cwd=tmp_path)
    assert run.status == 2
    assert "--output-dir=run: has the files of another run; pass --resume to continue it, or " in run.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


@pytest.mark.parametrize("flags", [(), ("--resume",)])
def test_folder_with_other_files_is_refused(flags: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    run = run_program(*TINY, *flags, "--output-dir=run", cwd=tmp_path)
    assert run.status == 2
    assert (
        "--output-dir=run: contains thesis.tex and no settings.toml, so it is not the folder of a run"
        in run.stderr
    )
    assert names(tmp_path / "run") == ["thesis.tex"]


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    run = run_program(*TINY, "--output-dir=run", cwd=tmp_path)
    assert (run.status, run.stderr.splitlines()[-1]) == (
        2,
        "dlrm_s_pytorch.py: error: --output-dir=run is a file; must be a folder",
    )


def test_run_that_does_not_start_leaves_no_folder_and_can_be_repeated(tmp_path: Path) -> None:
    run = run_program("--load-model=missing.pt", "--output-dir=run", cwd=tmp_path)
    assert run.status == 1
    assert names(tmp_path) == []
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.toml").write_text("nepochs = 1\n")  # of a run that failed before it started
    assert run_program(*TINY, "--output-dir=run", cwd=tmp_path).status == 0


def test_two_runs_at_a_time_do_not_share_a_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with exclusive(tmp_path / "run" / ".settings.toml.lock", "held by the test"):
        run = run_program(*TINY, "--output-dir=run", cwd=tmp_path)
    assert run.status == 1
    assert "--output-dir=run: another run writes to this folder" in run.stderr


def test_output_that_is_a_file_of_the_folder_is_refused(terabyte: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    flags = (*SHAPE, *TRAIN, f"--processed-data-file={terabyte}", "--output-dir=run")
    run = run_program(*flags, "--metrics-file=run/settings.toml", cwd=tmp_path)
    assert run.status == 2
    assert (
        "--metrics-file=run/settings.toml is the same file as run/settings.toml of --output-dir=run" in run.stderr
    )


def test_model_of_the_folder_is_saved_without_pending_gradients(tmp_path: Path) -> None:
    flags = (*SHAPE, "--processed-data-file=x", "--output-dir=run", "--test-freq=5", "--mlperf-grad-accum-iter=2")
    run = run_program(*flags, cwd=tmp_path)
    assert run.status == 2
    assert "--test-freq=5: with --output-dir it must be a multiple of --mlperf-grad-accum-iter=2" in run.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--resume", "--resume requires --output-dir, whose run it continues"),
        ("--checkpoint-every=5", "--checkpoint-every requires --output-dir, in which it saves last.pt"),
        ("--output-dir=", "--output-dir: '' is not the name of a folder, which has from 1 to 4,095 bytes"),
    ],
)
def test_flags_of_the_folder_require_each_other(flags: str, message: str, tmp_path: Path) -> None:
    run = run_program(flags, cwd=tmp_path)
    assert (run.status, run.stderr) == (2, f"dlrm_s_pytorch.py: error: {message}\n")
