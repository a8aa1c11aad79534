"""Times in a log that contradict each other fail; the official checkers compare the order of the lines only."""

from __future__ import annotations

from pathlib import Path

import pytest
from foreign_logs import Change, Entry, foreign_results, unchanged
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


def test_times_in_seconds_are_named(tmp_path: Path) -> None:
    file = foreign_results(tmp_path / "dlrm", "2.0.0", unchanged) / "result_0.txt"
    file.write_text(file.read_text().replace('"time_ms": 1650000', '"time_ms": 1650000.'))
    run = check(file, "--edition=2.0.0", cwd=tmp_path)
    assert run.status == 0
    (line,) = [line for line in run.stdout.splitlines() if "since 1970" in line]
    words = "run_start has time_ms 1650000.06, not the time of a run in ms since 1970"
    assert line == f"{file}:21: target reached, not counted: {words}"
