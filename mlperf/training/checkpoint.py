"""Contents of checkpoints: the format of the original implementation, plus what is needed to resume exactly.

The original implementation (facebookresearch/dlrm) writes and reads `state_dict`, `opt_state_dict`, `epoch`,
`iter`, `nepochs`, `nbatches`, `nbatches_test`, `train_loss`, `total_loss`, `test_acc` and `test_auc`. A checkpoint
is written right after an evaluation, when no gradients and no sums of the loss are pending.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlperf.evaluation.metrics import Metrics
from mlperf.models.dlrm import DLRM_Net
from mlperf.optim.optimizer import Optimizer
from mlperf.training.checkpoint_file import open_checkpoint, write_checkpoint
from mlperf.training.checkpoint_flags import Flags, check_flags
from mlperf.training.state import TrainingState
from mlperf.training.state_dict import state_dict_mismatch, unwrapped
from mlperf.util.errors import RunError
from mlperf.util.failures import damage

# Our own entries, which the original implementation ignores: what resuming needs, and the flags of the run.
_OWN = "continuation"
_FLAGS = "model_flags"


def save(
    path: Path,
    *,
    model: DLRM_Net,
    optimizer: Optimizer,
    state: TrainingState,
    metrics: Metrics,
    epochs: int,
    batches_per_epoch: int,
    test_batches: int,
    seed: int,
    shuffled: bool = True,
    flags: Flags | None = None,
) -> None:
    """Write a checkpoint to `path` atomically. RunError if that fails.

    shuffled: whether the order of the batches depends on `seed`; otherwise it is that of the file.
    flags: recorded, so that a run with contradicting flags cannot load the checkpoint.
    """
    contents: dict[str, Any] = {
        "epoch": state.epoch,
        "nepochs": epochs,
        "nbatches": batches_per_epoch,
        "nbatches_test": test_batches,
        "state_dict": dict(model.state_dict()),
        "iter": state.iteration,
        "train_loss": state.last_loss,
        "total_loss": 0.0,  # loss since the last progress line; the original implementation requires the key
        "test_acc": metrics.accuracy,
        "test_auc": metrics.auc,
        "opt_state_dict": optimizer.state_dict(),
        _OWN: {
            "seed": seed,
            "shuffled": shuffled,
            "step": state.step,
            "samples": state.samples,
            "best_accuracy": state.best.accuracy,
            "best_auc": state.best.auc,
        },
    }
    if flags is not None:
        contents[_FLAGS] = dict(flags)
    write_checkpoint(path, contents)


def load_weights(
    path: Path, model: DLRM_Net, flags: Flags | None = None, *, trains: bool = True
) -> dict[str, Any]:
    """Fill `model` from the checkpoint and return its other entries. RunError if it belongs to another model.

    flags: those of this run, which must not contradict the recorded ones; checkpoints of the original
    implementation have none. trains: whether the run continues the training; otherwise it only computes scores.
    """
    # The tables are allocated, but the system provides their memory only when they are filled.
    on_cpu = model.tables.device.type == "cpu"
    with open_checkpoint(path, model_bytes=model.table_bytes() if on_cpu else 0) as file:
        contents = file.contents
        found = unwrapped(contents.pop("state_dict"), path)
        weights = model.state_dict()
        mismatch = state_dict_mismatch(found, {name: value.shape for name, value in weights.items()})
        if flags is not None and _FLAGS in contents:
            check_flags(contents[_FLAGS], flags, path, weights=found, same_shapes=mismatch is None, trains=trains)
        if mismatch is not None:
            raise RunError(f"{path}: {mismatch}")
        file.fill((value, found[name]) for name, value in weights.items())
        file.verify()
    return contents


def saved_position(contents: dict[str, Any]) -> str:
    """Return where a run with these entries of a checkpoint starts: "epoch 0, iteration 300", or "weights".

    "weights" if the entries have no position, or that of an untrained model.
    """
    try:
        epoch, iteration = int(contents["epoch"]), int(contents["iter"])
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError):
        return "weights"
    return f"epoch {epoch}, iteration {iteration}" if epoch or iteration else "weights"


def load_training(
    path: Path,
    contents: dict[str, Any],
    *,
    optimizer: Optimizer,
    batches_per_epoch: int,
    accumulate: int,
    batch_size: int,
    seed: int | None,
) -> TrainingState:
    """Restore the optimizer and return the state with which training resumes.

    seed: seed of the batch order; None if batches are in file order. Checkpoints of the original implementation
    have no `continuation`. For them, the step count is computed from the number of batches, and the best metrics
    are the saved ones. RunError if the number of batches differs, because the saved position would be wrong, or if
    entries are damaged.
    """
    try:
        epoch, iteration, batches = (int(contents[key]) for key in ("epoch", "iter", "nbatches"))
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError):
        raise RunError(
            f"{path}: cannot resume: epoch, iter or nbatches is missing (use --inference-only to evaluate)"
        ) from None
    if batches != batches_per_epoch:
        raise RunError(
            f"{path}: was saved with {batches} batches per epoch, this run has {batches_per_epoch}; resume with "
            "the same --mini-batch-size, --num-batches and data"
        )
    if epoch < 0 or not 0 <= iteration <= batches:
        raise RunError(f"{path}: cannot resume: damaged: iteration {iteration} of {batches} of epoch {epoch}")
    with damage(path, "cannot resume: damaged"):
        own = contents.get(_OWN, {})
        _check_order(own, seed, path)
        optimizer.load_state_dict(contents.get("opt_state_dict") or {}, str(path))
        steps = epoch * math.ceil(batches / accumulate) + iteration // accumulate
        state = TrainingState(
            epoch=epoch,
            iteration=iteration,
            step=int(own.get("step", steps)),
            samples=int(own.get("samples", (epoch * batches + iteration) * batch_size)),
            last_loss=float(contents.get("train_loss", math.nan)),
        )
        state.best = replace(
            state.best,
            accuracy=float(own.get("best_accuracy", contents.get("test_acc", math.nan))),
            auc=float(own.get("best_auc", contents.get("test_auc", math.nan))),
        )
    return state


def _check_order(own: dict[str, Any], seed: int | None, path: Path) -> None:
    """Raise RunError if the batches of the saved run have another order. seed: as in `load_training`."""
    if seed is not None and own.get("seed", seed) != seed:
        raise RunError(
            f"{path}: was saved with --numpy-rand-seed={own['seed']}, this run has {seed}, which changes the "
            "order of the batches; resume with the same seed"
        )
    shuffled = seed is not None
    if own.get("shuffled", shuffled) != shuffled:
        raise RunError(
            f"{path}: was saved {'without' if shuffled else 'with'} --mlperf-bin-shuffle and is resumed "
            f"{'with' if shuffled else 'without'} it, which changes the order of the batches"
        )
