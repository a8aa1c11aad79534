"""Checkpoints with malformed contents are refused in one line, and leave model and optimizer as they were."""

from __future__ import annotations

import copy
import math
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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
from program import GOLDEN, Finished, golden_flags, run_program

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
    """Return the error of a run that resumes; "" if there is none.

    Assert that a checkpoint that is refused by itself, not because of the run, changes no model and no optimizer.
    """
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
    # The values of tensors are read once, and so are the optimizer's before the position is compared with the run.
    late = ("the training had diverged", "sums of squares cannot be", "but after iteration")
    assert any(text in message for text in late) or same == [True, True], message
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


@pytest.mark.filterwarnings("ignore::UserWarning")  # of sparse and quantized tensors
def test_malformed_contents_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    wrong: list[str] = []
    for number, (label, contents) in enumerate(malformed(1, CASES)):
        write(contents, path, legacy=number % 5 == 0)
        message = error_of(path, label.partition(":")[0])
        if not message.startswith(f"{path}: ") or not message.isprintable() or len(message) > 400 + len(str(path)):
            wrong.append(f"{label[:200]}: {message[:500]!r}")
    assert wrong == []


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_malformed_contents_are_distinct() -> None:
    labels = [label for label, _ in malformed(1, number_of_single_changes() + 100)]
    assert len(set(labels)) == len(labels) > 2000


def load_changed(
    change: Callable[[dict[str, Any]], object], name: str, folder: Path
) -> tuple[DLRM_Net, Optimizer]:
    """Save `well_formed` after a change, resume from it, and return model and optimizer."""
    contents = well_formed(name)
    change(contents)
    write(contents, folder / "x.pt")
    model = make_model()
    optimizer = make_optimizer(name, model)
    resume(folder / "x.pt", name, model, optimizer)
    return model, optimizer


def replace_tensors(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, Any]], None]:
    def replace_all(contents: dict[str, Any]) -> None:
        for entries in (contents["state_dict"], *contents["opt_state_dict"]["state"].values()):
            for name, value in entries.items():
                if value.dim():
                    entries[name] = change(value)

    return replace_all


def into_one_storage(contents: dict[str, Any]) -> None:
    weights = contents["state_dict"]
    flat = torch.cat([value.flatten() for value in weights.values()])
    start = 0
    for name, value in weights.items():
        weights[name] = flat[start : start + value.numel()].view(value.shape)
        start += value.numel()


@pytest.mark.parametrize(
    "change",
    [
        replace_tensors(lambda tensor: tensor.t().contiguous().t() if tensor.dim() == 2 else tensor),
        replace_tensors(lambda tensor: torch.cat([tensor, tensor])[: len(tensor)]),
        replace_tensors(lambda tensor: torch.stack([tensor, -tensor], -1)[..., 0]),
        replace_tensors(lambda tensor: torch.nn.Parameter(tensor.clone())),
        replace_tensors(lambda tensor: torch.nn.Parameter(tensor.clone(), requires_grad=False)),
        into_one_storage,
    ],
    ids=["by columns", "slices of rows", "slices of columns", "parameters", "constants", "one storage"],
)
@pytest.mark.parametrize("name", ["adagrad", "rwsadagrad"])
def test_tensors_in_any_layout_are_read(
    name: str, change: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    model, optimizer = load_changed(change, name, tmp_path)
    assert same_tensors(dict(model.state_dict()), well_formed(name)["state_dict"])
    assert same_tensors(optimizer.state_dict()["state"], well_formed(name)["opt_state_dict"]["state"])


def of_older_original(contents: dict[str, Any]) -> None:
    """Change contents to those of the first versions of the original implementation."""
    del contents["continuation"], contents["model_flags"], contents["test_auc"]
    contents.update(train_acc=np.float64(0.8), total_acc=np.int64(7), test_loss=np.float32(0.5), total_loss=0)
    contents.update(epoch=np.int64(2), nbatches=np.int32(BATCHES), train_loss=np.float64(math.nan))


def of_version_0_1_0(contents: dict[str, Any]) -> None:
    del contents["continuation"]["shuffled"], contents["model_flags"]
    contents["test_auc"], contents["continuation"]["best_auc"] = math.nan, -math.inf
    contents["continuation"].update(window_loss=1.5, window_correct=2.0, window_samples=30, window_iterations=3)


def wrapped(contents: dict[str, Any]) -> None:
    contents["state_dict"] = {f"module.{name}": value for name, value in contents["state_dict"].items()}


def of_pytorch(contents: dict[str, Any]) -> None:
    """Add what classes of torch.optim and learning rate schedules store, and number the steps in integers."""
    state = contents["opt_state_dict"]
    (group,) = state["param_groups"]
    group.update(
        maximize=False, foreach=None, differentiable=False, fused=None, initial_lr=0.5, lr=torch.tensor(0.5)
    )
    state["param_groups"] = [{**group, "params": part} for part in (group["params"][:3], group["params"][3:])]
    for number in range(len(group["params"])):
        state["state"].setdefault(number, {})["step"] = 13


@pytest.mark.parametrize("change", [of_older_original, of_version_0_1_0, wrapped, of_pytorch])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_checkpoints_of_other_versions_and_programs_are_resumed(
    name: str, change: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    model, optimizer = load_changed(change, name, tmp_path)
    expected = well_formed(name)
    assert same_tensors(dict(model.state_dict()), expected["state_dict"])
    assert same_tensors(optimizer.state_dict()["state"], expected["opt_state_dict"]["state"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda contents: contents.update(epoch=-1), "damaged: epoch is -1, must be a whole number from 0 to "),
        (lambda contents: contents.update(iter=True), "damaged: iter is True, must be a whole number from 0 to "),
        (lambda contents: contents.update(iter=6), "damaged: iter is 6, but nbatches is 5"),
        (lambda contents: contents.pop("nbatches"), "nbatches is missing (use --inference-only to evaluate)"),
        (
            lambda contents: contents.update(test_auc=2),
            "damaged: test_auc is 2, must be a number from 0 to 1, or NaN",
        ),
        (
            lambda contents: contents.update({"a\nb\x1b": 1}),
            r"unknown entry a\nb\x1b, of another program or a later",
        ),
        (
            lambda contents: contents["continuation"].update(samples=131),
            "continuation.samples is 131, but after iteration 3 of epoch 2 it must be from 103 to 130: damaged, "
            "or saved with another --mini-batch-size",
        ),
        (
            lambda contents: contents["continuation"].update(step=12),
            "continuation.step is 12, but after iteration 3 of epoch 2 it must be 13: damaged, or saved with "
            "another --mlperf-grad-accum-iter",
        ),
        (
            lambda contents: contents["opt_state_dict"]["state"][1].update(sum=torch.ones(1, 4)),
            "opt_state_dict.state.1.sum is float32 of shape [1, 4], must be float32 of shape [2, 4]",
        ),
        (
            lambda contents: contents["opt_state_dict"]["param_groups"][0].update(weight_decay=0.1),
            "opt_state_dict.param_groups: weight_decay is 0.1, this optimizer uses 0",
        ),
        (
            lambda contents: contents["state_dict"]["bot_l.0.bias"].fill_(math.nan),
            "bot_l.0.bias has NaN or infinite values; the training had diverged",
        ),
    ],
)
def test_error_names_the_entry_what_it_is_and_what_is_allowed(
    change: Callable[[dict[str, Any]], object], words: str, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=re.escape(f"x.pt: cannot resume: {words}")):
        load_changed(change, "adagrad", tmp_path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.bool, torch.float16, torch.complex64])
def test_weights_of_another_type_are_not_converted(dtype: torch.dtype, tmp_path: Path) -> None:
    name = str(dtype).removeprefix("torch.")
    write(
        {"state_dict": {key: value.to(dtype) for key, value in make_model().state_dict().items()}},
        tmp_path / "x.pt",
    )
    model = make_model()
    before = copy.deepcopy(model.state_dict())
    first = r"bot_l\.0\.weight" if dtype == torch.float16 else r"emb_l\.0\.weight"  # tables are in 16 bits, too
    with pytest.raises(RunError, match=rf"{first} is {name} of shape \[\d+, \d\], must be float32 of shape"):
        load_weights(tmp_path / "x.pt", model, trains=False)
    assert same_tensors(dict(before), dict(model.state_dict()))


def evaluate(contents: dict[str, Any], prefix: Path, cwd: Path, *flags: str) -> Finished:
    write(contents, cwd / "x.pt")
    return run_program(*golden_flags("sgd_inference", prefix), "--load-model=x.pt", *flags, cwd=cwd)


def golden() -> dict[str, Any]:
    contents: dict[str, Any] = torch.load(GOLDEN / "terabyte" / "sgd.pt", weights_only=False)
    return contents


def test_weights_alone_are_evaluated_but_not_resumed(terabyte: Path, tmp_path: Path) -> None:
    weights = {"state_dict": golden()["state_dict"]}
    whole = evaluate(golden(), terabyte, tmp_path)
    assert whole.status == 0
    assert evaluate(weights, terabyte, tmp_path).stdout == whole.stdout
    run = run_program(*golden_flags("sgd", terabyte), "--load-model=x.pt", cwd=tmp_path)
    assert run.status == 1
    assert (
        "x.pt: cannot resume: epoch, iter, nbatches are missing (use --inference-only to evaluate)" in run.stderr
    )


def test_evaluation_with_weights_that_are_not_finite_says_so(terabyte: Path, tmp_path: Path) -> None:
    contents = golden()
    contents["state_dict"]["top_l.0.weight"][0, 0] = math.nan
    run = evaluate(contents, terabyte, tmp_path)
    assert run.status == 1
    assert "a predicted probability is not a number in [0, 1]: the model has diverged" in run.stderr


HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\nTraceback (most recent call last):\n\x9b\u202e" + "x" * 100_000


@pytest.mark.parametrize(
    "where",
    [
        lambda contents: contents["state_dict"].update({HOSTILE: torch.zeros(1)}),
        lambda contents: contents["state_dict"].update({f"module.{HOSTILE}": torch.zeros(1)}),
        lambda contents: contents.update(model_flags={HOSTILE: "x"}),
        lambda contents: contents.update(model_flags={"--activation-function": HOSTILE}),
        lambda contents: contents.update(
            model_flags={"--max-ind-range": HOSTILE, "--data-sub-sample-rate": "0.0"}
        ),
    ],
)
def test_names_and_values_from_a_file_are_printed_short_and_without_control_characters(
    where: Callable[[dict[str, Any]], object], terabyte: Path, tmp_path: Path
) -> None:
    contents = golden()
    where(contents)
    run = evaluate(contents, terabyte, tmp_path)
    assert run.status == 1
    (line,) = run.stderr.splitlines()
    assert line.isprintable()
    assert r"\x1b]0;owned" in line
    assert len(line) < 600
