"""A flag that has no effect in a run is named in one line, and a run with nothing to do says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from easy_data import write_easy_data
from program import run_program

from mlperf.settings.from_flags import parse
from mlperf.settings.unused import unused_flags

DATASET = "--data-generation=dataset --processed-data-file=x --arch-mlp-bot=13-2"
EASY = ("--data-generation=dataset", "--arch-mlp-bot=13-4-2", "--mini-batch-size=512", "--learning-rate=0.1")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("--max-ind-range=9", "with --data-generation=random, these flags have no effect: --max-ind-range=9"),
        (
            "--data-generation=synthetic --data-set=terabyte --mlperf-bin-shuffle --test-num-workers=3",
            "with --data-generation=synthetic, these flags have no effect: --data-set=terabyte "
            "--mlperf-bin-shuffle --test-num-workers=3",
        ),
        (
            f"{DATASET} --arch-embedding-size=9-9 --num-indices-per-lookup-fixed",
            "with --data-generation=dataset, these flags have no effect: --arch-embedding-size=9-9 "
            "--num-indices-per-lookup-fixed",
        ),
        ("--data-size=9 --num-batches=2", "with --num-batches, these flags have no effect: --data-size=9"),
        (
            f"{DATASET} --test-mini-batch-size=9",
            "without evaluations (--test-freq, a threshold), these flags have no effect: --test-mini-batch-size=9",
        ),
        (
            f"{DATASET} --inference-only --num-batches=9 --mlperf-logging --mlperf-log-file=x.log",
            "with --inference-only, these flags have no effect: --num-batches=9 --mlperf-log-file=x.log",
        ),
        ("--load-model=x --mlp-init=normal", "with --load-model, these flags have no effect: --mlp-init=normal"),
        (
            "--lr-decay-start-step=9",
            "without --lr-num-decay-steps, these flags have no effect: --lr-decay-start-step=9",
        ),
        ("--print-precision=9", "without --debug-mode, these flags have no effect: --print-precision=9"),
        ("--test-freq=0", "--test-freq=0: the model is not evaluated during training"),
        (
            f"{DATASET} --mlperf-logging",
            "--mlperf-logging without --test-freq or a threshold: the log will contain no evaluation",
        ),
    ],
)
def test_flag_without_effect_is_named_with_the_reason(flags: str, named: str) -> None:
    assert list(unused_flags(parse(flags.split()))) == [named]


@pytest.mark.parametrize(
    "flags",
    [
        "--mini-batch-size=2 --data-size=6 --debug-mode --print-precision=3",
        f"{DATASET} --round-targets --memory-map --test-freq=5 --test-mini-batch-size=9 --test-num-workers=3",
        f"{DATASET} --inference-only --learning-rate=0.5 --loss-function=bce --num-workers=3 --mlperf-logging "
        "--test-freq=9",
        "--lr-decay-start-step=9 --lr-num-decay-steps=3",
    ],
)
def test_flags_that_have_an_effect_are_not_named(flags: str) -> None:
    assert list(unused_flags(parse(flags.split()))) == []


def test_run_names_flags_without_effect_once_on_stderr(tmp_path: Path) -> None:
    run = run_program("--data-size=2", "--print-precision=9", "--num-indices-per-lookup-fixed", cwd=tmp_path)
    assert run.status == 0
    assert run.stderr.count("these flags have no effect: --print-precision=9") == 1
    assert "--num-indices-per-lookup-fixed: 10 ids are drawn per table and sample; equal ids count" in run.stderr
    run = run_program("--num-indices-per-lookup=1", "--num-indices-per-lookup-fixed", cwd=tmp_path)
    assert "equal ids" not in run.stderr


def test_finished_run_that_is_loaded_again_says_that_nothing_is_left_to_train(tmp_path: Path) -> None:
    flags = (*EASY, f"--processed-data-file={write_easy_data(tmp_path)}", "--test-freq=8")
    assert run_program(*flags, "--save-model=m.pt", cwd=tmp_path).status == 0
    run = run_program(*flags, "--load-model=m.pt", "--mlperf-acc-threshold=0.99", cwd=tmp_path)
    assert run.losses == []
    assert "--load-model=m.pt: already trained for 1 epoch, so --nepochs=1 leaves nothing" in run.stderr
    assert "resuming" not in run.stderr
    assert "the target was not reached: nothing was evaluated" in run.stderr
    assert run.status == 3


@pytest.mark.parametrize(
    ("flag", "status", "said"),
    [
        ("--mlperf-auc-threshold=0.1", 0, "the target was reached: test AUC 0."),
        ("--mlperf-acc-threshold=0.1", 0, "the target was reached: test accuracy 0."),
        ("--mlperf-auc-threshold=1", 3, "the target was not reached: best test AUC 0."),
    ],
)
def test_run_without_a_log_says_which_threshold_was_reached_or_missed(
    flag: str, status: int, said: str, tmp_path: Path
) -> None:
    flags = (*EASY, f"--processed-data-file={write_easy_data(tmp_path)}", "--test-freq=8", flag)
    run = run_program(*flags, cwd=tmp_path)
    assert run.status == status
    assert [line for line in run.stderr.splitlines() if line.startswith(said)]


def test_checkpoint_that_is_not_written_is_named(tmp_path: Path) -> None:
    flags = (*EASY, f"--processed-data-file={write_easy_data(tmp_path)}", "--test-freq=8")
    assert run_program(*flags, "--save-model=m.pt", cwd=tmp_path).status == 0
    checkpoint = torch.load(tmp_path / "m.pt", weights_only=True)
    checkpoint["continuation"]["best_accuracy"] = 1.0
    torch.save(checkpoint, tmp_path / "best.pt")
    run = run_program(*flags, "--nepochs=2", "--load-model=best.pt", "--save-model=new.pt", cwd=tmp_path)
    assert run.status == 0, run.stderr
    assert "--save-model=new.pt: not written, because the test metric did not improve" in run.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--lr-num-warmup-steps=9", "--lr-num-warmup-steps=9 is longer than the 4 steps of this run"),
        (
            "--lr-decay-start-step=5 --lr-num-decay-steps=9",
            "--lr-decay-start-step=5 is after the 4 steps of this run",
        ),
        ("--lr-num-warmup-steps=4 --lr-decay-start-step=4 --lr-num-decay-steps=9", None),
    ],
)
def test_run_shorter_than_its_schedule_says_so(flags: str, said: str | None, tmp_path: Path) -> None:
    run = run_program(*("--data-size=7", "--nepochs=2", "--mini-batch-size=4"), *flags.split(), cwd=tmp_path)
    assert run.status == 0
    assert [line for line in run.stderr.splitlines() if line.endswith("of this run")] == ([said] if said else [])


def test_seed_of_a_preparation_without_randomness_is_named(tmp_path: Path) -> None:
    flags = ("--raw-data-file=x", "--processed-data-file=y", "--data-randomize=none", "--numpy-rand-seed=5")
    run = run_program(*flags, cwd=tmp_path, program="tools/prepare_criteo.py")
    assert run.stderr.startswith("with --data-randomize=none, --numpy-rand-seed=5 has no effect\n")


@pytest.mark.parametrize("flag", ["--length=5", "--seed=0"])
def test_flags_of_generated_traces_are_refused_for_profiles(flag: str, tmp_path: Path) -> None:
    run = run_program("profile", "a", "b", flag, cwd=tmp_path, program="tools/stack_distances.py")
    assert run.status == 2
    assert f"{flag} requires generate" in run.stderr
