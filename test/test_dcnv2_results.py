"""Checking results of DLRM-DCNv2: ten runs, the editions 3.0.0 to 6.0.0, and what their rounds accepted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from foreign_logs import (
    Change,
    Entry,
    aborted,
    as_package,
    both,
    changed,
    foreign_entries,
    foreign_results,
    unchanged,
    without,
    write_log,
)
from program import check_submission as check
from program import official_package_check

from mlperf.benchmarks import DLRM_DCNV2, EDITIONS, editions_of
from mlperf.compliance import official

NAMES = tuple(edition.name for edition in editions_of(DLRM_DCNV2))
ALL_TEN = tuple(range(10))


def a_package(folder: Path, edition: str, change: Change = unchanged, runs: int = 10) -> Path:
    """Write a package; return its folder. runs: fewer than ten where their number does not matter."""
    results = foreign_results(folder / "Else" / "results" / "box" / "dlrm_dcnv2", edition, change)
    for number in range(runs, 10):
        (results / f"result_{number}.txt").unlink()
    return as_package(results)


def set_status(package: Path, status: str, *, without: str = "") -> None:
    file = package / "systems" / "box.json"
    content = json.loads(file.read_text()) | {"status": status}
    content.pop(without, None)
    file.write_text(json.dumps(content, indent=1))


def notes(output: str) -> list[str]:
    """Return the notes about the round."""
    return [
        line.removeprefix("note: ")
        for line in output.splitlines()
        if line.startswith("note") and " its round " in line
    ]


@pytest.mark.parametrize("edition", ["3.0.0", "6.0.0"])
def test_result_of_ten_runs_passes(edition: str, tmp_path: Path) -> None:
    package = a_package(tmp_path, edition)
    assert "FOUND NO ERRORS" in official_package_check(package, edition, tmp_path)
    run = check(package, f"--edition={edition}", cwd=tmp_path)
    assert run.status == 0, run.stdout + run.stderr
    assert "2.450 minutes, the mean without the fastest and the slowest run" in run.stdout


@pytest.mark.parametrize("edition", NAMES)
def test_log_passes_and_its_edition_is_recognized_by_its_date(edition: str, tmp_path: Path) -> None:
    write_log(tmp_path / "a.log", foreign_entries(1, edition=edition), edition)
    run = check("a.log", cwd=tmp_path)
    assert run.status == 0, run.stdout + run.stderr
    verdicts = [line for line in run.stdout.splitlines() if line.endswith(": SUCCESS")]
    assert verdicts == [f"a.log: edition {name}: SUCCESS" for name in NAMES[NAMES.index(edition) :]]


@pytest.mark.parametrize(
    ("change", "row", "words"),
    [
        (without("opt_adagrad_epsilon", (2,)), "compliance", "'opt_adagrad_epsilon' but found 0"),
        (changed("opt_adagrad_epsilon", 1e-10, (2,)), "compliance", "opt_adagrad_epsilon"),
        (changed("opt_weight_decay", 0.1, (2,)), "compliance", "opt_weight_decay"),
        (changed("eval_samples", 89137318, (2,)), "compliance", "eval_samples"),
        (changed("eval_accuracy", 0.8026, (2,)), "target reached", "best AUC is 0.80260, the target 0.80275"),
        (changed("seed", 101, (2,)), "seeds", "seed 101"),
        (
            changed("submission_benchmark", "dlrm", (2,)),
            "target reached",
            "the log is of 'dlrm', not of dlrm_dcnv2",
        ),
    ],
    ids=["epsilon", "its value", "decay", "samples", "target", "seed twice", "benchmark"],
)
def test_fault_of_a_run_is_reported_with_file_and_line(
    change: Change, row: str, words: str, tmp_path: Path
) -> None:
    folder = a_package(tmp_path, "6.0.0", change, runs=3) / "results" / "box" / "dlrm_dcnv2"
    run = check(folder, "--edition=6.0.0", cwd=tmp_path)
    assert run.status == 1
    found = [
        line for line in run.stdout.splitlines() if line.startswith(f"{folder}/result_2.txt:") and words in line
    ]
    assert found, run.stdout
    assert found[0].split(": ")[1] == row


@pytest.mark.parametrize(
    ("edition", "size", "epochs", "message"),
    [
        ("6.0.0", 55296, 0.75, None),
        ("6.0.0", 55296, 0.70, "RCP found"),
        ("6.0.0", 65536, 0.80, None),  # this point is pruned: interpolated
        ("6.0.0", 65536, 0.70, "RCP Interpolation"),
        ("6.0.0", 28000, 0.70, None),  # slower than the smallest point's bound
        ("6.0.0", 28000, 0.65, "Missing RCP"),
        ("5.0.0", 160000, 1.0, "Missing RCP"),  # contributed in round 5.1
        ("5.1.0", 160000, 0.95, None),
        ("5.1.0", 160000, 0.90, "RCP found"),
        ("5.1.0", 200000, 1.0, "Missing RCP"),
    ],
)
def test_convergence_is_compared_with_the_points_of_the_edition(
    edition: str, size: int, epochs: float, message: str | None, tmp_path: Path
) -> None:
    def converged(number: int, entries: list[Entry]) -> list[Entry]:
        entries = foreign_entries(number, edition=edition, last_epoch=epochs)
        return changed("global_batch_size", size, (number,))(number, entries)

    folder = foreign_results(tmp_path / "dlrm_dcnv2", edition, converged)
    output = official.check_convergence(folder, EDITIONS[edition], None)
    assert output.passed == (message is None)
    assert [text.startswith(message or "") for _, text in output.errors] == [True] * (message is not None)


def test_one_of_ten_runs_may_fail_by_the_rules_and_counts_as_the_slowest(tmp_path: Path) -> None:
    edition = "6.0.0"
    short = both(changed("eval_accuracy", 0.8, (3,)), aborted)
    package = a_package(tmp_path, edition, short)
    assert "FOUND NO ERRORS" in official_package_check(package, edition, tmp_path)
    run = check(package, f"--edition={edition}", cwd=tmp_path)
    assert run.status == 1
    assert notes(run.stdout) == [
        f"compliance, target reached: valid in its round {edition}: the rules accept one of 10 runs that is "
        "aborted or does not comply"
    ]
    assert "1 of 10 runs is aborted or short of the target: the rules count it as the slowest" in run.stdout
    assert "2.525 minutes" in run.stdout  # of 2.1, 2.2, 2.4, ..., 2.9


def test_two_failed_runs_are_valid_in_no_round(tmp_path: Path) -> None:
    package = a_package(tmp_path, "6.0.0", changed("eval_accuracy", 0.8, (3, 4)))
    run = check(package, "--edition=6.0.0", cwd=tmp_path)
    assert run.status == 1
    assert not notes(run.stdout)


@pytest.mark.parametrize(("edition", "count"), [("4.0.0", 1), ("4.1.0", 0)])
def test_result_without_seeds_was_valid_until_round_4_0(edition: str, count: int, tmp_path: Path) -> None:
    package = a_package(tmp_path, edition, without("seed", ALL_TEN), runs=2)
    run = check(package, f"--edition={edition}", cwd=tmp_path)
    assert run.status == 1
    assert len([note for note in notes(run.stdout) if note.startswith("seeds: valid in its round")]) == count


@pytest.mark.parametrize(
    ("edition", "status", "passes", "count"),
    [
        ("3.1.0", "on premise", True, 0),
        ("4.0.0", "onprem", False, 1),
        ("4.0.0", "Cloud", False, 1),
        ("4.0.0", "soon", False, 0),
        ("4.1.0", "onprem", False, 0),
        ("6.0.0", "Preview", True, 0),
    ],
)
def test_words_for_the_status_count_as_in_their_round(
    edition: str, status: str, passes: bool, count: int, tmp_path: Path
) -> None:
    package = a_package(tmp_path, edition, runs=1)
    set_status(package, status)
    run = check(package, f"--edition={edition}", cwd=tmp_path)
    (row,) = [line for line in run.stdout.splitlines() if line.startswith("system description")]
    assert row.split()[-1] == ("PASS" if passes else "FAIL")
    lines = (package / "systems" / "box.json").read_text().splitlines()
    number = next(number for number, line in enumerate(lines, 1) if '"status"' in line)
    words = f"box.json:{number}: system description: Field status contains a non valid value: {status}"
    assert (words in run.stdout) == (not passes)
    assert len([note for note in notes(run.stdout) if note.startswith("system description: valid")]) == count


def test_missing_field_is_reported_beside_a_wrong_status(tmp_path: Path) -> None:
    package = a_package(tmp_path, "4.0.0", runs=1)
    set_status(package, "onprem", without="cooling")
    run = check(package, "--edition=4.0.0", cwd=tmp_path)
    assert "system description: Missing field cooling" in run.stdout
    assert not notes(run.stdout)  # missing fields have been refused since December 2023


def test_edition_is_recognized_by_other_benchmarks_and_by_the_description(tmp_path: Path) -> None:
    def editions(package: Path) -> list[str]:
        lines = check(package, cwd=tmp_path).stdout.splitlines()
        return [line.split()[-2].removesuffix(":") for line in lines if line.endswith((": SUCCESS", ": FAILED"))]

    package = a_package(tmp_path, "3.0.0", runs=1)
    set_status(package, "onprem")
    assert editions(package) == ["3.0.0", "3.1.0"]
    for name, expected in {"stable_diffusion": ["3.1.0"], "gnn": ["4.0.0", "4.1.0"]}.items():
        set_status(package, "Available on-premise")
        other = package / "results" / "box" / name / "result_0.txt"
        other.parent.mkdir()
        write_log(other, [("submission_benchmark", name, {}, 0)], "3.0.0")
        if name == "stable_diffusion":
            set_status(package, "onprem")
        assert editions(package) == expected
        shutil.rmtree(other.parent)


def test_logs_of_the_same_run_are_explained(tmp_path: Path) -> None:
    package = a_package(tmp_path, "4.0.0", runs=2)
    folder = package / "results" / "box" / "dlrm_dcnv2"
    (folder / "result_1.txt").write_text("raw\n" + (folder / "result_0.txt").read_text().replace(" 100,", " 7,"))
    (folder / "power" / "result_0").mkdir(parents=True)
    run = check(package, "--edition=4.0.0", cwd=tmp_path)
    assert run.status == 1
    assert "result_1.txt:26: consistency: the same run as in result_0.txt" in run.stdout
    assert notes(run.stdout) == [
        "consistency: the checkers of its round 4.0.0 accept it: they do not compare the files; "
        "here 1 of 2 logs record runs of other logs"
    ]
    assert f"note: {folder}/power: left out, the measured power is not judged" in run.stdout


def test_script_that_starts_the_processes_is_none_of_them(tmp_path: Path) -> None:
    def started_by_script(number: int, entries: list[Entry]) -> list[Entry]:
        clear = next(entry for entry in entries if entry[0] == "cache_clear")
        script = ("cache_clear", True, {"file": "launch.sh"}, 0)
        return [script] * (number < 2) + [clear] * 8 + entries[1:]

    def more_processes(number: int, entries: list[Entry]) -> list[Entry]:
        return [entries[0]] * (9 if number < 2 else 8) + entries[1:]

    words = "consistency: the number of processes that log cache_clear is 9, not 8"
    package = a_package(tmp_path / "script", "3.1.0", started_by_script, runs=6)
    assert words not in check(package, "--edition=3.1.0", cwd=tmp_path).stdout
    package = a_package(tmp_path / "more", "3.1.0", more_processes, runs=6)
    assert words in check(package, "--edition=3.1.0", cwd=tmp_path).stdout


@pytest.mark.parametrize(("factor", "said"), [(1.0371, True), (1.0, False), ("none", False)])
def test_other_scaling_factor_of_the_round_is_reported(factor: object, said: bool, tmp_path: Path) -> None:
    package = a_package(tmp_path, "3.0.0", runs=3)
    file = package / "results" / "box" / "dlrm_dcnv2" / "scaling.json"
    file.write_text(json.dumps({"scaling_factor": factor}))
    run = check(package, "--edition=3.0.0", cwd=tmp_path)
    note = f"note: {file}: its factor is 1.0371; with the reference points of today it is 1.0000"
    assert (note in run.stdout.splitlines()) == said
    assert ("its factor" in run.stdout) == said


def test_folder_without_logs_is_reported_as_one_fault(tmp_path: Path) -> None:
    package = a_package(tmp_path, "6.0.0")
    for file in (package / "results" / "box" / "dlrm_dcnv2").iterdir():
        file.unlink()
    run = check(package, "--edition=6.0.0", cwd=tmp_path)
    assert run.status == 1
    assert f"{package}/results/box/dlrm_dcnv2: package: no result_*.txt" in run.stdout
    assert "stops with" not in run.stdout


def test_open_division_asks_for_no_hyperparameters_and_no_target(tmp_path: Path) -> None:
    def opened(number: int, entries: list[Entry]) -> list[Entry]:
        kept = [entry for entry in entries if not entry[0].startswith(("opt_", "gradient_", "seed"))]
        entries = changed("submission_division", "open", (number,))(number, kept)
        return changed("eval_accuracy", 0.6 + number / 1000, (number,))(number, entries)

    package = a_package(tmp_path, "5.0.0", opened)
    file = package / "systems" / "box.json"
    file.write_text(file.read_text().replace('"closed"', '"open"'))
    run = check(package, "--edition=5.0.0", cwd=tmp_path)
    assert run.status == 0, run.stdout


def test_package_with_both_benchmarks_is_judged_by_an_edition_of_each(tmp_path: Path) -> None:
    package = a_package(tmp_path, "6.0.0")
    foreign_results(package / "results" / "box" / "dlrm", "2.1.0", unchanged)
    for edition, other in (("2.1.0", "dlrm_dcnv2"), ("6.0.0", "dlrm")):
        said = official_package_check(package, edition, tmp_path)
        assert "FOUND NO ERRORS" in said
        assert f"Skipping benchmark: {other}\n" in said
    run = check(package, cwd=tmp_path)
    assert run.status == 0, run.stdout
    verdicts = [line for line in run.stdout.splitlines() if line.endswith("SUCCESS")]
    folders = [package / "results" / "box" / name for name in ("dlrm", "dlrm_dcnv2")]
    assert verdicts == [f"{folders[0]}: edition 2.1.0: SUCCESS", f"{folders[1]}: edition 6.0.0: SUCCESS"]
    both_named = "has results of dlrm and dlrm_dcnv2, which no edition includes together"
    assert run.stdout.count(f"note: {package}: {both_named}") == 1
    for number in range(1, 10):
        (folders[1] / f"result_{number}.txt").unlink()
    run = check(package, "--edition=6.0.0", cwd=tmp_path)
    left = f"note: left out, of a benchmark that --edition=6.0.0 does not include: {folders[0]}"
    assert left in run.stdout.splitlines()
    assert run.stdout.count(": edition ") == 2  # the first and the last line of one report


@pytest.mark.parametrize("path", ["dlrm_dcnv2", "dlrm_dcnv2/result_3.txt"])
def test_edition_that_does_not_include_the_benchmark_is_refused(path: str, tmp_path: Path) -> None:
    (tmp_path / "dlrm_dcnv2").mkdir()
    write_log(tmp_path / "dlrm_dcnv2" / "result_3.txt", foreign_entries(1, edition="6.0.0"), "6.0.0")
    run = check(path, "--edition=2.1.0", cwd=tmp_path)
    assert run.status == 2
    assert f"--edition=2.1.0: {path} is of dlrm_dcnv2; allowed are {', '.join(NAMES)}\n" in run.stderr
    run = check(path, "--edition=all", cwd=tmp_path)
    ends = [line.split()[-2] for line in run.stdout.splitlines() if line.endswith((": SUCCESS", ": FAILED"))]
    assert ends == [f"{name}:" for name in NAMES]


def test_reference_points_of_the_other_benchmark_are_refused(tmp_path: Path) -> None:
    (tmp_path / "dlrm_dcnv2").mkdir()
    write_log(tmp_path / "dlrm_dcnv2" / "result_0.txt", foreign_entries(1, edition="6.0.0"), "6.0.0")
    point = {"Benchmark": "dlrm", "BS": 55296, "Hyperparams": {}, "Epochs to converge": [0.9] * 10}
    (tmp_path / "points.json").write_text(json.dumps({"a": point}))
    run = check("dlrm_dcnv2", "--edition=6.0.0", "--rcps=points.json", cwd=tmp_path)
    assert run.status == 2
    assert "--rcps=points.json: points of dlrm; dlrm_dcnv2 is of dlrm_dcnv2" in run.stderr


def test_results_of_other_benchmarks_are_said_to_be_left_out(tmp_path: Path) -> None:
    package = a_package(tmp_path, "5.1.0", runs=1)
    other = package / "results" / "box" / "llama31_8b"
    other.mkdir()
    write_log(other / "result_0.txt", [("submission_benchmark", "llama31_8b", {}, 0)], "5.1.0")
    run = check(package, "--edition=5.1.0", cwd=tmp_path)
    assert "left out, of other benchmarks or systems: results/box/llama31_8b" in run.stdout
