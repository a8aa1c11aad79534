"""Results that their round accepted and today's checkers do not, and the bypasses of these checks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from foreign_logs import (
    Change,
    aborted,
    as_package,
    both,
    changed,
    foreign_results,
    hasty,
    repeated,
    unchanged,
    without,
)
from program import check_submission as check

EVERYWHERE = (0, 1, 2, 3, 4)
NO_SEEDS = without("seed", EVERYWHERE)
NODES = repeated("weights_initialization", 8)
VALID = "valid in its round"


def notes(output: str) -> list[str]:
    """Return the notes about the round."""
    return [line.removeprefix("note: ") for line in output.splitlines() if " its round " in line]


@pytest.mark.parametrize("edition", ["1.0.0", "1.1.0", "2.0.0", "2.1.0"])
def test_result_without_seeds_was_valid_and_is_accepted_with_a_reason(edition: str, tmp_path: Path) -> None:
    foreign_results(tmp_path / "dlrm", edition, NO_SEEDS)
    run = check("dlrm", f"--edition={edition}", cwd=tmp_path)
    assert run.status == 1
    (note,) = notes(run.stdout)
    assert note.startswith(f"seeds: {VALID} {edition}: ")
    assert "--seed-bypass=REASON" in note
    run = check("dlrm", f"--edition={edition}", "--seed-bypass=published in 2022", cwd=tmp_path)
    assert run.status == 0, run.stdout
    (row,) = [line for line in run.stdout.splitlines() if line.startswith("seeds")]
    assert row.split()[3:] == ["BYPASSED", "--seed-bypass:", "published", "in", "2022"]
    assert run.stdout.count("seeds, not counted: logs no seed") == 5


@pytest.mark.parametrize(
    "change", [without("seed", (2,)), changed("seed", 7, (0, 4))], ids=["one missing", "twice"]
)
def test_seeds_that_the_round_refused_get_no_note(change: Change, tmp_path: Path) -> None:
    foreign_results(tmp_path / "dlrm", "2.0.0", change)
    run = check("dlrm", "--edition=2.0.0", cwd=tmp_path)
    assert run.status == 1
    assert not notes(run.stdout)


@pytest.mark.parametrize(
    ("edition", "change", "expected"),
    [
        ("1.1.0", NODES, [f"compliance: {VALID} 1.1.0: its checker only warned"]),
        ("1.1.0", without("weights_initialization", EVERYWHERE), [f"compliance: {VALID} 1.1.0: its checker only"]),
        ("2.0.0", NODES, []),
        ("2.0.0", aborted, [f"compliance, target reached: {VALID} 2.0.0: the rules accept one of 5 runs"]),
        ("2.0.0", without("eval_samples", (1,)), [f"compliance, target reached: {VALID} 2.0.0: "]),
        ("2.0.0", without("eval_samples", (1, 2)), []),
        ("1.1.0", both(NODES, aborted), [f"compliance: {VALID} ", f"compliance, target reached: {VALID} 1.1.0: "]),
        (
            "2.1.0",
            changed("global_batch_size", 60000, (2,)),
            [f"convergence: {VALID} 2.1.0: until January 2023, the runs of a result could differ in batch size"],
        ),
        ("2.0.0", hasty, ["convergence: in its round 2.0.0 the review decided"]),
    ],
    ids=[
        *("nodes in 1.1", "no weights in 1.1", "nodes in 2.0", "one aborted", "one key", "two keys"),
        *("nodes and aborted", "batch sizes", "hasty"),
    ],
)
def test_failure_that_the_round_accepted_is_explained(
    edition: str, change: Change, expected: list[str], tmp_path: Path
) -> None:
    foreign_results(tmp_path / "dlrm", edition, change)
    run = check("dlrm", f"--edition={edition}", cwd=tmp_path)
    assert run.status == 1
    found = notes(run.stdout)
    assert len(found) == len(expected), run.stdout
    assert all(note.startswith(start) for note, start in zip(found, expected, strict=True)), found


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x1f\x8b\x08",
        b"{}",
        b':::MLLOG {"key": "submission_benchmark", "value": "bert", "metadata": {}, "time_ms": 1650000000000}\n',
    ],
    ids=["empty", "gzip", "JSON", "other benchmark"],
)
def test_file_that_is_no_log_of_the_benchmark_was_valid_in_no_round(content: bytes, tmp_path: Path) -> None:
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", unchanged)
    (folder / "result_2.txt").write_bytes(content)
    run = check("dlrm", "--edition=2.0.0", cwd=tmp_path)
    assert run.status == 1
    assert not notes(run.stdout)


def test_missing_batch_size_is_not_explained_as_another_one(tmp_path: Path) -> None:
    foreign_results(tmp_path / "dlrm", "2.1.0", without("global_batch_size", (2,)))
    run = check("dlrm", "--edition=2.1.0", cwd=tmp_path)
    assert "no global_batch_size" in run.stdout
    assert not [note for note in notes(run.stdout) if note.startswith("convergence")]


def test_each_edition_in_doubt_has_the_note_about_its_round(tmp_path: Path) -> None:
    foreign_results(tmp_path / "dlrm", "2.0.0", NO_SEEDS)
    run = check("dlrm", cwd=tmp_path)
    assert run.stdout.count("logs no seed") == 5
    ends = [
        line.partition(": a result")[0]
        for line in run.stdout.splitlines()
        if f"{VALID}" in line or "FAILED" in line
    ]
    assert ends == [
        f"note: seeds: {VALID} 2.0.0",
        "dlrm: edition 2.0.0: FAILED",
        f"note: seeds: {VALID} 2.1.0",
        "dlrm: edition 2.1.0: FAILED",
    ]


def drop_field(package: Path) -> None:
    file = package / "systems" / "box.json"
    content = json.loads(file.read_text())
    del content["cooling"]
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(("edition", "status", "count"), [("0.7.0", 0, 0), ("1.0.0", 1, 0), ("2.0.0", 1, 1)])
def test_missing_field_of_a_description_counts_as_in_its_round(
    edition: str, status: int, count: int, tmp_path: Path
) -> None:
    package = as_package(foreign_results(tmp_path / "Else" / "results" / "box" / "dlrm", edition, unchanged))
    drop_field(package)
    run = check(package, f"--edition={edition}", cwd=tmp_path)
    assert run.status == status, run.stdout
    assert len(notes(run.stdout)) == count
    counted = "" if status else ", not counted"
    assert f"systems/box.json:1: system description{counted}: Missing field cooling" in run.stdout


@pytest.mark.parametrize("spelling", ["rcp_bypass\nrcp_bert_train_samples\n", "--rcp-bypass", "rcp-bypass\r\n"])
def test_options_of_the_organization_are_applied_and_named(spelling: str, tmp_path: Path) -> None:
    package = as_package(foreign_results(tmp_path / "Else" / "results" / "box" / "dlrm", "2.0.0", hasty))
    file = package / "package_checker_params"
    file.write_bytes(spelling.encode())
    run = check(package, "--edition=2.0.0", cwd=tmp_path)
    assert run.status == 0, run.stdout
    assert f"BYPASSED  rcp-bypass in {file}: no reason is given" in run.stdout
    assert f"note: {file}: the organization sets rcp-bypass\n" in run.stdout
    used = "rcp-bert-train-samples, not used here" in run.stdout
    assert used == ("bert" in spelling)


def test_seed_bypass_of_the_organization_is_applied_and_its_reason_shown(tmp_path: Path) -> None:
    package = as_package(foreign_results(tmp_path / "Else" / "results" / "box" / "dlrm", "2.0.0", NO_SEEDS))
    (package / "package_checker_params").write_text("seed-checker-bypass\n")
    (package / "package_checker_params_reason.txt").write_text("older than the rule\n")
    run = check(package, "--edition=2.0.0", cwd=tmp_path)
    assert run.status == 0, run.stdout
    assert "package_checker_params: older than the rule" in run.stdout


@pytest.mark.parametrize(("ending", "status"), [("", 0), ("\n", 1)])
def test_option_for_a_system_has_an_effect_where_the_official_checker_reads_it(
    ending: str, status: int, tmp_path: Path
) -> None:
    package = as_package(foreign_results(tmp_path / "Else" / "results" / "box" / "dlrm", "2.0.0", NO_SEEDS))
    file = package / "results" / "box" / "package_checker_params"
    file.write_text(f"seed-checker-bypass{ending}")
    run = check(package, "--edition=2.0.0", cwd=tmp_path)
    assert run.status == status
    assert (f"{file}: seed-checker-bypass has no effect" in run.stdout) == bool(status)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("dlrm", "--seed-bypass= "), "--seed-bypass: must state a reason"),
        (("dlrm/result_0.txt", "--seed-bypass=old"), "--seed-bypass: dlrm/result_0.txt is one log"),
        (("dlrm/result_0.txt", "--rcp-bypass"), "--rcp-bypass: dlrm/result_0.txt is one log"),
    ],
)
def test_bypass_that_can_do_nothing_is_refused(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    foreign_results(tmp_path / "dlrm", "2.0.0", unchanged)
    run = check(*arguments, cwd=tmp_path)
    assert run.status == 2
    assert words in run.stderr
    assert len(run.stderr.splitlines()) == 1
