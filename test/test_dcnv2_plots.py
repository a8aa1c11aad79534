"""Plots of logs of DLRM-DCNv2: of this project, of submitters, and beside logs of DLRM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_logs import Entry, foreign_entries, write_log
from matplotlib.figure import Figure
from program import Finished, run_program

from mlperf.benchmarks import DLRM, DLRM_DCNV2
from mlperf.plots.curves import Curves

STEPS, BATCH = 75869, 55296  # of an epoch, as most submitters train
INTERVAL = 3793


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Return the list of the figures that were written."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    return figures


def plot(*arguments: str, cwd: Path) -> Finished:
    return run_program(*arguments, cwd=cwd, program="tools/plot_run.py")


def targets_of(figure: Figure) -> dict[str, float]:
    """Return the horizontal lines of a figure, by their text in the legend."""
    horizontal = {str(line.get_label()): np.asarray(line.get_ydata()) for line in figure.axes[-1].lines}
    return {text: float(values[0]) for text, values in horizontal.items() if "target" in text}


# Metadata of the evaluation after a step, as submitters write it.
NUMBERINGS: dict[str, Any] = {
    "share of the epoch": lambda step: {"epoch_num": step / STEPS},
    "one iteration less": lambda step: {"epoch_num": (step - 1) / STEPS},
    "steps": lambda step: {"step_num": step},
    "samples": lambda step: {"samples_count": step * BATCH},
    "share and samples": lambda step: {"epoch_num": step / STEPS, "samples_count": step * BATCH},
}


def write_dcnv2_log(path: Path, numbering: str = "one iteration less", evaluations: int = 15) -> Path:
    entries: list[Entry] = [
        *(("submission_benchmark", "dlrm_dcnv2", {}, 0), ("submission_org", "Else", {}, 0)),
        *(("submission_platform", "box", {}, 0), ("global_batch_size", BATCH, {}, 0)),
        *(("opt_learning_rate_decay_start_step", 0, {}, 0), ("opt_learning_rate_decay_steps", 0, {}, 0)),
        *(("train_samples", DLRM_DCNV2.data.train_samples, {"epoch_num": 0.0}, 0), ("run_start", None, {}, 0)),
        ("epoch_start", None, {"epoch_num": 0}, 0),
    ]
    for number in range(1, evaluations + 1):
        auc = 0.80275 - 0.001 * (evaluations - number)
        entries.append(("eval_accuracy", auc, NUMBERINGS[numbering](number * INTERVAL), number))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_log(path, [*entries, ("run_stop", None, {"status": "success"}, 99)])
    return path


@pytest.mark.parametrize("numbering", NUMBERINGS)
def test_evaluations_are_drawn_at_their_share_of_the_epoch(numbering: str, tmp_path: Path) -> None:
    curves = Curves.of_log(write_dcnv2_log(tmp_path / "result_0.txt", numbering))
    expected = [number * INTERVAL / STEPS for number in range(1, 16)]
    assert [point.epochs for point in curves.auc] == pytest.approx(expected, abs=1.5e-5)
    assert curves.benchmark is DLRM_DCNV2
    assert not curves.counted
    assert not curves.warnings


def test_target_is_that_of_the_benchmark(tmp_path: Path, saved: list[Figure]) -> None:
    write_dcnv2_log(tmp_path / "result_0.txt")
    assert plot("result_0.txt", cwd=tmp_path) == Finished(0, "run.png: 1 run\n", "")
    assert targets_of(saved[0]) == {"target 0.80275": 0.80275}


def test_target_of_a_console_log_is_that_of_its_compliance_log(tmp_path: Path, saved: list[Figure]) -> None:
    lines = [f"Finished training it {it}/40 of epoch 0, 1.00 ms/it, loss {0.5 / it}" for it in range(1, 41)]
    lines += ["Testing at - 40/40 of epoch 0,", "auc 0.8029, best auc 0.8029, accuracy 96.5 %"]
    (tmp_path / "mine.console.txt").write_text("\n".join(lines) + "\n")
    assert plot("mine.console.txt", cwd=tmp_path).status == 0
    write_dcnv2_log(tmp_path / "mine.log")
    assert plot("mine.console.txt", cwd=tmp_path).status == 0
    assert [targets_of(figure) for figure in saved] == [{"target 0.8025": 0.8025}, {"target 0.80275": 0.80275}]


def test_both_benchmarks_in_a_folder_have_their_own_targets(tmp_path: Path, saved: list[Figure]) -> None:
    write_dcnv2_log(tmp_path / "Else" / "results" / "box" / "dlrm_dcnv2" / "result_0.txt")
    first = tmp_path / "Else" / "results" / "box" / "dlrm" / "result_0.txt"
    first.parent.mkdir()
    write_log(first, foreign_entries(1, edition="2.0.0"))
    assert plot("Else", cwd=tmp_path) == Finished(0, "run.png: 2 runs\n", "")
    assert targets_of(saved[0]) == {
        "target 0.8025 (dlrm)": DLRM.auc_target,
        "target 0.80275 (dlrm_dcnv2)": DLRM_DCNV2.auc_target,
    }
    low, high = saved[0].axes[0].get_ylim()
    assert low < DLRM.auc_target < DLRM_DCNV2.auc_target < high


def test_a_given_target_replaces_those_of_the_benchmarks(tmp_path: Path, saved: list[Figure]) -> None:
    write_dcnv2_log(tmp_path / "result_0.txt")
    for target in ("0.79", "0"):
        assert plot("result_0.txt", f"--target={target}", cwd=tmp_path).status == 0
    assert [targets_of(figure) for figure in saved] == [{"target 0.79": 0.79}, {}]
