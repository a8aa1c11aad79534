"""Checkpoints record the flags of the run, and a run with contradicting flags cannot load them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from program import GOLDEN
from small_runs import error_of, load, train

from mlperf.data.prepare.pipeline import prepare
from mlperf.settings.dataset import PreparationSettings
from mlperf.settings.flags import declared_flags
from mlperf.settings.from_flags import parse
from mlperf.settings.model import ModelSettings
from mlperf.training.checkpoint_flags import check_flags, recorded_flags
from mlperf.util.errors import RunError

QR = ("--qr-flag", "--qr-threshold=10")
RESUME: tuple[str, ...] = ()
EVALUATE = ("--inference-only",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def checkpoint(terabyte: Path, folder: Path) -> Path:
    train(terabyte, folder, "--save-model=own.pt", "--mlperf-auc-threshold=0.01")
    return folder / "own.pt"


@pytest.mark.parametrize("purpose", [RESUME, EVALUATE], ids=["resume", "evaluate"])
@pytest.mark.parametrize(
    ("flag", "saved", "loaded"),
    [
        ("--activation-function=tanh", "with --activation-function=relu", "with --activation-function=tanh"),
        ("--activation-function=sigmoid", "with --activation-function=relu", "with --activation-function=sigmoid"),
        ("--loss-threshold=0.1", "with --loss-threshold=0.0", "with --loss-threshold=0.1"),
        ("--arch-interaction-op=sum", "with --arch-interaction-op=dot", "with --arch-interaction-op=sum"),
        ("--arch-interaction-itself", "without --arch-interaction-itself", "with --arch-interaction-itself"),
        ("--weighted-pooling=fixed", "without --weighted-pooling", "with --weighted-pooling=fixed"),
        ("--arch-mlp-top=32-1", "with --arch-mlp-top=16-1", "with --arch-mlp-top=32-1"),
    ],
)
def test_flag_that_changes_the_scores_is_refused_by_name(
    flag: str, saved: str, loaded: str, purpose: tuple[str, ...], checkpoint: Path, terabyte: Path, tmp_path: Path
) -> None:
    error = error_of(load(checkpoint, terabyte, tmp_path, flag, *purpose))
    assert f"{checkpoint}: was saved {saved} but is loaded {loaded};" in error


@pytest.mark.parametrize("operation", ["mult", "add"])
def test_other_operation_of_quotient_remainder_tables_is_refused(
    operation: str, terabyte: Path, tmp_path: Path
) -> None:
    flags = (*QR, f"--qr-operation={operation}")
    train(terabyte, tmp_path, *flags, "--save-model=own.pt", "--mlperf-auc-threshold=0.01")
    other = {"mult": "add", "add": "mult"}[operation]
    for purpose in (RESUME, EVALUATE):
        run = load(tmp_path / "own.pt", terabyte, tmp_path, *QR, f"--qr-operation={other}", *purpose)
        assert f"with --qr-operation={operation} but is loaded with --qr-operation={other};" in error_of(run)
        assert load(tmp_path / "own.pt", terabyte, tmp_path, *flags, *purpose).status == 0


@pytest.mark.parametrize(
    ("trained", "flag", "saved", "loaded"),
    [
        ("", "--loss-function=mse", "--loss-function=bce", "--loss-function=mse"),
        ("", "--mlperf-grad-accum-iter=2", "--mlperf-grad-accum-iter=1", "--mlperf-grad-accum-iter=2"),
        (
            *("--loss-function=wbce --loss-weights=1-2", "--loss-function=wbce --loss-weights=2-1"),
            *("--loss-weights=1.0-2.0", "--loss-weights=2.0-1.0"),
        ),
        (
            *("--weighted-pooling=learned", "--weighted-pooling=fixed"),
            *("--weighted-pooling=learned", "--weighted-pooling=fixed"),
        ),
        ("--optimizer=sgd", "--optimizer=adagrad", "--optimizer=sgd", "--optimizer=adagrad"),
        ("--optimizer=adagrad", "--optimizer=sgd", "--optimizer=adagrad", "--optimizer=sgd"),
        ("--optimizer=rwsadagrad", "--optimizer=sgd", "--optimizer=rwsadagrad", "--optimizer=sgd"),
        ("--optimizer=rwsadagrad", "--optimizer=adagrad", "--optimizer=rwsadagrad", "--optimizer=adagrad"),
    ],
)
def test_flag_that_only_training_uses_is_refused_when_resuming_and_ignored_when_evaluating(
    trained: str, flag: str, saved: str, loaded: str, terabyte: Path, tmp_path: Path
) -> None:
    train(terabyte, tmp_path, *trained.split(), "--save-model=own.pt", "--mlperf-auc-threshold=0.01")
    path = tmp_path / "own.pt"
    error = error_of(load(path, terabyte, tmp_path, *flag.split()))
    assert f"was saved with {saved} but is loaded with {loaded};" in error
    assert load(path, terabyte, tmp_path, *flag.split(), "--inference-only").status == 0


def test_optimizer_of_a_checkpoint_without_flags_shows_in_its_state(terabyte: Path, tmp_path: Path) -> None:
    train(terabyte, tmp_path, "--optimizer=adagrad", "--save-model=own.pt", "--mlperf-auc-threshold=0.01")
    contents = torch.load(tmp_path / "own.pt", weights_only=True)
    torch.save(
        {key: value for key, value in contents.items() if key not in ("continuation", "model_flags")},
        tmp_path / "foreign.pt",
    )
    error = error_of(load(tmp_path / "foreign.pt", terabyte, tmp_path, "--optimizer=sgd"))
    assert "foreign.pt: contains the state of another optimizer than SGD (sum); pass the --optimizer" in error
    assert load(tmp_path / "foreign.pt", terabyte, tmp_path, "--optimizer=adagrad").status == 0


@pytest.mark.parametrize(
    "flags",
    [
        *("--precision=bf16", "--learning-rate=0.2 --nepochs=3", "--embedding-init=device --mlp-init=uniform"),
        *("--qr-flag --qr-threshold=1000000", "--md-flag --md-threshold=1000000"),  # no table is that large
    ],
)
def test_flags_that_leave_the_model_the_same_may_differ(
    flags: str, checkpoint: Path, terabyte: Path, tmp_path: Path
) -> None:
    for purpose in (RESUME, EVALUATE):
        run = load(checkpoint, terabyte, tmp_path, *flags.split(), *purpose)
        assert run.status == 0, run.stderr


def test_data_prepared_with_another_limit_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    place = tmp_path / "processed"
    raw = GOLDEN / "terabyte" / "day"
    prepare(PreparationSettings("terabyte", raw, place, max_ind_range=30_000_000, randomize="none"))
    error = error_of(load(checkpoint, place, tmp_path, "--inference-only"))
    assert "was trained on data prepared with --max-ind-range=40000000, this data was prepared with " in error


@pytest.mark.parametrize(("saved", "resumed"), [((), ("--mlperf-bin-shuffle",)), (("--mlperf-bin-shuffle",), ())])
def test_shuffled_run_is_not_resumed_in_file_order_nor_the_reverse(
    saved: tuple[str, ...], resumed: tuple[str, ...], terabyte: Path, tmp_path: Path
) -> None:
    train(terabyte, tmp_path, *saved, "--save-model=own.pt", "--mlperf-auc-threshold=0.01")
    error = error_of(load(tmp_path / "own.pt", terabyte, tmp_path, *resumed))
    assert f"saved {'with' if saved else 'without'} --mlperf-bin-shuffle" in error
    assert load(tmp_path / "own.pt", terabyte, tmp_path, *resumed, "--inference-only").status == 0


def test_checkpoint_of_an_earlier_version_without_flags_is_resumed_and_evaluated(
    checkpoint: Path, terabyte: Path, tmp_path: Path
) -> None:
    contents: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    del contents["model_flags"], contents["continuation"]["shuffled"]
    torch.save(contents, tmp_path / "older.pt")
    for flags in (RESUME, EVALUATE, ("--mlperf-bin-shuffle",)):
        older = load(tmp_path / "older.pt", terabyte, tmp_path, *flags)
        assert older.status == 0, older.stderr
    newer = load(checkpoint, terabyte, tmp_path)
    assert load(tmp_path / "older.pt", terabyte, tmp_path).stdout == newer.stdout


def test_every_flag_of_the_model_is_recorded_and_compared() -> None:
    everything = parse(["--qr-flag", "--arch-interaction-op=dcn", "--optimizer=adagrad", "--adagrad-epsilon=1"])
    flags = recorded_flags(everything, None)
    names = {flag.name for _, flag in declared_flags(ModelSettings)}
    of_other_variants = {name for name in names if name.startswith("--md-") and name != "--md-flag"}
    not_of_the_weights = {"--arch-embedding-size", "--mlp-init", "--embedding-init"}
    shown_by_the_weights = {"--embedding-precision"}
    assert flags.keys() == names - of_other_variants - not_of_the_weights - shown_by_the_weights | {
        *("--optimizer", "--adagrad-epsilon", "--mlperf-grad-accum-iter"),
    }
    path = Path("model.pt")
    check_flags(flags, flags, path, weights=[], same_shapes=False, trains=True)
    for name in flags:
        with pytest.raises(RunError, match=f"was saved with {name}=other but is loaded with"):
            check_flags({**flags, name: "other"}, flags, path, weights=[], same_shapes=False, trains=True)


@pytest.mark.parametrize("recorded", [3, ["--optimizer=sgd"], {"--optimizer": 1}, {1: "sgd"}])
def test_recorded_flags_of_another_type_are_refused(recorded: object) -> None:
    with pytest.raises(RunError, match=r"model\.pt: damaged: its recorded flags are not names with values"):
        check_flags(recorded, {}, Path("model.pt"), weights=[], same_shapes=True, trains=True)


def test_flag_of_a_later_version_is_refused_unless_it_is_off() -> None:
    current, path = recorded_flags(parse([]), None), Path("model.pt")
    check_flags({"--cross-layers": None}, current, path, weights=[], same_shapes=True, trains=False)
    with pytest.raises(RunError, match="was saved with --cross-layers=3, which this version does not have"):
        check_flags({"--cross-layers": "3"}, current, path, weights=[], same_shapes=True, trains=False)
