"""Logs of runs that did not start from scratch are not results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from foreign_logs import Entry, foreign_entries, foreign_results, with_metadata, write_log
from program import check_submission as check

from mlperf.benchmarks.dlrm import DLRM
from mlperf.compliance.log_reader import read_log
from mlperf.compliance.warm_start import warm_start
from mlperf.submission.rcp import make_rcp
from mlperf.util.errors import RunError

TWENTIETHS = [1 + number / 20 for number in range(1, 19)]
STARTED: Entry = ("run_start", None, {}, 0)


def found(tmp_path: Path, *entries: Entry) -> str | None:
    write_log(tmp_path / "a.log", list(entries))
    start = warm_start(read_log(tmp_path / "a.log"))
    return None if start is None else start[1]


def evaluations(numbers: list[float]) -> list[Entry]:
    return [("eval_accuracy", 0.7, {"epoch_num": number}, 1000 * n) for n, number in enumerate(numbers)]


def block(number: Any) -> Entry:
    return ("block_start", None, {"first_epoch_num": number, "epoch_count": 1}, 0)


def epoch(number: Any) -> Entry:
    return ("epoch_start", None, {"epoch_num": number}, 0)


@pytest.mark.parametrize(
    ("starts", "numbers"),
    [
        ([epoch(1), block(1)], TWENTIETHS),
        ([epoch(0)], [number - 1 for number in TWENTIETHS]),
        ([block(1), block(2), block(3)], [1, 2, 3, 4, 5]),
        ([block(1.05), block(1.1)], TWENTIETHS),
        ([block(0.05), block(0.1)], [number - 1 for number in TWENTIETHS]),
        ([], TWENTIETHS),
        ([epoch(1)], []),
        ([], []),
        ([epoch(1)] * 3, [number for number in TWENTIETHS for _ in range(3)]),
        ([epoch(1)], [1.7, 2.0]),
        ([epoch(1), epoch(2)], [2.0, 3.0, 4.0]),
        ([epoch("one")], TWENTIETHS),
    ],
    ids=[
        *("epoch from 1", "epoch from 0", "whole numbers", "blocks by their ends", "blocks by their ends from 0"),
        *("no starts", "no evaluations", "nothing", "several nodes", "last evaluation off schedule"),
        *("one evaluation per epoch", "invalid"),
    ],
)
def test_run_from_the_beginning_is_accepted_however_it_counts(
    starts: list[Entry], numbers: list[float], tmp_path: Path
) -> None:
    assert found(tmp_path, STARTED, *starts, *evaluations(numbers)) is None


@pytest.mark.parametrize(
    ("starts", "numbers", "words"),
    [
        ([epoch(1.3)], [1.35, 1.4, 1.45], "the first epoch_start is at epoch 1.3"),
        ([epoch(2)], [2.05, 2.1, 2.15], "the first epoch_start is at epoch 2"),
        ([block(2), epoch(1)], TWENTIETHS, "the first block_start is at epoch 2"),
        ([block(1.5)], TWENTIETHS[10:], "the first block_start is at epoch 1.5"),
        ([block(1.1), block(1.15)], TWENTIETHS[1:], "the first block_start is at epoch 1.1"),
        ([block(7), block(8)], [7, 8, 9], "the first block_start is at epoch 7"),
        ([epoch(1.05)], [], "the first epoch_start is at epoch 1.05"),
        ([epoch(1)], TWENTIETHS[8:], "the first evaluation is at epoch 1.45, later ones follow every 0.05 epochs"),
        ([], [0.5, 0.55, 0.6, 0.65], "the first evaluation is at epoch 0.5, later ones follow every 0.05 epochs"),
    ],
)
def test_run_that_begins_later_is_found(
    starts: list[Entry], numbers: list[float], words: str, tmp_path: Path
) -> None:
    text = found(tmp_path, STARTED, *starts, *evaluations(numbers))
    assert text == f"the run did not start from scratch: {words}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            with_metadata("run_start", {"started_from": "weights"}, (2,)),
            ":21: target reached: the run did not start from scratch but from weights",
        ),
        (
            with_metadata("epoch_start", {"epoch_num": 1.6}, (2,)),
            ":22: target reached: the run did not start from scratch: the first epoch_start is at epoch 1.6",
        ),
    ],
    ids=["mark", "epoch"],
)
def test_warm_start_fails_in_a_log_and_in_a_result(change: Any, words: str, tmp_path: Path) -> None:
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", change)
    for path in (folder, folder / "result_2.txt"):
        run = check(path, "--edition=2.0.0", cwd=tmp_path)
        assert run.status == 1
        assert f"{folder}/result_2.txt{words}" in run.stdout
        assert "valid in its round" not in run.stdout
    assert check(folder / "result_1.txt", "--edition=2.0.0", cwd=tmp_path).status == 0


def test_warm_start_is_refused_as_a_reference_run(tmp_path: Path) -> None:
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", with_metadata("epoch_start", {"epoch_num": 1.6}, (2,)))
    logs = [read_log(file) for file in sorted(folder.iterdir())]
    with pytest.raises(RunError, match=r"result_2\.txt:22: .* the first epoch_start is at epoch 1\.6"):
        make_rcp(logs, DLRM, "Else", "box")


def test_mark_that_is_not_text_counts(tmp_path: Path) -> None:
    entries = foreign_entries(1, edition="2.0.0")
    marked = with_metadata("run_start", {"started_from": 300}, (0,))(0, entries)
    assert found(tmp_path, *marked) == "the run did not start from scratch but from 300"
