"""Recognition of the edition of logs and packages of any submitter."""

from __future__ import annotations

from pathlib import Path

import pytest
from foreign_logs import (
    Change,
    Entry,
    as_package,
    both,
    foreign_entries,
    foreign_results,
    in_order_of_time,
    moved_to_the_end,
    repeated,
    unchanged,
    with_metadata,
    without,
    write_log,
)
from program import check_submission as check

from mlperf.compliance.edition import recognize
from mlperf.compliance.log_reader import read_log

ALL = ("0.7.0", "1.0.0", "1.1.0", "2.0.0", "2.1.0")
FROM_1_0, FROM_1_1, FROM_2_0 = ALL[1:], ALL[2:], ALL[3:]
LATE_DIVISION = moved_to_the_end("submission_division")
NODES = repeated("weights_initialization", 8)


def candidates(entries: list[Entry], made_in: str, folder: Path) -> tuple[str, ...]:
    """Return the editions that a run with these events, made in the round of an edition, may belong to."""
    write_log(folder / "a.log", entries, made_in)
    return tuple(edition.name for edition in recognize([read_log(folder / "a.log")]).candidates)


def verdicts(output: str) -> list[tuple[str, str]]:
    """Return edition and verdict of the last lines of the reports."""
    ends = [line.split(": ")[1:] for line in output.splitlines() if line.endswith((": SUCCESS", ": FAILED"))]
    return [(edition.removeprefix("edition "), verdict) for edition, verdict in ends]


@pytest.mark.parametrize(
    ("keys", "made_in", "change", "expected"),
    [
        ("0.7.0", "0.7.0", unchanged, ("0.7.0",)),
        ("1.0.0", "1.0.0", unchanged, ("1.0.0",)),
        ("1.0.0", "0.7.0", unchanged, ("1.0.0",)),
        ("1.1.0", "1.0.0", unchanged, FROM_1_0),
        ("1.1.0", "1.1.0", unchanged, FROM_1_1),
        ("2.0.0", "2.0.0", unchanged, FROM_2_0),
        ("2.1.0", "2.1.0", unchanged, ("2.1.0",)),
        ("1.1.0", "1.0.0", NODES, ("1.0.0",)),
        ("1.1.0", "1.0.0", LATE_DIVISION, ("1.0.0", "1.1.0")),
        ("1.1.0", "1.1.0", LATE_DIVISION, ("1.1.0",)),
        ("1.1.0", "1.1.0", both(NODES, LATE_DIVISION), ("1.1.0",)),
        ("2.0.0", "2.0.0", without("eval_samples", (0,)), FROM_2_0),
    ],
    ids=[
        *("0.7", "1.0", "0.7 run with keys of 1.0", "1.0 with weights", "1.1", "2.0", "2.1", "nodes in 1.0"),
        *("late division in 1.0", "late division in 1.1", "both in 1.1", "missing key"),
    ],
)
def test_candidates_follow_from_keys_dates_and_rules(
    keys: str, made_in: str, change: Change, expected: tuple[str, ...], tmp_path: Path
) -> None:
    assert candidates(change(0, foreign_entries(1, edition=keys)), made_in, tmp_path) == expected


def test_log_that_only_one_edition_explains_is_judged_by_its_rules(tmp_path: Path) -> None:
    write_log(tmp_path / "a.log", LATE_DIVISION(0, foreign_entries(1, edition="1.1.0")), "1.1.0")
    run = check("a.log", cwd=tmp_path)
    assert run.status == 0
    assert "a.log: edition 1.1.0 (by its keys and dates, 2021-10-15)" in run.stdout
    assert verdicts(run.stdout) == [("1.1.0", "SUCCESS")]


def test_doubt_is_stated_and_each_candidate_gets_a_verdict(tmp_path: Path) -> None:
    foreign_results(tmp_path / "dlrm", "1.1.0", unchanged)
    run = check("dlrm", cwd=tmp_path)
    assert run.status == 0, run.stdout
    assert (
        "(in doubt: by its keys and dates, 2021-10-15; 2.0.0 or 2.1.0 if the runs were submitted again)"
        in run.stdout
    )
    assert verdicts(run.stdout) == [(name, "SUCCESS") for name in FROM_1_1]
    assert run.stdout.count("summarizer") == 1, "the table is repeated only if it differs"


def test_keys_that_contradict_the_dates_leave_a_doubt_and_fail_where_one_edition_does(tmp_path: Path) -> None:
    write_log(tmp_path / "a.log", foreign_entries(1, edition="1.0.0"), "2.0.0")
    run = check("a.log", cwd=tmp_path)
    assert run.status == 1
    assert "in doubt: by its keys, but its dates, 2022-04-15, are those of 2.0.0 or later" in run.stdout
    assert verdicts(run.stdout) == [("1.0.0", "SUCCESS"), ("2.0.0", "FAILED"), ("2.1.0", "FAILED")]
    assert "occurrence of 'weights_initialization' but found 0" in run.stdout


@pytest.mark.parametrize("shift", [-1_600_000_000_000, 300_000_000_000], ids=["1971", "2031"])
def test_log_without_a_date_of_any_round_may_belong_to_all_editions_with_its_keys(
    shift: int, tmp_path: Path
) -> None:
    entries = [(*entry[:3], entry[3] + shift) for entry in foreign_entries(1, edition="2.0.0")]
    assert candidates(entries, "2.0.0", tmp_path) == FROM_1_0[::-1]


def test_events_with_implausible_times_do_not_hide_the_date(tmp_path: Path) -> None:
    entries = foreign_entries(1, edition="2.1.0")
    wrong = [(*entry[:3], -1_660_000_000_000 if n % 3 else entry[3]) for n, entry in enumerate(entries)]
    assert candidates(wrong, "2.1.0", tmp_path) == ("2.1.0",)


def test_open_division_needs_no_keys_of_the_closed_one(tmp_path: Path) -> None:
    keys = ("gradient_accumulation_steps", "weights_initialization")
    entries = [entry for entry in foreign_entries(1, edition="2.1.0") if entry[0] not in keys]
    entries = [(key, "open" if key == "submission_division" else value, m, t) for key, value, m, t in entries]
    assert candidates(entries, "2.1.0", tmp_path) == ("2.1.0",)


def test_whole_package_is_judged_by_one_edition(tmp_path: Path) -> None:
    old = foreign_results(tmp_path / "Else" / "results" / "box" / "dlrm", "2.0.0", unchanged)
    package = as_package(old)
    assert verdicts(check(old, cwd=tmp_path).stdout) == [("2.0.0", "SUCCESS"), ("2.1.0", "SUCCESS")]
    foreign_results(package / "results" / "tray" / "dlrm", "2.1.0", unchanged)
    description = (package / "systems" / "box.json").read_text()
    (package / "systems" / "tray.json").write_text(description.replace('"box"', '"tray"'))
    assert verdicts(check(package, cwd=tmp_path).stdout) == [("2.1.0", "SUCCESS")] * 2
    for path in (old, old / "result_0.txt"):
        assert verdicts(check(path, cwd=tmp_path).stdout) == [("2.1.0", "SUCCESS")]


def test_runs_of_other_benchmarks_date_their_package(tmp_path: Path) -> None:
    dlrm = foreign_results(tmp_path / "Else" / "results" / "box" / "dlrm", "2.0.0", unchanged)
    package = as_package(dlrm)
    bert = package / "results" / "box" / "bert"
    bert.mkdir()
    write_log(bert / "result_0.txt", [("submission_benchmark", "bert", {}, 0)], "2.1.0")
    (bert / "result_1.txt").write_text(":::MLLOG {")
    assert verdicts(check(package, cwd=tmp_path).stdout) == [("2.1.0", "SUCCESS")]
    write_log(bert / "result_0.txt", [("submission_benchmark", "bert", {}, 300_000_000_000)], "2.1.0")
    assert verdicts(check(package, cwd=tmp_path).stdout) == [("2.0.0", "SUCCESS"), ("2.1.0", "SUCCESS")]


def test_edition_that_the_runs_logged_needs_no_guess(tmp_path: Path) -> None:
    named = with_metadata("submission_benchmark", {"edition": "1.1.0"}, (0, 1, 2, 3, 4))
    foreign_results(tmp_path / "dlrm", "2.1.0", both(named, in_order_of_time))
    run = check("dlrm", cwd=tmp_path)
    assert "edition 1.1.0 (as its run logged)" in run.stdout
    assert verdicts(run.stdout) == [("1.1.0", "SUCCESS")]


def test_runs_that_logged_different_editions_are_judged_by_each(tmp_path: Path) -> None:
    def named(number: int, entries: list[Entry]) -> list[Entry]:
        edition = "1.1.0" if number < 2 else "2.0.0"
        return with_metadata("submission_benchmark", {"edition": edition}, (number,))(number, entries)

    foreign_results(tmp_path / "dlrm", "2.0.0", both(named, in_order_of_time))
    run = check("dlrm", cwd=tmp_path)
    assert "(in doubt: the runs logged 1.1.0 and 2.0.0)" in run.stdout
    assert verdicts(run.stdout) == [("1.1.0", "SUCCESS"), ("2.0.0", "SUCCESS")]


def test_invalid_edition_in_a_log_is_ignored(tmp_path: Path) -> None:
    entries = foreign_entries(1, edition="2.0.0")
    entries[0] = ("submission_benchmark", "dlrm", {"edition": ["2.0.0"]}, 0)
    assert candidates(entries, "2.1.0", tmp_path) == ("2.1.0",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (LATE_DIVISION, "(the limit depends on submission_division, which is logged later, in line "),
        (NODES, "(9 tensors are logged up to 8 times, as by several nodes)"),
    ],
    ids=["late division", "nodes"],
)
def test_official_message_without_a_cause_is_completed(change: Change, words: str, tmp_path: Path) -> None:
    write_log(tmp_path / "a.log", change(0, foreign_entries(1, edition="2.0.0")))
    assert words in check("a.log", "--edition=2.0.0", cwd=tmp_path).stdout
