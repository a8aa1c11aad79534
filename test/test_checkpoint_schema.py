"""Checkpoints with malformed contents are refused in one line, and leave model and optimizer as they were."""

from __future__ import annotations

import copy
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from dlrm_models import make_model
from malformed_checkpoints import (
    BATCH_SIZE,
    BATCHES,
    OPTIMIZERS,
    SEED,
    malformed,
    number_of_single_changes,
    well_formed,
)

from mlperf.models.dlrm import DLRM_Net
from mlperf.optim.optimizer import Optimizer, make_optimizer
from mlperf.training.checkpoint import load_training, load_weights
from mlperf.training.state import TrainingState
from mlperf.util.errors import RunError

# All cases: MALFORMED_CHECKPOINTS=3000.
CASES = int(os.environ.get("MALFORMED_CHECKPOINTS", "500"))
FLAGS: dict[str, dict[str, str | None]] = {
    name: {"--optimizer": name, "--loss-threshold": "0.0", "--arch-interaction-itself": None}
    for name in OPTIMIZERS
}


def resume(path: Path, name: str, model: DLRM_Net, optimizer: Optimizer) -> TrainingState:
    """Load a checkpoint like a run with the flags of the one that saved `well_formed`."""
    contents = load_weights(path, model, FLAGS[name], optimizer=optimizer)
    return load_training(
        *(path, contents),
        optimizer=optimizer,
        batches_per_epoch=BATCHES,
        accumulate=1,
        batch_size=BATCH_SIZE,
        seed=SEED,
    )


def write(contents: Any, path: Path, *, legacy: bool = False) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of quantized and sparse tensors
        torch.save(contents, path, _use_new_zipfile_serialization=not legacy)


def error_of(path: Path, name: str) -> str:
    """Return the error of a run that resumes; "" if there is none. Assert that a refusal changes nothing else."""
    model = make_model()
    optimizer = make_optimizer(name, model)
    before = copy.deepcopy([model.state_dict(), optimizer.state_dict()])
    try:
        resume(path, name, model, optimizer)
    except RunError as error:
        message = str(error)
    else:
        return ""
    same = [same_tensors(*pair) for pair in zip(before, [model.state_dict(), optimizer.state_dict()], strict=True)]
    # The values of the weights are read once, so the model has them when they are found to be not finite.
    assert same == ["the training had diverged" not in message, True], message
    return message


def same_tensors(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same_tensors(first[key], second[key]) for key in first)
    return bool(first == second)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_well_formed_contents_are_resumed(name: str, legacy: bool, tmp_path: Path) -> None:
    contents = well_formed(name)
    write(contents, tmp_path / "x.pt", legacy=legacy)
    model = make_model()
    optimizer = make_optimizer(name, model)
    state = resume(tmp_path / "x.pt", name, model, optimizer)
    assert same_tensors(dict(model.state_dict()), contents["state_dict"])
    assert same_tensors(optimizer.state_dict()["state"], contents["opt_state_dict"]["state"])
    assert (state.epoch, state.iteration, state.step, state.samples) == (2, 3, 13, 130)
    assert (state.last_loss, state.best.accuracy, state.best.auc) == (0.5, 0.75, 0.875)


def test_malformed_contents_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    wrong: list[str] = []
    for number, (label, contents) in enumerate(malformed(1, CASES)):
        write(contents, path, legacy=number % 5 == 0)
        message = error_of(path, label.partition(":")[0])
        if not message.startswith(f"{path}: ") or not message.isprintable() or len(message) > 400 + len(str(path)):
            wrong.append(f"{label[:200]}: {message[:500]!r}")
    assert wrong == []


def test_malformed_contents_are_distinct() -> None:
    labels = [label for label, _ in malformed(1, number_of_single_changes() + 100)]
    assert len(set(labels)) == len(labels) > 2000
