"""Saving, resuming and evaluating checkpoints, and rejecting files that are not checkpoints."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dlrm_models import make_model
from program import GOLDEN, golden_flags, run_program
from small_runs import SHAPE, TRAIN, train

from mlperf.evaluation.metrics import Metrics
from mlperf.optim.optimizer import make_optimizer
from mlperf.training.checkpoint import load_training, load_weights, save
from mlperf.training.checkpoint_file import read_checkpoint, write_checkpoint
from mlperf.training.state import TrainingState
from mlperf.util import memory
from mlperf.util.errors import RunError

GOLDEN_CHECKPOINT = GOLDEN / "terabyte" / "sgd.pt"


@pytest.mark.parametrize(
    "flags",
    [
        ("--optimizer=sgd",),
        ("--optimizer=adagrad", "--print-freq=4"),
        ("--optimizer=rwsadagrad", "--mlperf-bin-shuffle", "--print-freq=5"),
        (
            "--mlperf-grad-accum-iter=3",
            "--lr-num-warmup-steps=4",
            "--lr-decay-start-step=5",
            "--lr-num-decay-steps=9",
        ),
        ("--optimizer=rwsadagrad", "--weighted-pooling=learned"),
        ("--optimizer=adagrad", "--weighted-pooling=learned", "--num-batches=9"),
    ],
    ids=" ".join,
)
def test_resumed_run_prints_the_same_as_an_uninterrupted_one(
    flags: tuple[str, ...], terabyte: Path, tmp_path: Path
) -> None:
    whole = train(terabyte, tmp_path, *flags, "--save-model=last.pt")
    lines = whole.stdout.splitlines()
    saved = torch.load(tmp_path / "last.pt", weights_only=True)
    where = f"Testing at - {saved['iter']}/{saved['nbatches']} of epoch {saved['epoch']},"
    # The target is so low that this run stops at its first evaluation.
    cut = run_program(
        *(*SHAPE, *TRAIN, *flags, f"--processed-data-file={terabyte}", "--save-model=first.pt"),
        *("--mlperf-auc-threshold=0.01",),
        cwd=tmp_path,
    )
    assert cut.status == 0, cut.stderr
    continued = train(terabyte, tmp_path, *flags, "--load-model=first.pt", "--save-model=other.pt")
    first = len(cut.stdout.splitlines())
    assert 0 < first < len(lines)
    assert continued.stdout.splitlines()[1:] == lines[first:]
    assert where in lines


def test_checkpoint_has_the_published_format(terabyte: Path, tmp_path: Path) -> None:
    train(terabyte, tmp_path, "--save-model=own.pt")
    own = torch.load(tmp_path / "own.pt", weights_only=True)
    published: dict[str, Any] = torch.load(GOLDEN_CHECKPOINT, weights_only=False)
    assert set(published) <= set(own)
    assert list(own["state_dict"]) == [f"emb_l.{table}.weight" for table in range(26)] + [
        f"{layer}.{kind}" for layer in ("bot_l.0", "bot_l.2", "top_l.0", "top_l.2") for kind in ("weight", "bias")
    ]
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_saved_model_is_the_one_with_the_best_auc(terabyte: Path, tmp_path: Path) -> None:
    run = train(terabyte, tmp_path, "--save-model=own.pt")
    aucs = [float(line.split(", auc ")[1].split(",")[0]) for line in run.metric_lines]
    evaluated = run_program(
        *(*SHAPE, "--mlperf-logging", "--inference-only", "--load-model=own.pt"),
        f"--processed-data-file={terabyte}",
        cwd=tmp_path,
    )
    assert evaluated.status == 0, evaluated.stderr
    assert f"auc {max(aucs):.4f}" in evaluated.metric_lines[0]


def test_published_checkpoint_can_be_resumed(terabyte: Path, tmp_path: Path) -> None:
    flags = [flag for flag in golden_flags("sgd", terabyte) if not flag.startswith("--nepochs")]
    run = run_program(*flags, "--nepochs=3", f"--load-model={GOLDEN_CHECKPOINT}", cwd=tmp_path)
    assert run.status == 0, run.stderr
    assert run.progress_lines[0].split(",")[0].endswith("of epoch 1") or "of epoch 2" in run.progress_lines[0]


def published() -> dict[str, Any]:
    contents: dict[str, Any] = torch.load(GOLDEN_CHECKPOINT, weights_only=False)
    return contents


def test_complete_training_state_is_saved(tmp_path: Path) -> None:
    model = make_model()
    optimizer = make_optimizer("sgd", model)
    best = Metrics(accuracy=0.8, recall=0.1, precision=0.2, f1=0.3, average_precision=0.4, auc=0.7)
    state = TrainingState(epoch=2, iteration=3, step=13, samples=130, last_loss=0.5, best=best)
    path = tmp_path / "model.pt"
    save(
        path,
        model=model,
        optimizer=optimizer,
        state=state,
        metrics=best,
        epochs=4,
        batches_per_epoch=5,
        test_batches=6,
        seed=9,
    )
    contents = load_weights(path, make_model())
    again = load_training(path, contents, batches_per_epoch=5, accumulate=1, batch_size=10, seed=9)
    assert (again.epoch, again.iteration, again.step, again.samples, again.last_loss) == (2, 3, 13, 130, 0.5)
    assert (again.best.accuracy, again.best.auc) == (0.8, 0.7)


OWN = {"seed": 0, "step": 3, "samples": 30, "best_accuracy": 0.5, "best_auc": 0.5}


@pytest.mark.parametrize(
    "entries",
    [
        *({"iter": 99}, {"iter": -1}, {"epoch": -1}, {"nbatches": 5.0}, {"train_loss": None}),
        *({"continuation": None}, {"continuation": {**OWN, "step": "x"}}, {"opt_state_dict": [1]}),
        {"continuation": {**OWN, "best_auc": None}},
    ],
    ids=str,
)
def test_damaged_entries_are_refused_by_one_line(entries: dict[str, Any]) -> None:
    contents = {"epoch": 0, "iter": 3, "nbatches": 5, **entries}
    with pytest.raises(RunError, match=r"^x\.pt: cannot resume: damaged: [^\n]+$"):
        load_training(
            *(Path("x.pt"), contents),
            batches_per_epoch=5,
            accumulate=1,
            batch_size=10,
            seed=None,
        )


def test_position_and_best_metrics_of_a_published_checkpoint_are_restored() -> None:
    contents = published()
    state = load_training(
        GOLDEN_CHECKPOINT,
        contents,
        batches_per_epoch=contents["nbatches"],
        accumulate=4,
        batch_size=10,
        seed=None,
    )
    epoch, iteration, batches = contents["epoch"], contents["iter"], contents["nbatches"]
    assert (state.epoch, state.iteration) == (epoch, iteration)
    assert state.step == epoch * -(-batches // 4) + iteration // 4
    assert state.samples == 10 * (epoch * batches + iteration)
    assert state.last_loss == contents["train_loss"]
    assert (state.best.accuracy, state.best.auc) == (contents["test_acc"], contents["test_auc"])


class RunsCode:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "old pickle"])
def test_file_that_would_execute_code_is_rejected(kind: str, tmp_path: Path) -> None:
    contents = {**published(), "train_loss": RunsCode(tmp_path / "witness")}
    path = tmp_path / "evil.pt"
    if kind.endswith("pickle"):
        contents = {"state_dict": {}, "train_loss": contents["train_loss"]}
        path.write_bytes(pickle.dumps(contents, protocol=0 if kind == "old pickle" else 4))
    else:
        torch.save(contents, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(RunError, match=r"refused: it references .*mkdir") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "witness").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_program_is_rejected(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "program.pt")
    with pytest.raises(RunError, match="refused: a TorchScript program"):
        read_checkpoint(tmp_path / "program.pt")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.5, 0.999])
def test_truncated_file_is_rejected_in_one_line(fraction: float, legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "cut.pt"
    torch.save(published(), path, _use_new_zipfile_serialization=not legacy)
    contents = path.read_bytes()
    path.write_bytes(contents[: int(fraction * len(contents))])
    with pytest.raises(RunError, match=r"damaged, or not a PyTorch checkpoint|empty file") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("contents", [b"hello\n" * 50, bytes(range(256)) * 20, b"PK\x03\x04" + bytes(100)])
def test_file_of_another_format_is_rejected_in_one_line(contents: bytes, tmp_path: Path) -> None:
    (tmp_path / "foreign.pt").write_bytes(contents)
    with pytest.raises(RunError, match="damaged, or not a PyTorch checkpoint") as caught:
        read_checkpoint(tmp_path / "foreign.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("contents", [[1, 2], {"weight": torch.zeros(2)}, {"state_dict": 3}])
def test_pytorch_file_without_a_state_dict_is_rejected(contents: object, tmp_path: Path) -> None:
    torch.save(contents, tmp_path / "other.pt")
    with pytest.raises(RunError, match="no state_dict"):
        read_checkpoint(tmp_path / "other.pt")


def test_legacy_format_evaluates_like_the_zip_format(terabyte: Path, tmp_path: Path) -> None:
    contents = published()
    contents["train_loss"] = np.float32(contents["train_loss"])
    torch.save(contents, tmp_path / "older.pt", _use_new_zipfile_serialization=False)
    flags = golden_flags("sgd_inference", terabyte)
    older = run_program(*flags, "--load-model=older.pt", cwd=tmp_path)
    newer = run_program(*flags, f"--load-model={GOLDEN_CHECKPOINT}", cwd=tmp_path)
    assert older.status == 0, older.stderr
    assert older.stdout == newer.stdout


def test_reading_the_legacy_format_prints_no_warnings(terabyte: Path, tmp_path: Path) -> None:
    torch.save(published(), tmp_path / "older.pt", _use_new_zipfile_serialization=False)
    flags = golden_flags("sgd_inference", terabyte)
    run = run_program(*flags, "--load-model=older.pt", cwd=tmp_path)
    assert run.stderr == "engine: cpu (fused loops and oneDNN products)\n"


def change_table(contents: dict[str, Any]) -> None:
    contents["state_dict"]["emb_l.3.weight"] = contents["state_dict"]["emb_l.3.weight"][:-1]


def change_dimension(contents: dict[str, Any]) -> None:
    for name, value in contents["state_dict"].items():
        if name.startswith("emb_l"):
            contents["state_dict"][name] = value[:, :-1]


def drop_layer(contents: dict[str, Any]) -> None:
    del contents["state_dict"]["top_l.0.weight"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_table, ("table 3", "rows in the checkpoint", "--max-ind-range", "--data-sub-sample-rate")),
        (change_dimension, ("table 0", "dimension", "--arch-sparse-feature-size")),
        (drop_layer, ("lacks top_l.0.weight", "--arch-mlp-top")),
    ],
)
def test_error_for_a_checkpoint_of_another_model_names_the_difference_and_the_flag(  # type: ignore[no-untyped-def]
    change, words: tuple[str, ...], terabyte: Path, tmp_path: Path
) -> None:
    contents = published()
    change(contents)
    torch.save(contents, tmp_path / "other.pt")
    run = run_program(*golden_flags("sgd_inference", terabyte), "--load-model=other.pt", cwd=tmp_path)
    assert run.status == 1
    assert len(run.stderr.splitlines()) == 1
    for word in words:
        assert word in run.stderr


def test_error_names_the_rows_of_both_tables(terabyte: Path, tmp_path: Path) -> None:
    contents = published()
    rows = len(contents["state_dict"]["emb_l.3.weight"])
    change_table(contents)
    torch.save(contents, tmp_path / "other.pt")
    run = run_program(*golden_flags("sgd_inference", terabyte), "--load-model=other.pt", cwd=tmp_path)
    assert f"{rows - 1} rows in the checkpoint and {rows} in the data" in run.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--mini-batch-size=32",), "--mini-batch-size"),
        (("--optimizer=adagrad",), "--optimizer"),
        (("--mlperf-bin-shuffle", "--numpy-rand-seed=8"), "--numpy-rand-seed"),
    ],
)
def test_checkpoint_is_not_resumed_with_other_flags(
    flags: tuple[str, ...], words: str, terabyte: Path, tmp_path: Path
) -> None:
    train(terabyte, tmp_path, "--save-model=own.pt", "--mlperf-bin-shuffle")
    run = run_program(
        *(*SHAPE, *TRAIN, f"--processed-data-file={terabyte}", "--load-model=own.pt", *flags), cwd=tmp_path
    )
    assert run.status == 1
    assert words in run.stderr


def test_file_larger_than_the_available_memory_is_rejected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.save(published(), tmp_path / "older.pt", _use_new_zipfile_serialization=False)
    shutil.copy(GOLDEN_CHECKPOINT, tmp_path / "newer.pt")
    monkeypatch.setattr(memory, "available_memory", lambda: 10_000)
    with pytest.raises(RunError, match=r"older\.pt: needs .* MB of memory, 10\.0 kB are available"):
        read_checkpoint(tmp_path / "older.pt")
    with pytest.raises(RunError, match=r"newer\.pt: needs 20\.0 kB of memory, 10\.0 kB are available"):
        read_checkpoint(tmp_path / "newer.pt", model_bytes=20_000)
    read_checkpoint(tmp_path / "newer.pt", model_bytes=5_000)


def test_failed_write_leaves_only_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    write_checkpoint(path, {"state_dict": {"a": torch.zeros(3)}})
    before = path.read_bytes()
    with pytest.raises(Exception, match=r"pickle|local"):
        write_checkpoint(path, {"state_dict": {}, "bad": lambda: None})
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["model.pt"]


def test_missing_folder_is_reported_before_training(terabyte: Path, tmp_path: Path) -> None:
    run = run_program(
        *(*SHAPE, *TRAIN, f"--processed-data-file={terabyte}", "--save-model=none/own.pt"), cwd=tmp_path
    )
    assert run.status == 2
    assert "--save-model=none/own.pt" in run.stderr
    assert run.stdout == ""
