"""--checkpoint-every and --resume: a run continues from its newest intact checkpoint."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from program import ROOT, Finished, run_program
from run_folders import names, records
from small_runs import SHAPE, TRAIN, train

from mlperf import run
from mlperf.evaluation.metrics import Metrics
from mlperf.reporting.metrics_reader import read_records
from mlperf.settings.from_flags import parse
from mlperf.training.regular_saves import RegularSaves
from mlperf.training.state import no_metrics

ALWAYS = "--checkpoint-every=1e-9"
RUN = (*SHAPE, *TRAIN, "--optimizer=adagrad", "--num-batches=9", "--test-freq=6")


@pytest.fixture(scope="module")
def finished(terabyte: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    """Return the folder of a run of two epochs, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    done = run_program(*RUN, f"--processed-data-file={terabyte}", "--output-dir=run", ALWAYS, cwd=folder)
    assert done.status == 0, done.stderr
    return folder / "run", done


@pytest.fixture
def stopped(terabyte: Path, tmp_path: Path) -> Path:
    """Return the folder of the same run, interrupted when it has trained batch 8 of the first epoch."""
    settings = parse([*RUN, f"--processed-data-file={terabyte}", "--output-dir=run", ALWAYS])
    with (
        contextlib.chdir(tmp_path),
        contextlib.redirect_stdout(InterruptedAt("it 8/9 of epoch 0")),
        pytest.raises(Interrupted) as raised,
    ):
        run(settings)
    assert raised.value.__notes__ == ["the same command with --resume continues after iteration 7 of epoch 0"]
    return tmp_path / "run"


class Interrupted(BaseException):
    """Ends a run like a signal."""


class InterruptedAt(io.StringIO):
    """A stream that raises Interrupted when a text is written to it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def write(self, text: str) -> int:
        if self._text in text:
            raise Interrupted
        return super().write(text)


def rest_after(printed: Finished, position: str) -> str:
    """Return what a run printed after the progress line of a position."""
    return printed.stdout[
        printed.stdout.index("\n", printed.stdout.index(f"Finished training it {position},")) + 1 :
    ]


def test_continued_run_prints_what_the_uninterrupted_one_prints(
    stopped: Path, finished: tuple[Path, Finished]
) -> None:
    done = run_program("--output-dir=run", "--resume", cwd=stopped.parent)
    assert done.status == 0, done.stderr
    assert "run/last.pt: resuming after iteration 7 of 9 of epoch 0" in done.stderr
    heading, _, rest = done.stdout.partition("\n")
    assert heading == "time/loss/accuracy (if enabled):"
    assert rest == rest_after(finished[1], "7/9 of epoch 0")
    one, other = (torch.load(folder / "last.pt", weights_only=True) for folder in (stopped, finished[0]))
    for name, value in other["state_dict"].items():
        torch.testing.assert_close(one["state_dict"][name], value, rtol=0, atol=0)


def test_killed_run_continues_where_its_last_checkpoint_was_saved(
    finished: tuple[Path, Finished], terabyte: Path, tmp_path: Path
) -> None:
    flags = (*RUN, f"--processed-data-file={terabyte}", "--output-dir=run", ALWAYS)
    command = [sys.executable, str(ROOT / "dlrm_s_pytorch.py"), *flags]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if b"it 3/9 of epoch 1" in line:
                process.kill()
                break
    done = run_program("--output-dir=run", "--resume", cwd=tmp_path)
    assert done.status == 0, done.stderr
    assert done.progress_lines
    assert done.progress_lines == finished[1].progress_lines[-len(done.progress_lines) :]
    assert done.metric_lines == finished[1].metric_lines[-len(done.metric_lines) :]
    assert not [name for name in os.listdir(tmp_path / "run") if name.startswith(".")]


def test_continued_run_adds_to_the_metrics_and_numbers_its_log(stopped: Path) -> None:
    with (stopped / "metrics.jsonl").open("a") as file:
        file.write('{"event": "progr')  # the rest was lost when the program was killed
    before = len(records_of_whole_lines(stopped))
    assert run_program("--output-dir=run", "--resume", cwd=stopped.parent).status == 0
    starts = [record for record in records(stopped) if record["event"] == "run_start"]
    assert [start["started_from"] for start in starts] == [None, "epoch 0, iteration 7"]
    assert records(stopped)[before]["event"] == "run_start"
    assert {"mlperf.log", "mlperf_2.log"} < set(names(stopped))


def test_metrics_of_a_continued_run_read_like_those_of_the_uninterrupted_one(
    stopped: Path, finished: tuple[Path, Finished]
) -> None:
    assert run_program("--output-dir=run", "--resume", cwd=stopped.parent).status == 0
    one, other = (read_records(folder / "metrics.jsonl") for folder in (stopped, finished[0]))
    for event, values in (("progress", ("loss", "accuracy", "samples")), ("evaluation_stop", ("auc", "best_auc"))):
        columns = ("epoch", "iteration", *values)
        assert [[each[name] for name in columns] for each in one.of(event)] == [
            [each[name] for name in columns] for each in other.of(event)
        ]


def records_of_whole_lines(folder: Path) -> list[str]:
    return [line for line in (folder / "metrics.jsonl").read_text().splitlines() if line.endswith("}")]


def test_same_command_with_resume_starts_and_continues_a_run(terabyte: Path, tmp_path: Path) -> None:
    flags = (*RUN, f"--processed-data-file={terabyte}", "--output-dir=run", "--resume", "--nepochs=1")
    first = run_program(*flags, cwd=tmp_path)
    assert first.status == 0, first.stderr
    assert "--resume: run has no checkpoint yet: the run starts" in first.stderr
    again = run_program(*flags, "--nepochs=2", cwd=tmp_path)
    assert again.status == 0, again.stderr
    assert "run/model.pt: resuming after iteration" in again.stderr
    assert "replaces an older one" not in again.stderr


def test_run_continues_from_the_newest_intact_checkpoint(stopped: Path) -> None:
    damage(stopped / "last.pt")
    done = run_program("--output-dir=run", "--resume", cwd=stopped.parent)
    assert done.status == 0, done.stderr
    assert "--resume: not from run/last.pt: damaged, or not a PyTorch checkpoint: " in done.stderr
    assert "run/model.pt: resuming after iteration 6 of 9 of epoch 0" in done.stderr


def test_run_whose_checkpoints_are_all_damaged_does_not_start_anew(stopped: Path) -> None:
    for name in ("last.pt", "model.pt"):
        damage(stopped / name)
    done = run_program("--output-dir=run", "--resume", cwd=stopped.parent)
    assert done.status == 1
    assert "error: --resume: no checkpoint of the run is intact: run/last.pt: damaged" in done.stderr


def test_checkpoint_that_a_killed_run_was_replacing_is_found(stopped: Path) -> None:
    converted = run_program("last.pt", "last", cwd=stopped, program="tools/convert_checkpoint.py")
    assert converted.status == 0, converted.stderr
    (stopped / "last").rename(stopped / ".last.replaced")  # as on file systems that cannot exchange names
    for name in ("last.pt", "model.pt"):
        (stopped / name).unlink()
    done = run_program("--output-dir=run", "--resume", cwd=stopped.parent)
    assert done.status == 0, done.stderr
    assert "run/last: resuming after iteration 7 of 9 of epoch 0" in done.stderr


def damage(path: Path) -> None:
    """Flip a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_flags_of_a_continued_run_may_differ_where_a_checkpoint_allows_it(stopped: Path) -> None:
    longer = run_program("--output-dir=run", "--resume", "--nepochs=3", "--num-batches=9", cwd=stopped.parent)
    assert longer.status == 0, longer.stderr
    assert "nepochs = 3\n" in (stopped / "settings.toml").read_text()
    other = run_program("--output-dir=run", "--resume", "--optimizer=sgd", cwd=stopped.parent)
    assert other.status == 1
    assert "was saved with --optimizer=adagrad but is loaded with --optimizer=sgd" in other.stderr


def test_weights_that_a_run_started_from_are_not_loaded_again(
    stopped: Path, terabyte: Path, tmp_path: Path
) -> None:
    train(terabyte, tmp_path, "--optimizer=adagrad", "--num-batches=9", "--test-freq=9", "--save-model=x.pt")
    with (stopped / "settings.toml").open("a") as file:
        file.write('load-weights = "x.pt"\n')
    done = run_program("--output-dir=run", "--resume", cwd=stopped.parent)
    assert done.status == 0, done.stderr
    assert "run/last.pt: resuming after iteration 7 of 9 of epoch 0" in done.stderr
    assert "x.pt" not in done.stderr


def test_generated_data_is_continued_too(tmp_path: Path) -> None:
    flags = ("--mini-batch-size=2", "--data-size=12", "--output-dir=run", ALWAYS, "--resume")
    assert run_program(*flags, cwd=tmp_path).status == 0
    longer = run_program("--mini-batch-size=2", "--data-size=12", "--nepochs=2", cwd=tmp_path)
    continued = run_program(*flags, "--nepochs=2", cwd=tmp_path)
    assert continued.progress_lines == longer.progress_lines[6:]


class Saves:
    """Counts the saves of `regular`, whose clock moves only when it is told to."""

    def __init__(self, minutes: float) -> None:
        self.seconds = 0.0
        self.count = 0
        self.regular = RegularSaves(minutes, self._save, clock=lambda: self.seconds)

    def _save(self, metrics: Metrics) -> None:
        self.count += 1

    def train_and_save_if_due(self, seconds: float) -> int:
        self.seconds += seconds
        self.regular.step_stop()
        if self.regular.is_due():
            self.regular.save(no_metrics())
        return self.count


def test_weights_are_saved_when_the_minutes_have_passed() -> None:
    saves = Saves(minutes=2)
    assert [saves.train_and_save_if_due(50) for _ in range(6)] == [0, 0, 1, 1, 1, 2]


def test_weights_at_the_end_are_saved_once() -> None:
    saves = Saves(minutes=2)
    assert not saves.regular.save(no_metrics())  # nothing was trained
    saves.train_and_save_if_due(120)
    assert not saves.regular.save(no_metrics())
    saves.regular.step_stop()
    assert saves.regular.save(no_metrics())
    assert saves.count == 2


def test_weights_are_not_saved_with_pending_gradients(terabyte: Path, tmp_path: Path) -> None:
    accumulate = ("--mlperf-grad-accum-iter=3", "--num-batches=8", "--nepochs=1", "--test-freq=6")
    train(terabyte, tmp_path, "--output-dir=run", ALWAYS, *accumulate)
    saved = [record for record in records(tmp_path / "run") if record["event"] == "checkpoint"]
    assert [record["iteration"] for record in saved if record["kind"] == "last"] == [3, 6, 8]
