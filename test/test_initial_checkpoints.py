"""--load-weights with checkpoints of this and other programs: new training from their weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from program import read_events, run_program
from small_runs import SHAPE, TRAIN, train

State = dict[str, torch.Tensor]
FLAGS = (*SHAPE, *TRAIN)


@pytest.fixture(scope="module")
def trained(terabyte: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint of a small run with Adagrad."""
    folder = tmp_path_factory.mktemp("trained")
    train(terabyte, folder, "--save-model=model.pt", "--optimizer=adagrad", "--num-batches=6", "--nepochs=1")
    return folder / "model.pt"


def weights_of(checkpoint: Path) -> State:
    found: State = torch.load(checkpoint, weights_only=True)["state_dict"]
    return found


def of_reference(state: State) -> State:
    """Return weights with the names and the wrapper of another program."""
    return {f"module.{name}": value for name, value in state.items()}


CONTENTS: dict[str, Callable[[State], Any]] = {
    "bare state_dict": OrderedDict,
    "parameters": lambda state: {name: torch.nn.Parameter(value) for name, value in state.items()},
    "wrapped": of_reference,
    "state_dict alone": lambda state: {"state_dict": state},
    "model_state_dict": lambda state: {"model_state_dict": state, "epoch": 7, "loss": 0.5},
    "model": lambda state: {"model": state, "args": {"lr": 0.1}},
}


@pytest.mark.parametrize("kind", [*CONTENTS, "own", "folder", "older format"])
def test_training_starts_anew_from_the_weights_of_any_checkpoint(
    kind: str, trained: Path, terabyte: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source.pt"
    if kind == "own":
        source = trained
    elif kind == "folder":
        source = tmp_path / "sharded"
        run = run_program(str(trained), "sharded", cwd=tmp_path, program="tools/convert_checkpoint.py")
        assert run.status == 0, run.stderr
    elif kind == "older format":
        torch.save({"state_dict": weights_of(trained)}, source, _use_new_zipfile_serialization=False)
    else:
        torch.save(CONTENTS[kind](weights_of(trained)), source)
    flags = (*FLAGS, f"--processed-data-file={terabyte}", f"--load-weights={source}", "--test-freq=1")
    # So small a rate leaves float32 weights as they are: what is saved is what was loaded.
    rest = ("--num-batches=1", "--nepochs=1", "--learning-rate=1e-30", "--save-model=new.pt")
    run = run_program(*flags, *rest, "--mlperf-log-file=new.log", cwd=tmp_path)
    assert run.status == 0, run.stderr
    assert f"--load-weights={source}: the weights are those of this checkpoint" in run.stderr
    assert "the training starts anew, with a new optimizer" in run.stderr
    new = torch.load(tmp_path / "new.pt", weights_only=True)
    assert (new["epoch"], new["iter"], new["continuation"]["step"]) == (0, 1, 1)
    for name, value in weights_of(trained).items():
        torch.testing.assert_close(new["state_dict"][name], value, rtol=0, atol=0)
    (start,) = read_events(tmp_path / "new.log", "run_start")
    assert start["metadata"]["started_from"] == "weights"


def test_new_training_has_its_own_optimizer_schedule_and_precision(
    trained: Path, terabyte: Path, tmp_path: Path
) -> None:
    flags = (*FLAGS, f"--processed-data-file={terabyte}", f"--load-weights={trained}", "--save-model=new.pt")
    other = ("--optimizer=rwsadagrad", "--embedding-precision=bf16", "--mlperf-grad-accum-iter=2")
    run = run_program(*flags, *other, "--num-batches=6", "--lr-num-warmup-steps=4", cwd=tmp_path)
    assert run.status == 0, run.stderr
    assert "which was saved after iteration 6 of epoch 0; the training starts anew" in run.stderr
    assert "the embedding tables are stored in fp32 and are converted" in run.stderr
    assert run.progress_lines[0].startswith("Finished training it 1/6 of epoch 0")


@pytest.mark.parametrize(
    ("flags", "change", "message"),
    [
        ("--activation-function=tanh", None, "was saved with --activation-function=relu but is loaded with "),
        ("--arch-mlp-top=8-1", None, "was saved with --arch-mlp-top=16-1 but is loaded with --arch-mlp-top=8-1;"),
        ("", "nan", "cannot start from its weights: emb_l.3.weight has NaN or infinite values"),
        ("", "short", "lacks emb_l.3.weight: saved with other model flags"),
        ("", "double", "emb_l.3.weight is float64 of shape [151, 8], must be float32 of shape "),
        ("", "number", "a PyTorch file, but not a checkpoint of this benchmark: it has no state_dict"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    flags: str, change: str | None, message: str, trained: Path, terabyte: Path, tmp_path: Path
) -> None:
    source = trained
    if change is not None:
        state: dict[str, Any] = dict(weights_of(trained))
        if change == "nan":
            state["emb_l.3.weight"] = state["emb_l.3.weight"].clone()
            state["emb_l.3.weight"][0, 0] = torch.nan
        elif change == "short":
            del state["emb_l.3.weight"]
        elif change == "double":
            state["emb_l.3.weight"] = state["emb_l.3.weight"].double()
        else:
            state["steps"] = 3
        source = tmp_path / "source.pt"
        torch.save(state, source)
    given = (*FLAGS, f"--processed-data-file={terabyte}", f"--load-weights={source}", *flags.split())
    run = run_program(*given, cwd=tmp_path)
    assert run.status == 1
    assert run.stderr.splitlines()[-1].startswith(f"dlrm_s_pytorch.py: error: {source}: {message}")


def test_archive_of_arrays_is_recognized_by_its_contents_and_has_no_pooling_weights(
    terabyte: Path, tmp_path: Path
) -> None:
    with (tmp_path / "weights").open("wb") as file:
        arrays: dict[str, Any] = {"emb.0.weight": np.zeros((3, 8), np.float32)}
        np.savez(file, **arrays)
    flags = (*FLAGS, f"--processed-data-file={terabyte}", "--load-weights=weights")
    run = run_program(*flags, cwd=tmp_path)
    assert run.stderr.splitlines()[-1].startswith("dlrm_s_pytorch.py: error: weights: lacks emb.1.weight")
    run = run_program(*flags, "--weighted-pooling=learned", cwd=tmp_path)
    assert (run.status, run.stderr.splitlines()[-1]) == (
        1,
        "dlrm_s_pytorch.py: error: weights: an archive of arrays has no weights for --weighted-pooling, --qr-flag "
        "and --md-flag, such as v_W_l.0; load them from a checkpoint",
    )


def test_compressed_tables_and_pooling_weights_are_loaded_from_checkpoints(terabyte: Path, tmp_path: Path) -> None:
    shape = ("--qr-flag", "--qr-threshold=10", "--weighted-pooling=learned", "--num-batches=6", "--nepochs=1")
    train(terabyte, tmp_path, "--save-model=qr.pt", *shape)
    given = (*FLAGS, f"--processed-data-file={terabyte}", *shape, "--inference-only")
    loaded = run_program(*given, "--load-model=qr.pt", cwd=tmp_path)
    weights = run_program(*given, "--load-weights=qr.pt", cwd=tmp_path)
    assert loaded.metric_lines == weights.metric_lines != []
