"""Sharded checkpoints of several processes: saved by some, continued and evaluated by others."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from equal_runs import run_on
from processes import in_processes, needs_torchrec, with_ranks
from program import Finished, run_program
from sharded_folders import read_weights
from small_runs import SHAPE, TRAIN

from mlperf.distributed.processes import current
from mlperf.runner.checkpoints import checkpoints_reserved
from mlperf.settings.settings import Settings
from mlperf.training.checkpoint_place import reserved
from mlperf.training.sharded_writer import write_sharded
from mlperf.training.weight_names import array_name
from mlperf.util.divided_tensor import DividedTensor, Part
from mlperf.util.errors import RunError, UsageError

pytestmark = [in_processes, needs_torchrec]

# The target is so low that a run stops at its first evaluation.
CUT = "--mlperf-auc-threshold=0.01"
KIND = {
    "sgd": ("--optimizer=sgd", "--mlperf-bin-shuffle"),
    "adagrad": ("--optimizer=adagrad", "--learning-rate=0.01"),
    "rwsadagrad": ("--optimizer=rwsadagrad", "--learning-rate=0.01", "--mlperf-bin-shuffle"),
}


def run_torchrec(size: int, *flags: str) -> Finished:
    """Run the program with engine torchrec on `size` processes, and return what the first one printed."""
    return run_on(size, [*flags, "--engine=torchrec"])


def flags_of(terabyte: Path, optimizer: str) -> tuple[str, ...]:
    few = ("--print-freq=1", "--num-batches=14", "--nepochs=1")
    return (*SHAPE, *TRAIN, *few, f"--processed-data-file={terabyte}", *KIND[optimizer])


@pytest.mark.parametrize(
    ("optimizer", "saved_by", "continued_by"),
    [
        ("sgd", (4, "table-wise"), [(1, "auto"), (3, "row-wise")]),
        ("adagrad", (2, "column-wise"), [(1, "auto"), (4, "grid")]),
        ("rwsadagrad", (3, "row-wise"), [(2, "table-wise")]),
    ],
)
def test_run_continues_on_other_processes_and_engines_with_the_losses_of_an_uninterrupted_one(
    optimizer: str,
    saved_by: tuple[int, str],
    continued_by: list[tuple[int, str]],
    terabyte: Path,
    tmp_path: Path,
) -> None:
    flags, folder = flags_of(terabyte, optimizer), tmp_path / "sharded"
    whole = run_program(*flags, cwd=tmp_path)
    assert whole.status == 0, whole.stderr
    size, kind = saved_by
    cut = run_torchrec(size, *flags, f"--sharding={kind}", f"--save-model={folder}", CUT)
    assert cut.status == 0, cut.stderr
    done = len(cut.losses)
    assert cut.losses == pytest.approx(whole.losses[:done], abs=1e-5)
    load = f"--load-model={folder}"
    continued = [run_torchrec(size, *flags, f"--sharding={kind}", load) for size, kind in continued_by]
    continued.append(run_program(*flags, load, cwd=tmp_path))
    for run in continued:
        assert run.status == 0, run.stderr
        assert "resuming after iteration 6 of" in run.stderr
        assert 6 == done < len(whole.losses)
        assert run.losses == pytest.approx(whole.losses[done:], abs=1e-5)
        assert run.metric_lines == whole.metric_lines[1:]
    evaluated = run_program(*flags, load, "--inference-only", cwd=tmp_path)
    assert evaluated.metric_lines == cut.metric_lines


def test_latest_is_the_checkpoint_of_save_model_if_there_is_one(terabyte: Path, tmp_path: Path) -> None:
    flags = flags_of(terabyte, "sgd")
    for place, run in (
        ("sharded", lambda *more: run_torchrec(2, *flags, *more)),
        ("model.pt", lambda *more: run_program(*flags, *more, cwd=tmp_path)),
    ):
        latest = ("--load-model=latest", f"--save-model={tmp_path / place}")
        first = run(*latest, CUT)
        assert first.status == 0, first.stderr
        assert "does not exist yet: starting from initial weights" in first.stderr
        second = run(*latest)
        assert second.status == 0, second.stderr
        assert f"{tmp_path / place}: resuming after iteration 6 of" in second.stderr
        assert len(second.losses) > 6
    refused = run_program(*flags, "--load-model=latest", cwd=tmp_path)
    assert refused.status == 2
    assert "--load-model=latest requires --save-model" in refused.stderr


def test_files_and_folders_of_the_other_kind_are_refused(terabyte: Path, tmp_path: Path) -> None:
    flags = flags_of(terabyte, "sgd")
    assert run_program(*flags, CUT, "--save-model=model.pt", cwd=tmp_path).status == 0
    assert run_torchrec(2, *flags, CUT, f"--save-model={tmp_path / 'sharded'}").status == 0
    for more, words in (
        (
            (f"--load-model={tmp_path / 'model.pt'}",),
            "is a file; engine torchrec loads sharded checkpoints: convert",
        ),
        ((f"--save-model={tmp_path / 'model.pt'}",), "is a file; engine torchrec saves a folder"),
        ((f"--load-model={tmp_path}",), "is a folder without checkpoint.json"),
    ):
        run = run_program(*flags, *more, "--engine=torchrec", cwd=tmp_path)
        assert run.status == 2
        assert words in run.stderr
    run = run_program(*flags, "--save-model=sharded", cwd=tmp_path)
    assert run.status == 2
    assert "--save-model=sharded is a folder; must be a file name" in run.stderr


def save_and_fail(folder: Path, failing: int | None) -> str | None:
    """Save a table of two processes' rows; one cannot write. Return the error."""

    def report(name: str, size: int) -> None:
        if current().rank == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    rank = current().rank
    rows = torch.full((5, 4), rank + (0.5 if failing is not None else 0.0))
    table = DividedTensor((10, 4), torch.float32, [Part(rows, (5 * rank, 0))])
    try:
        write_sharded(folder, {"state_dict": {"emb_l.0.weight": table}}, report=report)
    except RunError as error:
        return str(error)
    return None


def test_one_process_that_cannot_write_fails_all_and_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    assert with_ranks(2, save_and_fail, folder, None) == [None, None]
    for failing in (0, 1):
        errors = with_ranks(2, save_and_fail, folder, failing)
        assert errors[0] == errors[1]
        assert errors[0].startswith(f"{folder}: the checkpoint cannot be written: ")
        assert "No space left on device" in errors[0]
    assert read_weights(folder)["emb_l.0.weight"].tolist() == [[0.0] * 4] * 5 + [[1.0] * 4] * 5
    assert [path.name for path in tmp_path.iterdir()] == ["sharded"]


def reserve(folder: Path) -> str | None:
    """Reserve a checkpoint as a run of several processes does. Return the error."""
    settings = Settings(save_model=folder)
    try:
        with checkpoints_reserved(settings):
            return None
    except (RunError, UsageError) as error:
        return str(error)


def test_first_process_reserves_the_checkpoint_for_all(tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    assert with_ranks(2, reserve, folder) == [None, None]
    with reserved("--save-model", folder):
        assert with_ranks(2, reserve, folder) == [f"--save-model={folder}: another run saves to this file"] * 2
    (folder / "notes").mkdir(parents=True)
    refused = f"--save-model={folder}: exists and is not a checkpoint; name another folder"
    assert with_ranks(2, reserve, folder) == [refused] * 2


def test_given_initial_weights_are_loaded_by_several_processes(terabyte: Path, tmp_path: Path) -> None:
    flags = flags_of(terabyte, "adagrad")
    assert run_program(*flags, CUT, "--save-model=model.pt", cwd=tmp_path).status == 0
    arrays: dict[str, Any] = {}
    for number, (name, value) in enumerate(read_weights(tmp_path / "model.pt").items()):
        arrays[str(array_name(name))] = np.array(value.numpy(), order="C" if number % 2 else "F")
    np.savez(tmp_path / "initial.npz", **arrays)
    load = f"--load-weights={tmp_path / 'initial.npz'}"
    alone = run_program(*flags, load, cwd=tmp_path)
    shared = run_torchrec(2, *flags, load, "--sharding=row-wise")
    assert shared.losses == pytest.approx(alone.losses, abs=1e-5)
    assert shared.metric_lines == alone.metric_lines
