"""Plots of logs that users and submitters have: what is read, what the legend says, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_logs import Entry, aborted, changed, foreign_entries, foreign_results, unchanged, write_log
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from program import Finished, run_program

from mlperf.benchmarks import BENCHMARKS, DLRM
from mlperf.plots.curves import Curves, Point
from mlperf.plots.run_figure import draw_runs
from mlperf.util.errors import RunError


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Return the list of the figures that were written."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    return figures


def plot(*arguments: str | Path, cwd: Path) -> Finished:
    run = run_program(*map(str, arguments), cwd=cwd, program="tools/plot_run.py")
    assert "Traceback" not in run.stderr
    return run


def legend_of(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def line_colors(axes: Axes) -> set[str]:
    """Return the colours of the curves, without horizontal lines."""
    return {to_hex(line.get_color()) for line in axes.lines if len(np.asarray(line.get_xdata())) > 2}


def training_lines(rank: int, iterations: range) -> list[str]:
    """Return what one of several processes prints: its own loss, the metrics of all."""
    lines = []
    for it in iterations:
        lines.append(
            f"[{rank}] Finished training it {it}/400 of epoch 0, 7.00 ms/it, loss {1 / it + rank / 10:.6f}"
        )
        if it % 50 == 0:
            lines.append(f"[{rank}] Testing at - {it}/400 of epoch 0, auc 0.7{it}, accuracy 96.5{rank} %")
    return lines


@pytest.mark.parametrize("order", ["interleaved", "one after the other", "on one line"])
def test_losses_of_several_processes_are_averaged(order: str, tmp_path: Path) -> None:
    ranks = [training_lines(rank, range(10, 401, 10)) for rank in range(4)]
    if order == "one after the other":
        text = "\n".join(line for lines in ranks for line in lines)
    else:
        between = "\n" if order == "interleaved" else ""
        text = "\n".join(between.join(lines) for lines in zip(*ranks, strict=True))
    (tmp_path / "ranks.txt").write_text(text + "\n")
    curves = Curves.of_log(tmp_path / "ranks.txt")
    assert [point.iterations for point in curves.loss] == list(range(10, 401, 10))
    assert [point.value for point in curves.loss] == pytest.approx(
        [1 / it + 0.15 for it in range(10, 401, 10)], abs=1e-5
    )
    assert [point.iterations for point in curves.auc] == list(range(50, 401, 50))
    if order != "on one line":
        assert curves.accuracy[0].value == pytest.approx(0.96515)


def test_evaluation_that_every_node_logs_is_one_point(tmp_path: Path) -> None:
    entries = [entry for entry in foreign_entries(1, edition="1.0.0") for _ in range(8)]
    write_log(tmp_path / "result_0.txt", entries)
    auc = Curves.of_log(tmp_path / "result_0.txt").auc
    assert [point.epochs for point in auc] == pytest.approx([0.05 * k - 1e-4 for k in range(1, 19)])
    assert auc[-1].value == pytest.approx(0.8026)


def test_loss_that_is_not_a_number_ends_the_curve_with_a_warning(tmp_path: Path, saved: list[Figure]) -> None:
    lines = [f"Finished training it {it}/40 of epoch 0, 1.00 ms/it, loss {0.5 / it}" for it in range(1, 21)]
    lines += [f"Finished training it {it}/40 of epoch 0, 1.00 ms/it, loss nan" for it in range(21, 41)]
    (tmp_path / "log.txt").write_text("\n".join(lines))
    run = plot("log.txt", cwd=tmp_path)
    assert run.status == 0
    assert run.stderr == "warning: log.txt: the loss is nan from iteration 21 on, which cannot be drawn\n"
    assert np.asarray(saved[0].axes[0].lines[0].get_xdata()).tolist() == list(range(1, 21))


# How submitters number evaluations; each run has 20 evaluations in an epoch of 1000 steps of 100 samples.
NUMBERINGS: dict[str, Any] = {
    "from 1": lambda k: {"epoch_num": 1 + k / 20},
    "from 0": lambda k: {"epoch_num": k / 20},
    "evaluations": lambda k: {"epoch_num": k},
    "evaluations from 0": lambda k: {"epoch_num": k - 1},
    "evaluations and steps": lambda k: {"epoch_num": k, "step": 50 * k},
    "evaluations and samples": lambda k: {"epoch_num": k, "samples_count": 5000 * k},
    "evaluations, their starts have steps": lambda k: {"epoch_num": k},
    "iterations": lambda k: {"epoch_num": 150 + 50 * (k - 3)},
    "steps only": lambda k: {"global_step": 50 * k},
    "no number": lambda k: {},
}


def numbered_log(path: Path, numbering: str, *, planned_steps: int = 1000, evaluations: int = 18) -> Path:
    first = 3 if numbering == "iterations" else 1
    start = {"from 0": 0, "evaluations from 0": 0}.get(numbering, 1)
    entries: list[Entry] = [
        *(("submission_benchmark", "dlrm", {}, 0), ("global_batch_size", 100, {}, 0)),
        *(("train_samples", 100_000, {}, 0), ("lr_decay_start_steps", planned_steps // 2, {}, 0)),
        *(("sgd_opt_learning_rate_decay_steps", planned_steps // 2, {}, 0), ("run_start", None, {}, 0)),
        ("block_start", None, {"first_epoch_num": start}, 0),
    ]
    if "starts" in numbering:
        entries += [("eval_start", None, {"epoch_num": k, "current_step": 50 * k}, k) for k in range(1, 30)]
    entries += [
        ("eval_accuracy", 0.78 + k / 1000, NUMBERINGS[numbering](k), k) for k in range(first, evaluations + 1)
    ]
    write_log(path, [*entries, ("run_stop", None, {"status": "success"}, 99)])
    return path


@pytest.mark.parametrize("numbering", NUMBERINGS)
def test_evaluations_are_drawn_at_their_share_of_an_epoch(numbering: str, tmp_path: Path) -> None:
    curves = Curves.of_log(numbered_log(tmp_path / "result_0.txt", numbering))
    first = 3 if numbering == "iterations" else 1
    assert [point.epochs for point in curves.auc] == pytest.approx([k / 20 for k in range(first, 19)])
    assert curves.counted == (numbering in ("evaluations", "evaluations from 0", "no number"))


def test_whole_epochs_that_the_schedule_allows_are_epochs(tmp_path: Path) -> None:
    log = numbered_log(tmp_path / "result_0.txt", "evaluations", planned_steps=18_000)
    assert [point.epochs for point in Curves.of_log(log).auc] == list(range(1, 19))


def test_assumed_interval_between_evaluations_is_mentioned(tmp_path: Path) -> None:
    numbered_log(tmp_path / "result_0.txt", "evaluations")
    run = plot("result_0.txt", cwd=tmp_path)
    assert run.status == 0
    assert (
        run.stderr
        == "result_0.txt: the evaluations are only counted; drawn 1/20 epoch apart, as the rules require\n"
    )


def test_log_of_another_benchmark_is_refused_by_name(tmp_path: Path) -> None:
    for number, name in enumerate(("bert", "resnet")):
        entries = changed("submission_benchmark", name, (0,))(0, foreign_entries(1, edition="1.0.0"))
        write_log(tmp_path / f"{name}.txt", entries)
        if number:  # the oldest logs count seconds
            (tmp_path / f"{name}.txt").write_text(
                (tmp_path / f"{name}.txt").read_text().replace("time_ms", "time_s")
            )
        run = plot(f"{name}.txt", cwd=tmp_path)
        assert run == Finished(
            1, "", f"plot_run.py: error: {name}.txt: the log is of '{name}', not of dlrm or dlrm_dcnv2\n"
        )


def test_log_of_any_supported_benchmark_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = replace(DLRM, name="second", evaluations_per_epoch=10)
    log = numbered_log(tmp_path / "result_0.txt", "evaluations")
    log.write_text(log.read_text().replace('"dlrm"', '"second"'))
    with pytest.raises(RunError, match="the log is of 'second', not of dlrm or dlrm_dcnv2"):
        Curves.of_log(log)
    monkeypatch.setitem(BENCHMARKS, "second", second)
    curves = Curves.of_log(log)
    assert curves.benchmark is second
    assert [point.epochs for point in curves.auc] == pytest.approx([k / 10 for k in range(1, 19)])


def package_of(folder: Path, *systems: str) -> Path:
    """Write a package with results of the given systems, which the logs name, and with other files."""
    for number, system in enumerate(systems):
        results = foreign_results(
            folder / "results" / system / "dlrm",
            "1.0.0",
            changed("submission_platform", f"box {number}", tuple(range(5))),
        )
        (results / "scaling.json").write_text("{}")
    (folder / "benchmarks").mkdir()
    (folder / "benchmarks" / "requirements.txt").write_text("numpy\n")
    return folder


def test_folder_of_logs_may_be_an_argument(tmp_path: Path, saved: list[Figure]) -> None:
    package_of(tmp_path / "Else", "small", "large")
    for argument, runs in (("Else", 10), ("Else/results/small", 5), ("Else/results/small/dlrm", 5)):
        run = plot(argument, cwd=tmp_path)
        assert run == Finished(0, f"run.png: {runs} runs\n", "")
    both, *single = map(legend_of, saved)
    assert both == ["Else, box 1", "Else, box 0", "target 0.8025"]
    assert single == [[f"result_{number}" for number in range(5)] + ["target 0.8025"]] * 2


def test_other_benchmarks_in_a_folder_are_left_out_with_a_warning(tmp_path: Path) -> None:
    foreign_results(tmp_path / "logs" / "bert", "1.0.0", changed("submission_benchmark", "bert", tuple(range(5))))
    run = plot("logs", cwd=tmp_path)
    assert (run.status, len(run.stderr.splitlines())) == (1, 1)
    assert run.stderr.endswith(" and 2 others: the log is of 'bert', not of dlrm or dlrm_dcnv2\n")
    foreign_results(tmp_path / "logs" / "dlrm", "1.0.0", unchanged)
    run = plot("logs", cwd=tmp_path)
    assert (run.status, run.stdout, len(run.stderr.splitlines())) == (0, "run.png: 5 runs\n", 1)
    assert "bert" in run.stderr


def test_folder_without_logs_is_named(tmp_path: Path) -> None:
    run = plot(".", cwd=tmp_path)
    assert run == Finished(
        1, "", "plot_run.py: error: .: the folder contains no logs (*.txt, *.log, *.out, *.jsonl)\n"
    )


def test_run_that_did_not_train_is_left_out_with_a_warning(tmp_path: Path) -> None:
    package_of(tmp_path / "Else", "small")
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "settings.toml").write_text("inference-only = true\n")
    (tmp_path / "evaluation" / "wandb").mkdir()
    (tmp_path / "evaluation" / "wandb" / "debug.log").write_text("of wandb\n")
    run = plot("Else", "evaluation", cwd=tmp_path)
    assert (run.status, run.stdout) == (0, "run.png: 5 runs\n")
    assert run.stderr == "warning: left out: evaluation: the run has no metrics; it did not train\n"


def test_console_output_replaces_the_compliance_log_of_the_same_run(tmp_path: Path, saved: list[Figure]) -> None:
    write_log(tmp_path / "dlrm_1_seed_7.log", foreign_entries(7, edition="1.0.0"))
    (tmp_path / "dlrm_1_seed_7.console.txt").write_text("\n".join(training_lines(0, range(10, 401, 10))))
    assert plot(tmp_path, cwd=tmp_path).stdout == "run.png: 1 run\n"
    assert legend_of(saved[0])[0] == "dlrm_1_seed_7"


def test_each_system_has_its_name_from_the_log_and_its_own_colour(tmp_path: Path, saved: list[Figure]) -> None:
    for number in range(24):
        entries = changed("submission_platform", f"box {number}", (0,))(
            0, foreign_entries(number, edition="1.0.0")
        )
        write_log(tmp_path / f"{number}.txt", entries)
    for number in (9, 12, 24):
        run = plot(*(f"{log}.txt" for log in range(number)), cwd=tmp_path)
        assert run.status == 0, run.stderr
        figure = saved.pop()
        assert legend_of(figure)[:number] == [f"Else, box {log}" for log in range(number)]
        (axes,) = figure.axes
        assert len(line_colors(axes)) == number
        figure.draw_without_rendering()
        (legend,) = figure.legends
        place, drawn = legend.get_window_extent(), axes.get_tightbbox()
        assert drawn is not None
        assert not place.overlaps(drawn)
        assert all(figure.bbox.padded(1).contains(*corner) for corner in (place.min, place.max))


def test_systems_that_the_logs_do_not_name_have_the_names_of_their_folders(
    tmp_path: Path, saved: list[Figure]
) -> None:
    nameless = changed("submission_platform", "1xSUBMISSION_PLATFORM_PLACEHOLDER", tuple(range(5)))
    for system in ("small", "large"):
        foreign_results(tmp_path / "Ours" / "results" / system / "dlrm", "1.0.0", nameless)
    assert plot("Ours", cwd=tmp_path).status == 0
    assert legend_of(saved[0]) == ["Ours, large", "Ours, small", "target 0.8025"]


def test_equal_systems_are_told_apart_by_their_folders(tmp_path: Path, saved: list[Figure]) -> None:
    for place in ("2.0", "2.1"):
        foreign_results(tmp_path / place / "Else" / "results" / "box" / "dlrm", "1.0.0", unchanged)
    assert plot("2.1", "2.0", cwd=tmp_path).status == 0
    assert legend_of(saved[0]) == ["Else, 1xBox (2.1)", "Else, 1xBox (2.0)", "target 0.8025"]


def test_label_of_a_folder_is_that_of_its_runs(tmp_path: Path, saved: list[Figure]) -> None:
    package_of(tmp_path / "a", "box")
    write_log(tmp_path / "b.txt", foreign_entries(1, edition="1.0.0"))
    assert plot("a", "b.txt", "--labels=_a$^$,b", cwd=tmp_path).status == 0
    saved[0].draw_without_rendering()
    texts = legend_of(saved[0])
    assert [text.replace("\\", "").strip("\N{ZERO WIDTH SPACE}") for text in texts] == [
        *("_a$^$ (5 runs)", "b", "target 0.8025")
    ]
    assert len(line_colors(saved[0].axes[0])) == 2


def died_early(number: int, entries: list[Entry]) -> list[Entry]:
    keys = ("eval_accuracy", "run_stop", "run_start", "init_stop")
    return [entry for entry in entries if number != 2 or entry[0] not in keys]


def diverged(number: int, entries: list[Entry]) -> list[Entry]:
    return [
        (key, 0.5002 if number == 2 and key == "eval_accuracy" else value, metadata, time)
        for key, value, metadata, time in entries
    ]


def interrupted(number: int, entries: list[Entry]) -> list[Entry]:
    return entries if number != 2 else entries[:40]


@pytest.mark.parametrize(
    ("change", "runs", "warning"),
    [
        (died_early, 4, "left out: box/result_2.txt: the log has no eval_accuracy"),
        (diverged, 5, "box/result_2.txt: the run learned nothing or diverged: its last AUC is 0.5002"),
        (aborted, 5, "box/result_3.txt: the run ended with the status aborted"),
        (interrupted, 5, "box/result_2.txt: the log ends before the run does: it has no run_stop"),
    ],
)
@pytest.mark.parametrize("arguments", [["box"], [f"box/result_{number}.txt" for number in range(5)]])
def test_run_that_died_among_five_is_a_warning(
    arguments: list[str], change: Any, runs: int, warning: str, tmp_path: Path, saved: list[Figure]
) -> None:
    foreign_results(tmp_path / "box", "1.0.0", change)
    run = plot(*arguments, cwd=tmp_path)
    assert run == Finished(0, f"run.png: {runs} runs\n", f"warning: {warning}\n")
    assert saved[0].axes[0].get_ylim()[0] > 0.7
    assert ("result_2 (learned nothing)" in legend_of(saved[0])) == (change is diverged)


def test_several_runs_in_one_log_are_a_warning(tmp_path: Path) -> None:
    first = foreign_entries(1, edition="2.0.0")
    for name, delay in (("nodes", 10), ("runs", 3_600_000)):
        later = [(key, value, metadata, time + delay) for key, value, metadata, time in first]
        write_log(tmp_path / f"{name}.log", [*first, *later])
    assert Curves.of_log(tmp_path / "nodes.log").warnings == []
    assert Curves.of_log(tmp_path / "runs.log").warnings == [
        "the log contains several runs, which are drawn as one"
    ]


def test_values_that_are_not_drawn_are_a_warning(tmp_path: Path) -> None:
    entries = foreign_entries(1, edition="2.0.0")
    write_log(tmp_path / "a.log", [*entries, ("eval_accuracy", "0.8", {"epoch_num": 1.95}, 200_000)])
    assert Curves.of_log(tmp_path / "a.log").warnings == [
        "1 of 19 values of eval_accuracy are not an AUC and are not drawn"
    ]


def test_console_output_of_a_killed_run_is_a_warning(tmp_path: Path) -> None:
    for number in range(5):
        lines = training_lines(0, range(10, 401 if number != 2 else 301, 10))
        (tmp_path / f"{number}.txt").write_text("\n".join(lines))
    run = plot(*(f"{number}.txt" for number in range(5)), cwd=tmp_path)
    assert run == Finished(
        0, "run.png: 5 runs\n", "warning: 2.txt: the log ends within an epoch, at iteration 300 of 400\n"
    )


def test_characters_that_the_font_lacks_are_mentioned_once(tmp_path: Path) -> None:
    write_log(tmp_path / "log.txt", foreign_entries(1, edition="1.0.0"))
    run = plot("log.txt", "--labels=日本", cwd=tmp_path)
    assert (run.status, len(run.stderr.splitlines())) == (0, 1)
    assert "font" in run.stderr


def test_long_label_keeps_both_ends(tmp_path: Path, saved: list[Figure]) -> None:
    name = f"result_{'x' * 200}_7"
    write_log(tmp_path / f"{name}.txt", foreign_entries(1, edition="1.0.0"))
    assert plot(f"{name}.txt", cwd=tmp_path).status == 0
    (label, _) = legend_of(saved[0])
    assert (label[:7], label[-2:], len(label)) == ("result_", "_7", 65)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "the file is empty"),
        (b'{"scaling": 1.05}\n', "not a log: a JSON file"),
        (b"\x1f\x8b\x08\x00", "not a log: gzip data"),
        (b":::MLPv0.6.0 dlrm {}\n", "a log of MLPerf 0.6.0: :::MLPv0.6.0 instead of :::MLLOG"),
        (
            b"training ...\n",
            "not a log: text without lines of the training or of tests, and without MLPerf events",
        ),
    ],
)
def test_file_that_is_not_a_log_is_named_as_what_it_is(content: bytes, named: str, tmp_path: Path) -> None:
    (tmp_path / "result_0.txt").write_bytes(content)
    run = plot("result_0.txt", cwd=tmp_path)
    assert run == Finished(1, "", f"plot_run.py: error: result_0.txt: {named}\n")


def test_run_without_the_metric_is_left_out_with_a_warning(tmp_path: Path) -> None:
    write_log(tmp_path / "auc.txt", foreign_entries(1, edition="1.0.0"))
    (tmp_path / "other.txt").write_text("Testing at - 10/20 of epoch 0, loss 0.5, accuracy 76.1 %\n")
    run = plot("auc.txt", "other.txt", cwd=tmp_path)
    assert run == Finished(0, "run.png: 1 run\n", "warning: left out: other.txt: contains neither loss nor auc\n")


def test_loss_of_a_run_that_diverged_does_not_determine_the_scale(tmp_path: Path, saved: list[Figure]) -> None:
    def run(loss: float) -> Curves:
        return Curves(loss=[Point(step, step / 100, loss + 1 / step**2) for step in range(1, 101)])

    losses = [(str(loss), run(loss)) for loss in (0.12, 0.13, 0.14, 9.0)]
    draw_runs(losses, "auc", "iterations", {}, "", tmp_path / "run.png")
    assert saved[0].axes[0].get_ylim()[1] < 1
