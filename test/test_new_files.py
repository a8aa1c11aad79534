"""Output files that several runs share: logs and profiles are kept, one run at a time saves to a checkpoint."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from easy_data import write_easy_data
from interruption import Killed, killed_after_saves, shuffled
from program import ROOT, run_program, same_signal_handlers

from mlperf.data.prepare.pipeline import prepare
from mlperf.training import checkpoint
from mlperf.util.failures import continued_by
from mlperf.util.locking import exclusive
from mlperf.util.new_file import numbered, open_new, write_new
from mlperf.util.program import run_program as run_entry_point

SMALL = (
    *("--arch-sparse-feature-size=4", "--arch-mlp-bot=13-4", "--arch-mlp-top=2-1", "--loss-function=bce"),
    *("--data-generation=dataset", "--data-set=terabyte", "--mini-batch-size=128", "--test-freq=2"),
)


@pytest.fixture(scope="module")
def easy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the prefix of a small data set."""
    return write_easy_data(tmp_path_factory.mktemp("easy"))


def test_numbered_names_keep_the_suffix() -> None:
    names = [str(path) for path in itertools.islice(numbered(Path("a/b.log")), 3)]
    assert names == ["a/b.log", "a/b_2.log", "a/b_3.log"]


def test_new_file_is_neither_an_older_one_nor_one_that_is_being_written(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with open_new(path), pytest.raises(FileExistsError):  # still empty
        open_new(path)
    with open_new(path) as file:
        file.write("content")
    with pytest.raises(FileExistsError):
        open_new(path)
    assert path.read_text() == "content"


def test_script_in_bench_keeps_an_earlier_log_of_the_same_second(tmp_path: Path) -> None:
    (tmp_path / "date").write_text("#!/bin/sh\necho 20300102_030405\n")
    (tmp_path / "date").chmod(0o755)
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "x_20300102_030405.console.txt").write_text("of an earlier run")
    line = "Finished training it 1/1 of epoch 0, 1.50 ms/it, loss 0.5, accuracy 50.000%"
    done = subprocess.run(
        ["bash", "-c", f'source "{ROOT}/bench/common.sh" && run_logged x echo "{line}"', "x.sh"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "DLRM_PYTHON": sys.executable, "LOGDIR": str(logs)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "x_20300102_030405_2.console.txt: min 1.50 ms/it" in done.stdout
    assert (logs / "x_20300102_030405.console.txt").read_text() == "of an earlier run"
    assert line in (logs / "x_20300102_030405_2.console.txt").read_text()


def test_earlier_profile_is_kept(tmp_path: Path) -> None:
    flags = ("--data-size=4", "--mini-batch-size=2", "--enable-profiling")
    first = run_program(*flags, cwd=tmp_path)
    assert first.status == 0, first.stderr
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    second = run_program(*flags, cwd=tmp_path)
    assert "table in dlrm_s_pytorch_2.prof, Chrome trace in dlrm_s_pytorch_2.json" in second.stderr
    assert {path: path.read_bytes() for path in kept} == kept
    assert len(list(tmp_path.iterdir())) == 4


def test_replaced_export_is_announced(tmp_path: Path) -> None:
    (tmp_path / "dlrm_s_pytorch_graph.png").write_text("of another model")
    run = run_program("--plot-compute-graph", cwd=tmp_path)
    assert "compute graph in dlrm_s_pytorch_graph.png, in place of an older file" in run.stderr


def test_second_run_that_saves_to_the_same_checkpoint_is_refused(easy: Path, tmp_path: Path) -> None:
    flags = (*SMALL, f"--processed-data-file={easy}", "--num-batches=2", "--save-model=model.pt")
    with exclusive(tmp_path / ".model.pt.lock", "the lock of a run"):
        refused = run_program(*flags, cwd=tmp_path)
    assert refused.status == 1
    assert "error: --save-model=model.pt: another run saves to this file\n" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    first, second = (run_program(*flags, cwd=tmp_path) for _ in range(2))
    assert (first.status, second.status) == (0, 0)
    assert "--save-model=model.pt" not in first.stderr
    assert "--save-model=model.pt: the first checkpoint of this run replaces an older one" in second.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_run_that_is_refused_does_not_announce_that_it_replaces_a_checkpoint(easy: Path, tmp_path: Path) -> None:
    flags = (*SMALL, f"--processed-data-file={easy}", "--num-batches=4", "--save-model=model.pt")
    assert run_program(*flags, cwd=tmp_path).status == 0
    (tmp_path / "other.pt").write_text("no checkpoint")
    for wrong in (f"--raw-data-file={ROOT}/test", "--load-model=other.pt"):
        run = run_program(*flags, wrong, cwd=tmp_path)
        assert run.status != 0
        assert "replaces" not in run.stderr
        assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["notes.txt", "data.npz"])
def test_file_that_is_no_checkpoint_is_not_replaced_by_one(name: str, easy: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", counts=np.arange(3))
    (tmp_path / "notes.txt").write_text("notes")
    kept = (tmp_path / name).read_bytes()
    run = run_program(*SMALL, f"--processed-data-file={easy}", f"--save-model={name}", cwd=tmp_path)
    assert run.status == 2
    assert f"--save-model={name}: exists and is not a checkpoint" in run.stderr
    assert (tmp_path / name).read_bytes() == kept


def test_resuming_says_from_where(easy: Path, tmp_path: Path) -> None:
    flags = (*SMALL, f"--processed-data-file={easy}", "--num-batches=4")
    run_program(*flags, "--save-model=model.pt", cwd=tmp_path)
    iteration = torch.load(tmp_path / "model.pt", weights_only=True)["iter"]
    run = run_program(*flags, "--load-model=model.pt", cwd=tmp_path)
    assert f"model.pt: resuming after iteration {iteration} of 4 of epoch 0" in run.stderr


@pytest.mark.parametrize("load", [(), ("--load-model=model.pt",)])
def test_interrupted_run_with_a_checkpoint_says_what_continues_it(
    load: tuple[str, ...], easy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (*SMALL, f"--processed-data-file={easy}", "--save-model=model.pt")
    if load:
        run_program(*flags, "--num-batches=0", cwd=tmp_path)
        contents = torch.load(tmp_path / "model.pt", weights_only=True)
        contents["continuation"] |= {"best_accuracy": 0.0, "best_auc": 0.0}  # so that this run saves soon
        torch.save(contents, tmp_path / "model.pt")
    save, positions = checkpoint.save, list[str]()

    def interrupted_save(*args: Any, **kwargs: Any) -> None:
        if positions:
            raise KeyboardInterrupt
        save(*args, **kwargs)
        saved = torch.load(tmp_path / "model.pt", weights_only=True)
        positions.append(f"iteration {saved['iter']} of epoch {saved['epoch']}")

    monkeypatch.setattr(checkpoint, "save", interrupted_save)
    run = run_program(*flags, *load, "--nepochs=100", cwd=tmp_path)
    assert run.status == 130
    command = "the same command" if load else "the same command with --load-model=model.pt"
    message = f"dlrm_s_pytorch.py: interrupted; {command} continues after {positions[0]}"
    assert run.stderr.splitlines()[-1] == message


def test_interrupted_preparation_says_that_the_same_command_continues_and_then_from_where(
    raw: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    small_pieces: None,
) -> None:
    settings = shuffled(raw, tmp_path / "data", checkpoint_seconds=0.0)
    with killed_after_saves(monkeypatch, "text"), pytest.raises(Killed) as caught:
        prepare(settings)
    assert caught.value.__notes__ == ["the same command continues the preparation"]
    with caplog.at_level("INFO", logger="mlperf"):
        prepare(settings)
    assert re.fullmatch(r"continuing the preparation in \S+ from day_\d+, line [\d,]+", caplog.messages[0])


def test_program_prints_how_to_continue_after_an_interruption(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        with continued_by("the same command continues"):
            raise KeyboardInterrupt

    with same_signal_handlers():
        assert run_entry_point("x.py", work) == 130
    assert capsys.readouterr().err == "x.py: interrupted; the same command continues\n"


def test_text_is_written_whole_or_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    write_new(path, "one\n")
    with pytest.raises(FileExistsError):
        write_new(path, "other\n")
    assert path.read_text() == "one\n"
    with pytest.raises(OSError, match="No space left"):
        write_new(Path("/dev/full"), "one\n")
