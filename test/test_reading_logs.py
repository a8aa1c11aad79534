"""Reading MLPerf logs: events, line numbers, and what is said of values that are not valid."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from mlperf.compliance.log_reader import Log, as_text, describe_evaluation, is_fraction, is_number, read_log
from mlperf.util.errors import RunError


def event(key: str, value: object = None, time_ms: object = 0, **metadata: object) -> str:
    content = {"key": key, "value": value, "metadata": metadata, "time_ms": time_ms}
    return f":::MLLOG {json.dumps(content)}"


def log_of(folder: Path, *lines: str) -> Log:
    path = folder / "run.log"
    path.write_text("".join(f"{line}\n" for line in lines), newline="")
    return read_log(path)


def test_events_are_read_with_their_lines_among_other_output(tmp_path: Path) -> None:
    log = log_of(tmp_path, "loading", f"0: {event('seed', 7, 1500, method='x')}", "", event("seed", 8))
    first, second = log.events
    assert (first.line, first.key, first.value, first.metadata, first.time_ms) == (
        2,
        "seed",
        7,
        {"method": "x"},
        1500,
    )
    assert (second.line, second.value) == (4, 8)
    assert log.marked == (2, 4)
    assert log.damaged == ()
    assert log.lines == 4
    assert log.all("seed") == [first, second]
    assert log.value("seed") == 7
    assert log.value("no such key") is None
    assert log.path == tmp_path / "run.log"


def test_last_line_counts_with_and_without_its_newline(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    for text, lines in (("", 1), ("a", 1), ("a\n", 1), ("a\nb", 2), ("a\nb\n", 2)):
        path.write_text(text)
        assert read_log(path).lines == lines


def test_carriage_return_of_a_progress_bar_ends_an_event_but_not_a_line(tmp_path: Path) -> None:
    log = log_of(tmp_path, f"10%\r20%\r{event('seed', 1)}", f"30%\r{event('seed', 2)}\r40%")
    assert [(found.line, found.value) for found in log.events] == [(1, 1), (2, 2)]
    assert log.lines == 2


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1]",
        '{"key": "seed", "value": 1, "metadata": {}}',
        '{"value": 1, "metadata": {}, "time_ms": 1}',
        '{"key": "seed", "metadata": {}, "time_ms": 1}',
        '{"key": "seed", "value": 1, "metadata": 3, "time_ms": 1}',
        '{"key": "seed", "value": 1, "metadata": {}, "time_ms": "soon"}',
        "[" * 100_000,
    ],
    ids=lambda text: text[:50],
)
def test_event_that_cannot_be_read_is_kept_as_a_damaged_line(text: str, tmp_path: Path) -> None:
    log = log_of(tmp_path, event("seed", 1), f":::MLLOG {text}", event("seed", 2))
    assert log.damaged == (2,)
    assert log.marked == (1, 2, 3)
    assert [found.line for found in log.events] == [1, 3]


def test_bytes_that_are_no_utf_8_do_not_stop_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    path.write_bytes(b"caf\xe9 \xff\n" + event("seed", 1).encode() + b"\n")
    assert [(found.line, found.value) for found in read_log(path).events] == [(2, 1)]


def test_event_without_metadata_has_none(tmp_path: Path) -> None:
    line = ':::MLLOG {"key": "seed", "value": 1, "metadata": null, "time_ms": 1}'
    assert log_of(tmp_path, line).events[0].metadata == {}


def test_what_is_not_a_readable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"^{tmp_path}: not a file$"):
        read_log(tmp_path)
    with pytest.raises(RunError, match=f"^{tmp_path}/none: cannot be read: No such file or directory$"):
        read_log(tmp_path / "none")


def test_time_runs_from_the_first_start_to_the_first_stop(tmp_path: Path) -> None:
    starts, stops = (
        [event("run_start", time_ms=ms) for ms in (60_000, 90_000)],
        [event("run_stop", time_ms=ms) for ms in (210_000, 300_000)],
    )
    assert log_of(tmp_path, *starts, *stops).minutes == 2.5
    assert log_of(tmp_path, *starts).minutes is None
    assert log_of(tmp_path, *stops).minutes is None


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([], None),
        (["success"], "success"),
        (["success", "aborted"], "aborted"),
        (["aborted", "success"], "aborted"),
        (["success", "success"], "success"),
    ],
)
def test_one_node_that_aborts_makes_the_run_an_aborted_one(
    statuses: list[str], expected: str | None, tmp_path: Path
) -> None:
    log = log_of(tmp_path, *(event("run_stop", status=status) for status in statuses))
    assert log.status == expected


def test_best_evaluation_is_the_one_with_the_highest_auc_that_is_one(tmp_path: Path) -> None:
    values = [0.7, 0.8, math.nan, 1.5, "0.9", True, 0.75, -0.1]
    log = log_of(tmp_path, *(event("eval_accuracy", value) for value in values))
    assert log.best == log.events[1]
    assert log_of(tmp_path, event("eval_accuracy", 2), event("seed", 0.5)).best is None


def test_values_that_are_not_valid_are_listed_with_their_lines(tmp_path: Path) -> None:
    log = log_of(
        tmp_path,
        event("run_start", time_ms=60_000),
        event("eval_accuracy", 0.5, epoch_num=1.5),
        event("eval_accuracy", 1.01, epoch_num="two"),
        event("eval_accuracy", 1),
        event("run_stop", time_ms=60_000),
    )
    assert log.invalid_values == [
        (3, "eval_accuracy is 1.01, not a number from 0 to 1"),
        (3, "epoch_num is 'two', not a number"),
        (5, "the run took 0 minutes from run_start to run_stop"),
    ]


@pytest.mark.parametrize("stop_ms", [61, 10**9])
def test_run_that_takes_some_time_is_valid(stop_ms: int, tmp_path: Path) -> None:
    log = log_of(tmp_path, event("run_start", time_ms=60), event("run_stop", time_ms=stop_ms))
    assert log.invalid_values == []


@pytest.mark.parametrize(
    ("value", "number", "share"),
    [
        (0, True, True),
        (1, True, True),
        (0.5, True, True),
        (-0.1, True, False),
        (1.1, True, False),
        (True, False, False),
        ("1", False, False),
        (None, False, False),
        (math.nan, False, False),
        (math.inf, False, False),
        (10**400, False, False),
    ],
)
def test_numbers_and_shares_are_told_from_other_values(value: object, number: bool, share: bool) -> None:
    assert is_number(value) is number
    assert is_fraction(value) is share


def test_values_in_messages_are_short() -> None:
    assert as_text("a" * 58) == repr("a" * 58)
    assert as_text("a" * 59) == "'" + "a" * 56 + "..."
    assert as_text(10**5000) == as_text(-(10**5000)) == "a number out of range"
    assert as_text(10**40) == str(10**40)


def test_evaluation_is_described_by_its_auc_and_its_epoch(tmp_path: Path) -> None:
    log = log_of(tmp_path, event("eval_accuracy", 0.8025, epoch_num=0.75049), event("eval_accuracy", 0.5))
    assert [describe_evaluation(found) for found in log.events] == [
        "AUC 0.80250 at epoch 0.750",
        "AUC 0.50000 at epoch unknown",
    ]
