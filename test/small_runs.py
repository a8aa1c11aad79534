"""Training runs of a second on the golden Terabyte data, for the tests of checkpoints."""

from __future__ import annotations

from pathlib import Path

from program import Finished, run_program

# Small enough to run in a second, with every part of the state in play.
SHAPE = (
    *("--arch-sparse-feature-size=8", "--arch-mlp-bot=13-16-8", "--arch-mlp-top=16-1", "--loss-function=bce"),
    *("--data-generation=dataset", "--data-set=terabyte", "--mlperf-bin-loader", "--numpy-rand-seed=7"),
)
TRAIN = ("--learning-rate=0.1", "--mini-batch-size=64", "--nepochs=2", "--mlperf-logging", "--test-freq=6")


def train(prefix: Path, cwd: Path, *flags: str) -> Finished:
    run = run_program(*SHAPE, *TRAIN, f"--processed-data-file={prefix}", *flags, cwd=cwd)
    assert run.status == 0, run.stderr
    return run


def load(checkpoint: Path, prefix: Path, cwd: Path, *flags: str) -> Finished:
    """Resume or, with --inference-only, evaluate a checkpoint."""
    given = (*SHAPE, *TRAIN, f"--processed-data-file={prefix}", f"--load-model={checkpoint}", *flags)
    return run_program(*given, cwd=cwd)


def error_of(run: Finished) -> str:
    """Return the error of a refused run, which is its last line on stderr."""
    assert run.status == 1, run.stderr
    *others, line = run.stderr.splitlines()
    assert line.startswith("dlrm_s_pytorch.py: error: ")
    notes = ("engine: ", "embedding tables: ", "mlperf_dlrm.log exists; ")
    converted = ": the embedding tables are stored in "
    assert all(other.startswith(notes) or converted in other for other in others)
    return line
