"""Findings name file, line and problem."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from foreign_logs import (
    Change,
    Entry,
    aborted,
    as_package,
    changed,
    foreign_entries,
    foreign_results,
    hasty,
    moved_to_the_end,
    unchanged,
    with_metadata,
    without,
    write_log,
)
from mlperf_logging.compliance_checker import mlp_compliance
from program import start_program

from mlperf.benchmarks import EDITIONS, Edition
from mlperf.submission.check import check_result
from mlperf.submission.report import render
from mlperf.submission.results import find_results


def judge(path: Path, edition: str = "2.0.0") -> str:
    """Return the report of the one result at `path`."""
    (result,) = find_results(path)
    return render(check_result(result, EDITIONS[edition]))


def found(report: str) -> list[str]:
    """Return the lines of a report that say what was found: all below the table but notes and the verdict."""
    return [line for line in report.splitlines() if ": " in line and not line.startswith("note: ")][1:-1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed("seed", "abc", (1,)), "17: seeds: the seed cannot be read: invalid literal"),
        (changed("seed", [1], (1,)), "17: seeds: the seed cannot be read: int() argument must be"),
    ],
    ids=["word", "list"],
)
def test_seed_that_is_not_a_number_is_reported_at_its_line(change: Change, words: str, tmp_path: Path) -> None:
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", change)
    (line,) = found(judge(folder))
    assert line.startswith(f"{folder}/result_1.txt:{words}")


def test_malformed_line_explains_an_unreadable_seed(tmp_path: Path) -> None:
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", unchanged)
    file = folder / "result_2.txt"
    file.write_text(file.read_text().replace('"key": "run_start"', '"key": "run_start'))
    lines = [line for line in found(judge(folder)) if ": seeds: " in line]
    assert lines == [f"{file}:21: seeds: the seed cannot be read: Found parsing errors"]


def test_carriage_returns_do_not_count_as_lines(tmp_path: Path) -> None:
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", changed("eval_samples", "", (1,)))
    file = folder / "result_1.txt"
    file.write_bytes(file.read_bytes().replace(b":::MLLOG", b" 50%\r 60%\r:::MLLOG"))
    (line,) = found(judge(folder))
    assert line.startswith(f"{file}:8: compliance: CHECK for 'eval_samples' failed")


@pytest.mark.parametrize(
    ("value", "words"), [(True, "is True, not a number"), (10**600, "is a number out of range, not a number")]
)
def test_invalid_value_is_shown_and_a_huge_one_abbreviated(value: object, words: str, tmp_path: Path) -> None:
    change = with_metadata("eval_accuracy", {"epoch_num": value}, (1,))
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", change)
    report = judge(folder)
    assert f"{folder}/result_1.txt:24: target reached: epoch_num {words}" in report
    assert max(map(len, report.splitlines())) < 500


@pytest.mark.parametrize(
    ("change", "location", "words"),
    [
        (without("eval_accuracy", (3,)), "result_3.txt:71", "no eval_accuracy"),
        (
            lambda number, entries: moved_to_the_end("eval_accuracy")(number, entries) if number == 2 else entries,
            "result_2.txt:59",
            "run_stop comes before all evaluations",
        ),
        (with_metadata("eval_accuracy", {}, (1,)), "result_1.txt:24", "eval_accuracy has no epoch_num"),
        (with_metadata("run_stop", {}, (1,)), "result_1.txt:77", "run_stop has no status"),
        (
            changed("global_batch_size", 32768, (2,)),
            "result_2.txt:9",
            "global_batch_size is 32768, not 55296 as in result_0.txt",
        ),
        (
            changed("global_batch_size", "55296", (0, 1, 2, 3, 4)),
            "result_0.txt:9",
            "global_batch_size is '55296', not a number",
        ),
        (
            lambda number, entries: entries + [("global_batch_size", 32768, {}, 1)] * (number == 1),
            "result_1.txt:90",
            "global_batch_size is 32768, not 55296 as in result_0.txt",
        ),
    ],
    ids=["no AUC", "end first", "no epoch", "no status", "other size", "word", "second size"],
)
def test_log_that_the_convergence_checker_cannot_use_is_named_with_the_reason(
    change: Change, location: str, words: str, tmp_path: Path
) -> None:
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", change)
    (line,) = [line for line in found(judge(folder)) if ": convergence: " in line]
    assert line.startswith(f"{folder}/{location}: convergence: the official checker stops with ")
    assert line.endswith(f": {words}")


@pytest.mark.parametrize("odd", [0, 2, 4])
def test_different_batch_size_is_reported_at_the_log_that_has_it(odd: int, tmp_path: Path) -> None:
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", changed("global_batch_size", 60000, (odd,)))
    lines = [line for line in found(judge(folder)) if "seeds" not in line]
    usual = "result_1.txt" if odd == 0 else "result_0.txt"
    reason = f"global_batch_size is 60000, not 55296 as in {usual}"
    place = f"{folder}/result_{odd}.txt:9"
    assert f"{place}: convergence: the official checker stops with KeyError: None: {reason}" in lines
    assert f"{place}: package: the official checker stops with KeyError: None" in lines
    assert all(line.startswith(f"{place}: ") for line in lines)


def test_crash_of_the_package_checker_is_not_blamed_on_a_missing_seed(tmp_path: Path) -> None:
    no_seed, other_size = without("seed", (0, 1)), changed("global_batch_size", 60000, (3,))
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", lambda n, entries: other_size(n, no_seed(n, entries)))
    (line,) = [line for line in found(judge(folder)) if ": package: " in line]
    assert line.startswith(f"{folder}/result_3.txt:9: ")


def test_check_that_cannot_be_executed_is_reported_at_the_line_that_triggers_it(tmp_path: Path) -> None:
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", unchanged)
    file = folder / "result_1.txt"
    lines = file.read_text().splitlines(keepends=True)
    assert '"key": "eval_accuracy"' in lines[23]
    lines[23] = lines[23].partition('"metadata": ')[0] + '"metadata": null}\n'
    file.write_text("".join(lines))
    (line,) = [line for line in found(judge(folder)) if "Failed executing CHECK code" in line]
    assert line.startswith(f"{file}:24: compliance: ")


def test_cause_is_given_for_the_condition_that_fails_only(tmp_path: Path) -> None:
    """The messages of the compliance checker contain its state, and so the names in all conditions."""

    def two_starts(number: int, entries: list[Entry]) -> list[Entry]:
        return moved_to_the_end("submission_division")(number, [*entries, ("init_start", None, {}, 0)])

    lines = found(judge(foreign_results(tmp_path / "dlrm", "2.0.0", two_starts)))
    (stop,) = [line for line in lines if "result_0.txt" in line and "CHECK for 'init_stop'" in line]
    (start,) = [line for line in lines if "result_0.txt" in line and "CHECK for 'init_start'" in line]
    assert stop.endswith("(the limit depends on submission_division, which is logged later, in line 90)")
    assert start.endswith("CHECK for 'init_start' failed: not s['run_started']")


def test_metric_that_never_reaches_the_range_is_reported_at_the_last_evaluation(tmp_path: Path) -> None:
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", changed("eval_accuracy", -1, (1,)))
    lines = [line for line in found(judge(folder)) if "Failed checks for eval_accuracy" in line]
    assert [line.partition(": ")[0] for line in lines] == [f"{folder}/result_1.txt:75"]


def test_findings_do_not_depend_on_the_order_of_sets(tmp_path: Path) -> None:
    entries = foreign_entries(1, edition="2.0.0")
    entries = [entry for entry in entries if not entry[0].startswith(("epoch", "eval_st"))]
    entries += [("global_batch_size", size, {}, 0) for size in ("a", "b", "c")]
    write_log(tmp_path / "a.log", entries)
    program = "tools/check_submission.py"
    reports = {
        start_program("a.log", "--edition=2.0.0", program=program, cwd=tmp_path, PYTHONHASHSEED=seed).stdout
        for seed in ("0", "1", "2")
    }
    (report,) = reports
    assert "with different values: [55296, a, b, c]" in report
    assert [line.partition("occurrence of ")[2] for line in report.splitlines() if " or '" in line] == [
        "'block_start' or 'epoch_start'",
        "'block_start' or 'eval_start'",
        "'block_stop' or 'epoch_stop'",
        "'block_stop' or 'eval_stop'",
    ]


def test_division_without_rules_is_reported_at_its_line(tmp_path: Path) -> None:
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", changed("submission_division", "shut", (2,)))
    lines = [line for line in found(judge(folder)) if "shut_common.yaml" in line]
    assert lines
    assert all(line.startswith(f"{folder}/result_2.txt:5: ") for line in lines)


@pytest.mark.parametrize("edition", EDITIONS.values(), ids=lambda edition: edition.name)
def test_target_of_the_open_division_matches_the_official_rules(edition: Edition) -> None:
    rules = (
        Path(mlp_compliance.__file__).parent / f"training_{edition.name}" / f"open_{edition.benchmark.name}.yaml"
    )
    (key,) = [record["KEY"] for record in yaml.safe_load(rules.read_text())]
    assert (f"v['value'] >= {edition.auc_target}" in key["ATLEAST_ONE_CHECK"]) == (edition.open_target > 0)
    assert edition.open_target in (0, edition.auc_target)


@pytest.mark.parametrize(("edition", "verdict"), [("0.7.0", "FAILED"), ("2.0.0", "SUCCESS")])
def test_target_of_the_open_division_depends_on_the_edition(edition: str, verdict: str, tmp_path: Path) -> None:
    everywhere = (0, 1, 2, 3, 4)
    low, is_open = changed("eval_accuracy", 0.75, everywhere), changed("submission_division", "open", everywhere)
    folder = foreign_results(tmp_path / "dlrm", edition, lambda number, run: low(number, is_open(number, run)))
    assert judge(folder, edition).endswith(verdict)


def test_report_notes_that_the_score_includes_an_aborted_run(tmp_path: Path) -> None:
    report = judge(foreign_results(tmp_path / "dlrm", "2.0.0", aborted))
    assert "note: 1 of 5 runs is aborted or short of the target: the rules count it as the slowest" in report
    assert "note: the summarizer counts the time of result_3.txt all the same" in report


def test_invalid_metric_does_not_hide_that_the_target_was_reached(tmp_path: Path) -> None:
    report = judge(foreign_results(tmp_path / "dlrm", "2.0.0", changed("submission_benchmark", "bert", (0,))))
    assert "target reached: the log is of 'bert', not of dlrm" in report
    assert "short of the target" not in report


def test_missing_score_refers_to_the_check_that_explains_it(tmp_path: Path) -> None:
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", without("eval_samples", (1, 2)))
    report = judge(folder)
    (row,) = [line.split() for line in report.splitlines() if line.startswith("summarizer")]
    assert row[2:] == ["FAIL", "see", "compliance"]
    assert [line.partition(": ")[0] for line in found(report)] == [f"{folder}/result_{n}.txt:88" for n in (1, 2)]


def test_results_of_other_systems_are_reported_as_not_checked(tmp_path: Path) -> None:
    folder = foreign_results(tmp_path / "Else" / "results" / "box" / "dlrm", "2.0.0", unchanged)
    package = as_package(folder)
    (package / "systems" / "tray.json").write_text("{")
    for location in ("box/bert", "tray/resnet"):
        (package / "results" / location).mkdir(parents=True)
    (tmp_path / "Third" / "results" / "box" / "DLRM").mkdir(parents=True)
    notes = [line for line in judge(tmp_path).splitlines() if "left out" in line]
    assert notes == [
        f"note: {package}: left out, of other benchmarks or systems: "
        "results/box/bert, results/tray/resnet, systems/tray.json",
        f"note: left out, without results/<system>/dlrm|dlrm_dcnv2: {tmp_path}/Third",
    ]


def test_symlinked_system_is_checked_with_its_description(tmp_path: Path) -> None:
    folder = foreign_results(tmp_path / "Else" / "results" / "box" / "dlrm", "2.0.0", unchanged)
    package = as_package(folder)
    (package / "results" / "box").rename(tmp_path / "store")
    (package / "results" / "box").symlink_to(tmp_path / "store")
    (package / "systems" / "box.json").write_text("{")
    for location in (package, package / "results" / "box", folder):
        assert "systems/box.json:1: system description: not JSON" in judge(location)


def test_unprintable_name_is_escaped(tmp_path: Path) -> None:
    folder = foreign_results(tmp_path / "r\u00e9sultats", "2.0.0", unchanged)
    program = "tools/check_submission.py"
    run = start_program(str(folder / "result_0.txt"), program=program, cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert run.status == 0, run.stderr
    assert "/r\\xe9sultats/result_0.txt: edition 2.1.0: SUCCESS" in run.stdout


def test_rcp_file_replaces_the_points_of_the_edition_in_every_check(tmp_path: Path) -> None:
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", hasty)
    point = {"Benchmark": "dlrm", "BS": 55296, "Hyperparams": {}}
    points = tmp_path / "points.json"
    (result,) = find_results(folder)
    for epochs, passed in ((1.6, True), (1.7, False)):
        points.write_text(json.dumps({"a": {**point, "Epochs to converge": [epochs] * 10}}))
        report = check_result(result, EDITIONS["2.0.0"], rcp_file=points)
        assert report.passed == passed, render(report)
