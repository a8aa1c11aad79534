"""Sharded checkpoints for tests, made without processes: folders that were converted from files."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from dlrm_models import make_model, train_steps

from mlperf.evaluation.metrics import Metrics
from mlperf.models.dlrm import DLRM_Net
from mlperf.optim.optimizer import Optimizer, make_optimizer
from mlperf.training.checkpoint import save
from mlperf.training.checkpoint_file import open_checkpoint
from mlperf.training.convert_checkpoint import convert
from mlperf.training.sharded_index import INDEX_NAME
from mlperf.training.state import TrainingState

SHARD_BYTES = 100  # a few rows


def save_file(path: Path, optimizer: str = "adagrad", steps: int = 3) -> tuple[DLRM_Net, Optimizer]:
    """Save a small model that was trained for some steps to a file."""
    model = make_model()
    trained = make_optimizer(optimizer, model)
    train_steps(model, trained, range(steps))
    metrics = Metrics(accuracy=0.8, recall=0.1, precision=0.2, f1=0.3, average_precision=0.4, auc=float("nan"))
    save(
        path,
        model=model,
        optimizer=trained,
        state=TrainingState(iteration=steps, step=steps, samples=6 * steps, last_loss=0.5, best=metrics),
        metrics=metrics,
        epochs=2,
        batches_per_epoch=5,
        test_batches=6,
        seed=9,
        flags={"--optimizer": optimizer, "--loss-weights": None},
    )
    return model, trained


def save_folder(folder: Path, optimizer: str = "adagrad") -> tuple[DLRM_Net, Optimizer]:
    """Do the same, to a folder with shards of a few rows."""
    file = folder.with_suffix(".pt")
    saved = save_file(file, optimizer)
    convert(file, folder, shard_bytes=SHARD_BYTES)
    file.unlink()
    return saved


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a file or folder, verified."""
    with open_checkpoint(path) as file:
        weights = {name: torch.empty(value.shape) for name, value in file.contents["state_dict"].items()}
        file.fill((weights[name], value) for name, value in file.contents["state_dict"].items())
        file.verify()
    return weights


def change_index(folder: Path, change: Callable[[Any], object]) -> None:
    """Change the index of a folder, with the digest that belongs to it."""
    path = folder / INDEX_NAME
    body = json.loads(path.read_text())
    del body["sha256"]
    change(body)
    path.write_text(json.dumps({**body, "sha256": sha256(json.dumps(body).encode()).hexdigest()}))
