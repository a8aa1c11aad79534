"""Contents of checkpoints: the format of the original implementation, plus what is needed to resume exactly.

The original implementation (facebookresearch/dlrm) writes and reads `state_dict`, `opt_state_dict`, `epoch`,
`iter`, `nepochs`, `nbatches`, `nbatches_test`, `train_loss`, `total_loss`, `test_acc` and `test_auc`. A checkpoint
is written right after an evaluation, when no gradients and no sums of the loss are pending.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mlperf.evaluation.metrics import Metrics
from mlperf.models.dlrm import DLRM_Net
from mlperf.optim.optimizer import Optimizer
from mlperf.training.checkpoint_file import open_checkpoint, write_checkpoint
from mlperf.training.checkpoint_flags import Flags, check_flags
from mlperf.training.checkpoint_schema import CONTINUATION, FLAGS, check_entries
from mlperf.training.state import TrainingState
from mlperf.training.state_dict import saved_precision, state_dict_mismatch, unwrapped, wrong_kind
from mlperf.training.weight_names import is_of_reference, renamed
from mlperf.util.divided_tensor import range_here
from mlperf.util.errors import RunError

_log = logging.getLogger(__name__)


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
    sharded: bool = False,
) -> None:
    """Write a checkpoint to `path` atomically. RunError if that fails.

    sharded: whether it is a folder, which all processes write together, or a file.
    shuffled: whether the order of the batches depends on `seed`; otherwise it is that of the file.
    flags: recorded, so that a run with contradicting flags cannot load the checkpoint.
    """
    model.tables.flush()
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
        CONTINUATION: {
            "seed": seed,
            "shuffled": shuffled,
            "step": state.step,
            "samples": state.samples,
            "best_accuracy": state.best.accuracy,
            "best_auc": state.best.auc,
        },
    }
    if flags is not None:
        contents[FLAGS] = dict(flags)
    if sharded:
        from mlperf.training.sharded_writer import write_sharded  # imports torch.distributed.checkpoint

        write_sharded(path, contents)
    else:
        write_checkpoint(path, contents)


def load_weights(
    path: Path,
    model: DLRM_Net,
    flags: Flags | None = None,
    *,
    trains: bool = True,
    optimizer: Optimizer | None = None,
    weights_suffice: bool = False,
) -> dict[str, Any]:
    """Fill `model` and `optimizer` from the checkpoint and return its other entries.

    flags: those of this run, which must not contradict the recorded ones; checkpoints of the original
    implementation have none. trains: whether the run continues the training; otherwise it only computes scores,
    and entries that it does not use are not checked. optimizer: that of a run that trains. weights_suffice: as in
    `open_checkpoint`.

    RunError, in one line, if the checkpoint is damaged, is not one of this model, or if training cannot be resumed
    from it. Model and optimizer are unchanged then, unless the damage is in the values of tensors, which are read
    once.
    """
    # The tables are allocated, but the system provides their memory only when they are filled.
    on_cpu = model.tables.device.type == "cpu"
    model_bytes = model.table_bytes() if on_cpu else 0
    with open_checkpoint(path, model_bytes, weights_suffice=weights_suffice) as file:
        contents = file.contents
        found = unwrapped(contents.pop("state_dict"), path)
        weights = model.state_dict()
        if is_of_reference(found):
            if trains:
                raise RunError(
                    f"{path}: cannot resume: has the weights of the reference implementation of DLRM-DCNv2; use "
                    "--inference-only to evaluate them"
                )
            found = renamed(found, weights)
        mismatch = state_dict_mismatch(found, weights)
        if flags is not None and FLAGS in contents:
            check_flags(contents[FLAGS], flags, path, weights=found, same_shapes=mismatch is None, trains=trains)
        problem = mismatch or wrong_kind(found, weights)
        if problem is not None:
            raise RunError(f"{path}: {problem}")
        converted = _is_converted(found, weights, path, trains=trains)
        if trains:
            check_entries(contents, path)
        saved = contents.get("opt_state_dict")
        if optimizer is not None:
            optimizer.check_state_dict(saved, str(path))
        file.fill((value, found[name]) for name, value in weights.items())
        if optimizer is not None:
            optimizer.load_state_dict(saved, str(path), file.fill)
        file.verify()
    if trains:
        _check_finite(weights, path, "cannot resume")
    elif converted:
        _check_range(weights, path)
    return contents


def load_initial(path: Path, model: DLRM_Net, flags: Flags) -> dict[str, Any]:
    """Fill `model` with the weights of a checkpoint of any program, from which new training starts.

    Return its other entries, which are not checked, except for the flags of the model: with another activation
    function, for instance, the weights are of no use. A file with a `state_dict` alone, or only with the weights
    that are in one, suffices. Tables of another precision are converted. RunError as from `load_weights`, and if a
    weight is NaN or infinite.
    """
    contents = load_weights(path, model, flags, trains=False, weights_suffice=True)
    _check_finite(model.state_dict(), path, "cannot start from its weights")
    return contents


def _is_converted(
    found: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor], path: Path, *, trains: bool
) -> bool:
    """Return whether the tables have another precision, and log it. RunError if training is to resume."""
    saved = saved_precision(found, weights)
    if saved is None:
        return False
    if trains:
        raise RunError(
            f"{path}: cannot resume: was saved with --embedding-precision={saved}; pass the flags with which it "
            "was saved"
        )
    _log.info("%s: the embedding tables are stored in %s and are converted", path, saved)
    return True


def _check_range(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Raise RunError if a value became infinite when it was converted to float16."""
    for name, value in weights.items():
        if value.dtype == torch.float16 and any(map(math.isinf, range_here(value))):
            raise RunError(
                f"{path}: {name} has values beyond {torch.finfo(torch.float16).max:,.0f}, the largest of "
                "--embedding-precision=fp16; use bf16 or fp32"
            )


def _check_finite(weights: Mapping[str, torch.Tensor], path: Path, consequence: str) -> None:
    """Raise RunError if a weight is NaN or infinite, from which no training recovers."""
    for name, value in weights.items():
        if not all(math.isfinite(limit) for limit in range_here(value)):
            raise RunError(f"{path}: {consequence}: {name} has NaN or infinite values; the training had diverged")


def saved_position(contents: dict[str, Any]) -> str:
    """Return where a run resumes with these entries of a checkpoint: "epoch 0, iteration 300".

    "weights" if the position is that of an untrained model.
    """
    epoch, iteration = contents["epoch"], contents["iter"]
    return f"epoch {epoch}, iteration {iteration}" if epoch or iteration else "weights"


def described_position(contents: Mapping[str, Any]) -> str | None:
    """Return the position in entries that were not checked: "iteration 300 of epoch 0", None if there is none."""
    epoch, iteration = contents.get("epoch"), contents.get("iter")
    if not isinstance(epoch, int) or not isinstance(iteration, int):
        return None
    return f"iteration {iteration} of epoch {epoch}"


def saved_place(contents: Mapping[str, Any], path: Path) -> tuple[int, int]:
    """Return the epoch and the iteration at which a run resumes. RunError if the entries are damaged."""
    check_entries(contents, path)
    return int(contents["epoch"]), int(contents["iter"])


def load_training(
    path: Path,
    contents: dict[str, Any],
    *,
    batches_per_epoch: int,
    accumulate: int,
    batch_size: int,
    seed: int | None,
) -> TrainingState:
    """Return the state with which training resumes.

    seed: seed of the batch order; None if batches are in file order. Checkpoints of the original implementation
    have no `continuation`. For them, the step count is computed from the number of batches, and the best metrics
    are the saved ones. RunError, in one line, if entries are damaged or contradict each other or this run.
    """
    check_entries(contents, path)
    epoch, iteration, batches = (int(contents[key]) for key in ("epoch", "iter", "nbatches"))
    if batches != batches_per_epoch:
        raise RunError(
            f"{path}: was saved with {batches} batches per epoch, this run has {batches_per_epoch}; resume with "
            "the same --mini-batch-size, --num-batches and data"
        )
    own = contents.get(CONTINUATION, {})
    _check_order(own, seed, path)
    _check_progress(own, epoch, iteration, batches, accumulate, batch_size, path)
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
        accuracy=_metric(own.get("best_accuracy", contents.get("test_acc", math.nan))),
        auc=_metric(own.get("best_auc", contents.get("test_auc", math.nan))),
    )
    return state


def _metric(saved: float) -> float:
    """Return a metric; NaN if it was undefined, which version 0.1.0 stored as minus infinity."""
    return math.nan if saved == -math.inf else float(saved)


def _check_progress(
    own: Mapping[str, Any],
    epoch: int,
    iteration: int,
    batches: int,
    accumulate: int,
    batch_size: int,
    path: Path,
) -> None:
    """Raise RunError if `step` or `samples` in `own` are not those of this position in a run like this one."""
    if not own:
        return
    # Gradients left over at the end of an epoch make a step, except in the original implementation.
    steps = [
        epoch * (batches // accumulate) + iteration // accumulate,
        epoch * math.ceil(batches / accumulate) + math.ceil(iteration / accumulate),
    ]
    # One batch of an epoch can be smaller: the last one of the file, which is anywhere when they are shuffled.
    smaller = epoch + (iteration > 0)
    trained = epoch * batches + iteration
    samples = [trained * batch_size - smaller * (batch_size - 1), trained * batch_size]
    for name, (low, high), flag in (
        ("step", steps, "--mlperf-grad-accum-iter"),
        ("samples", samples, "--mini-batch-size"),
    ):
        if not low <= own[name] <= high:
            allowed = f"{low}" if low == high else f"from {low} to {high}"
            raise RunError(
                f"{path}: cannot resume: {CONTINUATION}.{name} is {own[name]}, but after iteration {iteration} of "
                f"epoch {epoch} it must be {allowed}: damaged, or saved with another {flag}"
            )


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
