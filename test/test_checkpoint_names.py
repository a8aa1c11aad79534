"""Names of the weights in checkpoints of wrapped models: data-parallel training, torch.compile, FSDP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from program import GOLDEN, Finished, golden_flags, run_program
from torch import nn

from mlperf.training.state_dict import unwrapped
from mlperf.util.errors import RunError

GOLDEN_CHECKPOINT = GOLDEN / "terabyte" / "sgd.pt"


def save_renamed(rename: Callable[[str], str], path: Path) -> None:
    """Save the golden checkpoint with other names of its weights."""
    contents: dict[str, Any] = torch.load(GOLDEN_CHECKPOINT, weights_only=False)
    contents["state_dict"] = {rename(name): value for name, value in contents["state_dict"].items()}
    torch.save(contents, path)


def evaluate_and_resume(checkpoint: Path, prefix: Path, cwd: Path) -> list[Finished]:
    purposes = (golden_flags("sgd_inference", prefix), [*golden_flags("sgd", prefix), "--nepochs=3"])
    return [run_program(*flags, f"--load-model={checkpoint}", cwd=cwd) for flags in purposes]


@pytest.fixture(scope="module")
def plain(terabyte: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Finished]:
    """Return an evaluation and a resumed run of the golden checkpoint as it is."""
    return evaluate_and_resume(GOLDEN_CHECKPOINT, terabyte, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(
    "rename",
    [
        "module.{}".format,
        "_orig_mod.{}".format,
        "_orig_mod.module.{}".format,
        "module._orig_mod.{}".format,
        "module.module.{}".format,
        "_fsdp_wrapped_module.{}".format,
        # Some implementations wrap the MLPs alone, or compile each table.
        lambda name: name.replace("bot_l.", "bot_l.module.").replace("top_l.", "top_l.module."),
        lambda name: name.replace(".weight", "._orig_mod.weight") if name.startswith("emb_l.") else name,
    ],
)
def test_wrapped_model_evaluates_and_resumes_like_the_model_itself(
    rename: Callable[[str], str], plain: list[Finished], terabyte: Path, tmp_path: Path
) -> None:
    save_renamed(rename, tmp_path / "wrapped.pt")
    wrapped = evaluate_and_resume(tmp_path / "wrapped.pt", terabyte, tmp_path)
    assert [run.status for run in wrapped] == [0, 0], wrapped
    assert [run.stdout for run in wrapped] == [run.stdout for run in plain]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_names_of_pytorchs_own_wrappers_are_understood() -> None:
    model = nn.ModuleDict({"bot_l": nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))})
    wrapped = nn.DataParallel(cast("nn.Module", torch.compile(model)))
    assert all(name.startswith("module._orig_mod.") for name in wrapped.state_dict())
    found = unwrapped(wrapped.state_dict(), Path("model.pt"))
    assert list(found) == list(model.state_dict())


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name if name.startswith("top_l") else f"module.{name}",
        lambda name: f"module.{name}" if name.startswith("top_l") else name,
        lambda name: f"module._orig_mod.{name}" if name.startswith("top_l") else f"module.{name}",
    ],
)
def test_mixed_names_are_refused_in_one_line(rename: Callable[[str], str], terabyte: Path, tmp_path: Path) -> None:
    save_renamed(rename, tmp_path / "mixed.pt")
    run = run_program(*golden_flags("sgd_inference", terabyte), "--load-model=mixed.pt", cwd=tmp_path)
    assert run.status == 1
    (line,) = run.stderr.splitlines()
    assert "mixed.pt: the names of the weights are mixed: " in line
    assert rename("top_l.0.weight") in line
    assert rename("emb_l.0.weight") in line


def test_two_names_for_the_same_weight_are_refused() -> None:
    found = {"bot_l.0.weight": torch.zeros(1), "bot_l.module.0.weight": torch.ones(1)}
    with pytest.raises(RunError, match=r"bot_l\.0\.weight and bot_l\.module\.0\.weight name the same weight"):
        unwrapped(found, Path("model.pt"))
