"""Writing a checkpoint ends cleanly at a signal and on a full disk, and the older file survives."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from program import same_signal_handlers

from mlperf.training.checkpoint_file import read_checkpoint, write_checkpoint
from mlperf.util.errors import RunError
from mlperf.util.program import run_program


class Interrupting:
    """Sends a signal to this process when it is written to a checkpoint."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        os.kill(os.getpid(), self.number)
        return dict, ()


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """Return a checkpoint."""
    path = tmp_path / "model.pt"
    write_checkpoint(path, {"state_dict": {"weight": torch.ones(5)}})
    return path


@pytest.fixture
def small_files_only() -> Iterator[None]:
    """Limit the size of files, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def assert_unharmed(path: Path) -> None:
    assert read_checkpoint(path)["state_dict"]["weight"].tolist() == [1] * 5
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_while_a_checkpoint_is_written_ends_the_program_and_keeps_the_older_one(
    number: signal.Signals, older: Path
) -> None:
    def work() -> int:
        write_checkpoint(older, {"state_dict": {"weight": torch.zeros(500_000), "signal": Interrupting(number)}})
        return 0

    with same_signal_handlers():
        assert run_program("x.py", work) == 128 + number
    assert_unharmed(older)


def test_checkpoint_that_does_not_fit_on_the_disk_is_one_line_and_keeps_the_older_one(
    older: Path, small_files_only: None
) -> None:
    with pytest.raises(RunError, match=r"model.pt: the checkpoint cannot be written: .*File too large"):
        write_checkpoint(older, {"state_dict": {"weight": torch.zeros(500_000)}})
    assert_unharmed(older)
