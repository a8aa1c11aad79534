"""Times in a log that contradict each other fail; the official checkers compare the order of the lines only."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from foreign_logs import Change, Entry, foreign_entries, foreign_results, unchanged, write_log
from program import check_submission as check


def moved(key: str, milliseconds: int) -> Change:
    """Return a change of the times of a key in the second log."""

    def change(number: int, entries: list[Entry]) -> list[Entry]:
        by = milliseconds if number == 1 else 0
        return [(k, value, metadata, time + by * (k == key)) for k, value, metadata, time in entries]

    return change


@pytest.mark.parametrize(
    ("change", "location", "words"),
    [
        (moved("run_stop", -121_000), "result_1.txt:24", "2 s after run_stop (18 of 18 evaluations)"),
        (moved("run_start", 120_000), "result_1.txt:24", "113 s before run_start (16 of 18 evaluations)"),
        (moved("run_stop", -10_000), "result_1.txt:72", "3 s after run_stop (2 of 18 evaluations)"),
    ],
    ids=["early end", "late start", "end a little early"],
)
def test_evaluation_outside_of_the_run_fails(change: Change, location: str, words: str, tmp_path: Path) -> None:
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", change)
    run = check("dlrm", "--edition=2.0.0", cwd=tmp_path)
    assert run.status == 1
    assert f"{location}: target reached: eval_accuracy is outside of the run by its time: " in run.stdout
    assert words in run.stdout
    assert "valid in its round" not in run.stdout
    assert check(folder / "result_1.txt", "--edition=2.0.0", cwd=tmp_path).status == 1


def test_clocks_of_processes_may_differ_a_little(tmp_path: Path) -> None:
    foreign_results(tmp_path / "dlrm", "2.0.0", moved("run_stop", -20))
    assert check("dlrm", "--edition=2.0.0", cwd=tmp_path).status == 0


def with_time(place: int, time: object) -> Callable[[list[dict[str, Any]]], None]:
    def change(events: list[dict[str, Any]]) -> None:
        events[place]["time_ms"] = time

    return change


def set_back(events: list[dict[str, Any]]) -> None:
    for event in events[30:]:
        event["time_ms"] -= 1000


def repeated_stop(events: list[dict[str, Any]]) -> None:
    events.append(next(event for event in events if event["key"] == "run_stop"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_time(3, -1), "time_ms is -1, not a whole number of milliseconds since 1970 (1 of 87 events)"),
        (with_time(3, True), "time_ms is True, not a whole number"),
        (with_time(3, 0.5), "time_ms is 0.5, not a whole number"),
        (with_time(3, "1650000000000"), "time_ms is '1650000000000', not a whole number"),
        (with_time(3, math.inf), "time_ms is inf, not a whole number"),
        (with_time(3, math.nan), "time_ms is nan, not a whole number"),
        (with_time(3, 2**63), "time_ms is 9223372036854775808, not a whole number"),
        (set_back, "the time decreases: "),
        (repeated_stop, "run_stop is logged 2 times, first in line"),
    ],
)
def test_time_that_is_none_or_was_set_back_fails(
    change: Callable[[list[dict[str, Any]]], None], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.log"
    write_log(path, sorted(foreign_entries(1, edition="2.0.0"), key=lambda entry: entry[-1]))
    events = read_events_of(path)
    assert check(path, "--edition=2.0.0", cwd=tmp_path).status == 0
    change(events)
    path.write_text("".join(f":::MLLOG {json.dumps(event)}\n" for event in events))
    run = check(path, "--edition=2.0.0", cwd=tmp_path)
    assert run.status == 1
    assert f": target reached: {words}" in run.stdout


def test_settings_may_be_logged_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    write_log(path, foreign_entries(1, edition="2.0.0"))
    events = read_events_of(path)
    assert [event["time_ms"] for event in events] != sorted(event["time_ms"] for event in events)
    assert check(path, "--edition=2.0.0", cwd=tmp_path).status == 0


def test_time_of_a_log_of_this_project_never_decreases(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    write_log(path, sorted(foreign_entries(1, edition="2.0.0"), key=lambda entry: entry[-1]))
    events = read_events_of(path)
    events[-1]["time_ms"] = events[-2]["time_ms"] - 1  # weights_initialization
    for is_ours, status in ((False, 0), (True, 1)):
        if is_ours:
            events[0]["metadata"]["edition"] = "2.0.0"
        path.write_text("".join(f":::MLLOG {json.dumps(event)}\n" for event in events))
        run = check(path, "--edition=2.0.0", cwd=tmp_path)
        assert run.status == status, run.stdout
    assert "the time decreases: " in run.stdout


def test_event_of_a_million_characters_is_named_before_the_official_checker_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    write_log(path, [*foreign_entries(1, edition="2.0.0"), ("tracked_stats", "x" * 1_000_000, {}, 180_000)])
    run = check(path, "--edition=2.0.0", cwd=tmp_path)
    assert (run.status, run.stdout) == (1, "")
    words = r"an event of 1,000,\d+ characters; at most 100,000 are allowed"
    assert re.fullmatch(rf"check_submission.py: error: \S+run.log:\d+: {words}\n", run.stderr)


def read_events_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text.partition("\n")[0]) for text in path.read_text().split(":::MLLOG ")[1:]]


def test_times_in_seconds_are_named(tmp_path: Path) -> None:
    file = foreign_results(tmp_path / "dlrm", "2.0.0", unchanged) / "result_0.txt"
    file.write_text(file.read_text().replace('"time_ms": 1650000', '"time_ms": 1650000.'))
    run = check(file, "--edition=2.0.0", cwd=tmp_path)
    assert run.status == 1  # fractions
    assert "time_ms is 1650000.0, not a whole number of milliseconds since 1970 (" in run.stdout
    (line,) = [line for line in run.stdout.splitlines() if "not counted" in line]
    words = "run_start has time_ms 1650000.06, not the time of a run in ms since 1970"
    assert line == f"{file}:21: target reached, not counted: {words}"
