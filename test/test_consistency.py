"""The logs of a result are compared with each other and with the system description."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from foreign_logs import (
    Change,
    Entry,
    as_package,
    changed,
    foreign_entries,
    foreign_results,
    unchanged,
    with_metadata,
    write_log,
)
from program import check_submission as check

from mlperf.benchmarks import EDITIONS
from mlperf.compliance.findings import Finding
from mlperf.compliance.log_reader import read_log
from mlperf.submission.check import check_result
from mlperf.submission.consistency import check_consistency
from mlperf.submission.report import Check, Report, Verdict
from mlperf.submission.results import find_results

EVERYWHERE = (0, 1, 2, 3, 4)
is_open = changed("submission_division", "open", EVERYWHERE)


def report_on(path: Path, edition: str = "2.0.0") -> Report:
    (result,) = find_results(path)
    return check_result(result, EDITIONS[edition])


def consistency(path: Path) -> Check:
    (result,) = find_results(path)
    return check_consistency(result, [read_log(log) for log in result.logs])


def texts(findings: tuple[Finding, ...], folder: Path) -> list[str]:
    return [f"{finding.location.removeprefix(f'{folder}/')}: {finding.text}" for finding in findings]


def open_results(folder: Path, change: Change) -> Path:
    return foreign_results(folder, "2.0.0", lambda number, entries: change(number, is_open(number, entries)))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = foreign_results(tmp_path / "Else" / "results" / "box" / "dlrm", "2.0.0", unchanged)
    return as_package(folder)


def describe(package: Path, **fields: object) -> None:
    file = package / "systems" / "box.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_separate_runs_of_one_system_are_consistent(package: Path) -> None:
    row = consistency(package)
    assert (row.verdict, row.findings, row.warnings) == (Verdict.PASS, (), ())


def test_inconsistent_logs_fail_the_whole_check(tmp_path: Path) -> None:
    report = report_on(
        foreign_results(tmp_path / "dlrm", "2.0.0", changed("submission_platform", "4xBox", (1, 2)))
    )
    assert [check.name for check in report.checks if check.verdict is Verdict.FAIL] == ["consistency"]
    assert not report.passed


@pytest.mark.parametrize("only", [(1, 3), (0,)], ids=["middle", "first"])
@pytest.mark.parametrize(
    ("key", "value", "usual", "line"),
    [
        ("submission_platform", "4xBox", "'1xBox'", 7),
        ("submission_org", "Other", "'Else'", 4),
        ("submission_status", "cloud", "'onprem'", 6),
        ("eval_samples", 1000, "89137319", 8),
    ],
)
def test_log_that_differs_from_most_fails_at_its_line_in_any_division(
    key: str, value: object, usual: str, line: int, only: tuple[int, ...], tmp_path: Path
) -> None:
    folder = open_results(tmp_path / "dlrm", changed(key, value, only))
    row = consistency(folder)
    assert row.verdict is Verdict.FAIL
    usual_log = "result_1.txt" if 0 in only else "result_0.txt"
    assert texts(row.findings, folder) == [
        f"result_{number}.txt:{line}: {key} is {value!r}, not {usual} as in {usual_log}" for number in only
    ]


@pytest.mark.parametrize(
    ("key", "value", "usual", "line"),
    [("global_batch_size", 65536, "55296", 9), ("sgd_opt_base_learning_rate", 25.5, "24", 11)],
)
def test_other_hyperparameters_are_named_at_their_line(
    key: str, value: object, usual: str, line: int, tmp_path: Path
) -> None:
    folder = open_results(tmp_path / "dlrm", changed(key, value, (1, 3)))
    row = consistency(folder)
    assert row.verdict is Verdict.PASS
    assert texts(row.warnings, folder) == [
        f"result_{number}.txt:{line}: {key} is {value}, not {usual} as in result_0.txt" for number in (1, 3)
    ]


def test_number_may_be_logged_as_an_integer_or_not(tmp_path: Path) -> None:
    folder = open_results(tmp_path / "dlrm", changed("sgd_opt_base_learning_rate", 24, (2,)))
    assert consistency(folder).warnings == ()


def test_logs_of_more_processes_fail(tmp_path: Path) -> None:
    def four_nodes(number: int, entries: list[Entry]) -> list[Entry]:
        count = 4 if number in (1, 2) else 1
        return [entry for entry in entries for _ in range(count if entry[0] == "cache_clear" else 1)]

    folder = open_results(tmp_path / "dlrm", four_nodes)
    assert texts(consistency(folder).findings, folder) == [
        f"result_{number}.txt:19: the number of processes that log cache_clear is 4, not 1 as in result_0.txt"
        for number in (1, 2)
    ]


def test_logs_of_a_faster_system_are_named(tmp_path: Path) -> None:
    def faster(number: int, entries: list[Entry]) -> list[Entry]:
        return foreign_entries(number, edition="2.0.0", minutes=(0.5 if number == 3 else 2) + number / 10)

    row = consistency(foreign_results(tmp_path / "dlrm", "2.0.0", faster))
    assert row.verdict is Verdict.PASS
    (line,) = texts(row.warnings, tmp_path / "dlrm")
    assert (
        line == "result_3.txt:24: 0.889 minutes per epoch, 2.33 in the median of the logs: is it the same system?"
    )


def test_log_whose_first_evaluations_are_missing_is_named(tmp_path: Path) -> None:
    def one_evaluation(number: int, entries: list[Entry]) -> list[Entry]:
        last = max(time for key, _, _, time in entries if key == "eval_accuracy")
        return [entry for entry in entries if number != 2 or entry[0] != "eval_accuracy" or entry[3] == last]

    folder = foreign_results(tmp_path / "dlrm", "2.0.0", one_evaluation)
    row = consistency(folder)
    assert row.verdict is Verdict.PASS
    (line,) = texts(row.warnings, folder)
    assert line == "result_2.txt:58: the epoch of the first evaluation is 1.9, not 1.05 as in result_0.txt"


def test_log_that_names_another_edition_is_named(tmp_path: Path) -> None:
    folder = foreign_results(
        tmp_path / "dlrm", "2.0.0", with_metadata("submission_benchmark", {"edition": "0.7.0"}, (3,))
    )
    (line,) = texts(consistency(folder).warnings, folder)
    assert line == "result_3.txt:3: the edition that the run logged is '0.7.0', not None as in result_0.txt"


def copy(log: str) -> str:
    return log


def reseeded(log: str) -> str:
    return log.replace('"key": "seed", "value": 100', '"key": "seed", "value": 4711')


def prefixed(log: str) -> str:
    return "".join(f"node7: {line}\r\n" for line in log.splitlines())


def later(log: str) -> str:
    return log.replace('"time_ms": 16500', '"time_ms": 16600')


def edited(log: str) -> str:
    return reseeded(log.replace("0.8026", "0.8031"))


def cut(log: str) -> str:
    return "\n".join(log.splitlines()[:60]) + "\n"


@pytest.mark.parametrize("division", ["open", "closed"])
@pytest.mark.parametrize(
    "change", [copy, reseeded, prefixed, later, edited, cut], ids=lambda change: change.__name__
)
def test_copy_of_a_log_is_no_run_of_its_own(change: object, division: str, tmp_path: Path) -> None:
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", changed("submission_division", division, EVERYWHERE))
    assert callable(change)
    (folder / "result_3.txt").write_text(change((folder / "result_0.txt").read_text()), newline="")
    row = consistency(folder)
    assert row.verdict is Verdict.FAIL
    copies = [line for line in texts(row.findings, folder) if "the same run as in result_0.txt" in line]
    assert len(copies) == 1
    assert copies[0].startswith("result_3.txt:")
    assert row.remark == "not an official check; its round may have accepted the result"


def test_runs_of_one_system_are_no_result_of_another(package: Path) -> None:
    folder, other = package / "results" / "box" / "dlrm", package / "results" / "tray" / "dlrm"
    shutil.copytree(folder, other)
    shutil.copy(package / "systems" / "box.json", package / "systems" / "tray.json")
    (other / "result_2.txt").write_text(prefixed(reseeded((folder / "result_0.txt").read_text())), newline="")
    run = check(package, "--edition=2.0.0", cwd=package)
    assert run.status == 1
    lines = [line for line in run.stdout.splitlines() if "each result must have runs of its own" in line]
    assert (
        f"{other}/result_1.txt:21: consistency: the same run as in {folder}/result_1.txt: 20 of 20 times"
        in run.stdout
    )
    assert len(lines) == 9


def test_same_seed_is_named_where_no_check_compares_seeds(tmp_path: Path) -> None:
    folder = open_results(tmp_path / "dlrm", changed("seed", 7, (1, 4)))
    report = report_on(folder)
    assert report.passed
    assert "result_1.txt and result_4.txt have the same seed, 7; seeds are not compared here" in report.notes


def test_same_metrics_at_other_times_are_named(tmp_path: Path) -> None:
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", unchanged)
    entries = foreign_entries(100, edition="2.0.0", minutes=2.35)
    write_log(folder / "result_3.txt", changed("seed", 8, (3,))(3, entries))
    report = report_on(folder)
    assert report.passed
    assert (
        "result_0.txt and result_3.txt have the same AUC at each of 18 evaluations: are they different runs?"
        in report.notes
    )


def test_other_metrics_at_the_same_times_are_named(tmp_path: Path) -> None:
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", unchanged)
    copied = later(reseeded((folder / "result_0.txt").read_text()))
    (folder / "result_3.txt").write_text(
        copied.replace('"key": "eval_accuracy", "value": 0.79', '"key": "eval_accuracy", "value": 0.7888')
    )
    report = report_on(folder)
    assert report.passed
    words = "result_0.txt and result_3.txt have the same times between 18 evaluations: are they different runs?"
    assert words in report.notes


def test_closed_logs_of_a_result_described_as_open_do_not_skip_checks_silently(package: Path) -> None:
    describe(package, division="open")
    run = check(package, "--edition=2.0.0", cwd=package)
    assert run.status == 0
    assert (
        "result_0.txt:5: consistency, not counted: submission_division is 'closed' (in 5 of 5 logs), "
        f"division in {package}/systems/box.json is 'open': judged as open, without seeds and convergence"
    ) in run.stdout
    rows = [line for line in run.stdout.splitlines() if line.startswith(("seeds", "convergence"))]
    assert all(line.endswith("which the logs name; the description does not") for line in rows)
    assert len(rows) == 2


def test_open_logs_of_a_result_described_as_closed_fail(tmp_path: Path) -> None:
    package = as_package(open_results(tmp_path / "Else" / "results" / "box" / "dlrm", unchanged))
    row = consistency(package)
    assert row.verdict is Verdict.FAIL
    (finding,) = row.findings
    assert finding.text.startswith("submission_division is 'open' (in 5 of 5 logs), division in ")


def test_logs_of_both_divisions_fail(tmp_path: Path) -> None:
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", changed("submission_division", "open", (4,)))
    (finding,) = consistency(folder).findings
    assert finding.text == "submission_division is 'open', not 'closed' as in result_0.txt"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("submitter", "Someone", "submission_org is 'Else' (in 5 of 5 logs), submitter in "),
        ("status", "preview", "submission_status is 'onprem' (in 5 of 5 logs), status in "),
        ("status", "cloud", "submission_status is 'onprem' (in 5 of 5 logs), status in "),
        ("system_name", "tray", "submission_platform is '1xBox' (in 5 of 5 logs), system_name in "),
        ("number_of_nodes", "4", "submission_platform is '1xBox', number_of_nodes in "),
    ],
)
def test_other_difference_from_the_description_is_named(field: str, value: str, words: str, package: Path) -> None:
    describe(package, **{field: value})
    row = consistency(package)
    assert row.verdict is Verdict.PASS
    (warning,) = row.warnings
    assert warning.text.startswith(words)
    assert warning.line is not None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("submitter", "ELSE"),
        ("status", "Available on-premise"),
        ("status", "available"),
        ("system_name", "else-box_hugectr"),
        ("number_of_nodes", "many"),
    ],
)
def test_same_thing_in_other_words_is_no_difference(field: str, value: str, package: Path) -> None:
    describe(package, **{field: value})
    assert consistency(package).warnings == ()
