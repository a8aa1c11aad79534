"""Recognition of the edition of logs of DLRM-DCNv2, and what tells a run that did not start from scratch."""

from __future__ import annotations

from pathlib import Path

import pytest
from foreign_logs import (
    Change,
    Entry,
    both,
    changed,
    foreign_entries,
    unchanged,
    with_metadata,
    without,
    write_log,
)
from program import check_submission as check

from mlperf.benchmarks import DLRM_DCNV2, EDITIONS, editions_of
from mlperf.compliance.edition import recognize
from mlperf.compliance.log_reader import Log, read_log
from mlperf.compliance.warm_start import warm_start

NAMES = tuple(edition.name for edition in editions_of(DLRM_DCNV2))
NAMELESS = without("submission_benchmark", (0,))


def log_of(folder: Path, edition: str, change: Change = unchanged) -> Log:
    """Return a log of the round of an edition, as its submitters write it."""
    write_log(folder / "a.log", change(0, foreign_entries(1, edition=edition)), edition)
    return read_log(folder / "a.log")


def added(*entries: Entry) -> Change:
    return lambda number, others: [*others, *entries]


@pytest.mark.parametrize(
    ("made_in", "change", "expected"),
    [
        ("3.0.0", unchanged, NAMES),
        ("4.1.0", unchanged, NAMES[3:]),
        ("6.0.0", unchanged, ("6.0.0",)),
        ("3.0.0", without("submission_status", (0,)), NAMES[3:]),
        ("3.0.0", without("submission_org", (0,)), ("5.0.0",)),
        ("3.0.0", added(("tensor_parallelism", 1, {}, 0)), ("6.0.0",)),
        ("4.0.0", NAMELESS, NAMES[2:]),
        ("4.0.0", both(NAMELESS, changed("submission_division", "open", (0,))), NAMES[2:]),
    ],
    ids=[
        *("first", "middle", "last", "without status", "without organization", "optional key of 6.0"),
        *("without benchmark", "open, without benchmark"),
    ],
)
def test_candidates_follow_from_keys_dates_and_rules(
    made_in: str, change: Change, expected: tuple[str, ...], tmp_path: Path
) -> None:
    found = recognize([log_of(tmp_path, made_in, change)]).candidates
    assert tuple(edition.name for edition in found) == expected


def test_log_of_dlrm_without_its_benchmark_belongs_to_no_edition_of_the_other(tmp_path: Path) -> None:
    found = recognize([log_of(tmp_path, "2.0.0", NAMELESS)]).candidates
    assert [edition.name for edition in found] == ["2.0.0", "2.1.0"]


def test_all_editions_are_those_of_the_benchmark_of_the_log(tmp_path: Path) -> None:
    for edition in ("2.1.0", "6.0.0"):
        log_of(tmp_path, edition)
        run = check("a.log", "--edition=all", cwd=tmp_path)
        assert run.status == 0, run.stdout
        verdicts = [line.split()[2] for line in run.stdout.splitlines() if line.endswith(": SUCCESS")]
        expected = editions_of(EDITIONS[edition].benchmark)
        assert verdicts == [f"{each.name}:" for each in expected]


@pytest.mark.parametrize(
    ("made_in", "edition", "words"),
    [
        ("2.1.0", "3.0.0", "--edition=3.0.0: a.log is of dlrm; allowed are 0.7.0, 1.0.0"),
        ("4.0.0", "2.1.0", "--edition=2.1.0: a.log is of dlrm_dcnv2; allowed are 3.0.0"),
        ("4.0.0", "6.1.0", "'6.1.0' includes dlrmv4, which is not supported"),
    ],
)
def test_edition_of_another_benchmark_is_refused_in_one_line(
    made_in: str, edition: str, words: str, tmp_path: Path
) -> None:
    log_of(tmp_path, made_in)
    run = check("a.log", f"--edition={edition}", cwd=tmp_path)
    assert run.status == 2
    assert run.stdout == ""
    assert words in run.stderr
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (unchanged, None),
        (with_metadata("epoch_start", {"epoch_num": 0.3}, (0,)), "the first epoch_start is at epoch 0.3"),
        (with_metadata("run_start", {"started_from": "weights"}, (0,)), "not start from scratch but from weights"),
        (
            lambda number, entries: [
                entry for entry in entries if entry[0] != "eval_accuracy" or entry[2]["epoch_num"] > 0.4
            ],
            "the first evaluation is at epoch 0.44",
        ),
    ],
    ids=["from scratch", "first epoch", "mark", "first evaluation"],
)
def test_run_that_did_not_start_from_scratch_is_recognized(
    change: Change, expected: str | None, tmp_path: Path
) -> None:
    found = warm_start(log_of(tmp_path, "4.0.0", change))
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert expected in found[1]
