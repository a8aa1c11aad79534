"""Checkpoints of DLRM-DCNv2: saved, resumed and evaluated, and refused with other flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from program import Finished
from small_runs import error_of, load, train

from mlperf.training.weight_names import is_of_reference

SIZES = "-".join(["3", "1", "2"] + ["1"] * 23)
DCN = (
    *("--arch-interaction-op=dcn", "--dcn-num-layers=2", "--dcn-low-rank-dim=4", "--loss-function=bce_logits"),
    f"--multi-hot-sizes={SIZES}",
)


@pytest.fixture(scope="module")
def checkpoint(terabyte: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dcnv2")
    train(terabyte, folder, *DCN, "--optimizer=adagrad", "--save-model=own.pt", "--mlperf-auc-threshold=0.01")
    return folder / "own.pt"


@pytest.mark.parametrize(
    "flags",
    [
        ("--optimizer=adagrad", "--adagrad-epsilon=1e-8"),
        ("--optimizer=sgd", "--embedding-precision=fp16"),
        ("--optimizer=adagrad", "--embedding-precision=bf16", "--multi-hot-distribution=pareto"),
    ],
    ids=" ".join,
)
def test_resumed_run_prints_the_same_as_an_uninterrupted_one(
    flags: tuple[str, ...], terabyte: Path, tmp_path: Path
) -> None:
    whole = train(terabyte, tmp_path, *DCN, *flags, "--num-batches=12")
    cut = train(
        terabyte,
        tmp_path,
        *DCN,
        *flags,
        "--num-batches=12",
        "--save-model=first.pt",
        "--mlperf-auc-threshold=0.01",
    )
    continued = train(terabyte, tmp_path, *DCN, *flags, "--num-batches=12", "--load-model=first.pt")
    first = len(cut.stdout.splitlines())
    assert len(continued.progress_lines) >= 12
    assert continued.stdout.splitlines()[1:] == whole.stdout.splitlines()[first:]


def test_checkpoint_has_the_cross_network(checkpoint: Path) -> None:
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    found = {name: list(value.shape) for name, value in weights.items() if name.startswith("interaction.")}
    width = 27 * 8
    assert found == {
        **{f"interaction.V.{layer}.weight": [4, width] for layer in range(2)},
        **{f"interaction.W.{layer}.weight": [width, 4] for layer in range(2)},
        **{f"interaction.W.{layer}.bias": [width] for layer in range(2)},
    }


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_checkpoint_is_evaluated_in_every_precision_of_the_tables(
    precision: str, checkpoint: Path, terabyte: Path, tmp_path: Path
) -> None:
    whole = evaluate(checkpoint, terabyte, tmp_path)
    half = evaluate(checkpoint, terabyte, tmp_path, f"--embedding-precision={precision}")
    assert "are stored in fp32 and are converted" in half.stderr
    assert auc(half) == pytest.approx(auc(whole), abs=0.01)


def evaluate(checkpoint: Path, terabyte: Path, cwd: Path, *flags: str) -> Finished:
    run = load(checkpoint, terabyte, cwd, *DCN, "--inference-only", *flags)
    assert run.status == 0, run.stderr
    return run


def auc(run: Finished) -> float:
    return float(run.metric_lines[-1].partition(", auc ")[2].partition(",")[0])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--arch-interaction-op=cat",),
            "was saved with --arch-interaction-op=dcn and with --dcn-num-layers=2 and with --dcn-low-rank-dim=4 "
            "but is loaded with --arch-interaction-op=cat and without --dcn-num-layers and without "
            "--dcn-low-rank-dim;",
        ),
        (("--dcn-num-layers=3",), "with --dcn-num-layers=2 but is loaded with --dcn-num-layers=3;"),
        (("--dcn-low-rank-dim=5",), "with --dcn-low-rank-dim=4 but is loaded with --dcn-low-rank-dim=5;"),
        (
            ("--multi-hot-distribution=pareto",),
            "was saved with --multi-hot-distribution=uniform but is loaded with ",
        ),
        (
            ("--multi-hot-sizes=" + "-".join(["2"] * 26),),
            f"was saved with --multi-hot-sizes={SIZES} but is loaded with ",
        ),
    ],
)
@pytest.mark.parametrize("purpose", [(), ("--inference-only",)], ids=["resume", "evaluate"])
def test_flags_that_change_the_scores_are_compared(
    flags: tuple[str, ...],
    message: str,
    purpose: tuple[str, ...],
    checkpoint: Path,
    terabyte: Path,
    tmp_path: Path,
) -> None:
    given = [flag for flag in DCN if not ("cat" in flags[0] and flag.startswith("--dcn"))]
    run = load(checkpoint, terabyte, tmp_path, *given, "--optimizer=adagrad", *flags, *purpose)
    assert message in error_of(run)


def test_several_ids_and_one_are_not_exchanged(checkpoint: Path, terabyte: Path, tmp_path: Path) -> None:
    run = load(checkpoint, terabyte, tmp_path, *DCN[:-1], "--inference-only")
    assert "with --multi-hot-sizes=" in error_of(run)
    assert "is loaded without --multi-hot-sizes and without --multi-hot-distribution;" in error_of(run)


def test_epsilon_of_adagrad_is_compared_when_resuming(checkpoint: Path, terabyte: Path, tmp_path: Path) -> None:
    flags = (*DCN, "--optimizer=adagrad", "--adagrad-epsilon=1e-08")
    error = error_of(load(checkpoint, terabyte, tmp_path, *flags))
    assert "was saved with --adagrad-epsilon=1e-10 but is loaded with --adagrad-epsilon=1e-08;" in error
    assert load(checkpoint, terabyte, tmp_path, *flags, "--inference-only").status == 0


def test_checkpoint_without_flags_shows_its_cross_network(
    checkpoint: Path, terabyte: Path, tmp_path: Path
) -> None:
    weights = {"state_dict": torch.load(checkpoint, weights_only=True)["state_dict"]}
    torch.save(weights, tmp_path / "weights.pt")
    others = [flag for flag in DCN if not flag.startswith("--dcn")]
    for flags, message in (
        (
            ("--dcn-num-layers=2", "--dcn-low-rank-dim=5"),
            "interaction.V.0.weight is [4, 216] in the checkpoint and [5, ",
        ),
        (("--dcn-num-layers=3", "--dcn-low-rank-dim=4"), "lacks interaction.V.2.weight, interaction.W.2.weight, "),
        (("--dcn-num-layers=1", "--dcn-low-rank-dim=4"), "contains interaction.V.1.weight, "),
    ):
        run = load(tmp_path / "weights.pt", terabyte, tmp_path, *others, *flags, "--inference-only")
        assert message in error_of(run)
        assert "--dcn-" in error_of(run)
    assert load(tmp_path / "weights.pt", terabyte, tmp_path, *DCN, "--inference-only").status == 0


def test_flags_that_a_model_does_not_have_are_not_recorded(terabyte: Path, tmp_path: Path) -> None:
    train(terabyte, tmp_path, "--optimizer=adagrad", "--save-model=own.pt", "--mlperf-auc-threshold=0.01")
    flags = torch.load(tmp_path / "own.pt", weights_only=True)["model_flags"]
    assert not [name for name in flags if name.startswith(("--dcn", "--multi-hot", "--adagrad", "--data-set"))]


def reference_names(weights: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Return the weights with the names of the reference implementation."""
    names = {f"bot_l.{2 * layer}": f"dense_arch.model._mlp.{layer}._linear" for layer in range(2)}
    names |= {"top_l.0": "over_arch.model.0._mlp.0._linear", "top_l.2": "over_arch.model.1"}
    for table in range(26):
        names[f"emb_l.{table}"] = f"sparse_arch.embedding_bag_collection.embedding_bags.t_cat_{table}"
    renamed = {}
    for name, value in weights.items():
        module, _, kind = name.rpartition(".")
        if module in names:
            renamed[f"{prefix}{names[module]}.{kind}"] = value
    for layer in range(2):
        for ours, theirs in (("V.{}.weight", "V_kernels"), ("W.{}.weight", "W_kernels"), ("W.{}.bias", "bias")):
            value = weights["interaction." + ours.format(layer)]
            renamed[f"{prefix}inter_arch.crossnet.{theirs}.{layer}"] = value
    assert len(renamed) == len(weights)
    return renamed


@pytest.mark.parametrize("prefix", ["model.", "module.model.", ""])
def test_weights_named_as_in_the_reference_are_evaluated(
    prefix: str, checkpoint: Path, terabyte: Path, tmp_path: Path
) -> None:
    weights = reference_names(torch.load(checkpoint, weights_only=True)["state_dict"], prefix)
    torch.save({"state_dict": weights}, tmp_path / "reference.pt")
    own = evaluate(checkpoint, terabyte, tmp_path)
    assert evaluate(tmp_path / "reference.pt", terabyte, tmp_path).metric_lines == own.metric_lines
    error = error_of(load(tmp_path / "reference.pt", terabyte, tmp_path, *DCN))
    assert "cannot resume: has the weights of the reference implementation of DLRM-DCNv2" in error
    del weights[f"{prefix}over_arch.model.1.bias"]
    torch.save({"state_dict": weights}, tmp_path / "reference.pt")
    assert "lacks top_l.2.bias" in error_of(
        load(tmp_path / "reference.pt", terabyte, tmp_path, *DCN, "--inference-only")
    )


def test_names_of_this_program_are_not_those_of_the_reference() -> None:
    assert not is_of_reference(["emb_l.0.weight", "model.bot_l.0.weight", "interaction.V.0.weight"])
