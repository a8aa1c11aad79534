"""Checking results and packages of any submitter, compared with the official checkers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from foreign_logs import (
    Change,
    aborted,
    as_package,
    changed,
    foreign_results,
    hasty,
    unchanged,
    without,
)
from mlperf_logging.compliance_checker import mlp_compliance
from mlperf_logging.rcp_checker import rcp_checker
from program import check_submission as check
from program import official_package_check

from mlperf.benchmarks import EDITIONS, Edition

NEWER = ("1.0.0", "1.1.0", "2.0.0")


@pytest.mark.parametrize("edition", EDITIONS.values(), ids=lambda edition: edition.name)
def test_required_keys_and_target_match_the_official_rules(edition: Edition) -> None:
    rules = Path(mlp_compliance.__file__).parent
    names = ("common", "closed_common", f"closed_{edition.benchmark.name}")
    required, optional, targets = set[str](), set[str](), []
    for name in names:
        for record in yaml.load(
            (rules / f"training_{edition.name}" / f"{name}.yaml").read_text(), Loader=yaml.BaseLoader
        ):
            key = record.get("KEY", {})
            if "REQ" in key:
                (optional if key["REQ"] == "OPTIONAL" else required).add(key["NAME"])
            targets.append(key.get("ATLEAST_ONE_CHECK", ""))
    assert edition.required_keys - {"seed"} == required
    assert ("seed" in edition.required_keys) == edition.checks_package
    assert edition.new_optional_keys == optional
    assert any(f"v['value'] >= {edition.auc_target}" in target for target in targets)


@pytest.mark.parametrize("edition", NEWER)
def test_compliant_results_of_others_pass_and_are_not_modified(edition: str, tmp_path: Path) -> None:
    folder = foreign_results(tmp_path / "results" / "box" / "dlrm", edition, unchanged)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    run = check(folder, f"--edition={edition}", cwd=tmp_path)
    assert run.status == 0, run.stdout + run.stderr
    assert "2.200 minutes, the mean without the fastest and the slowest run" in run.stdout
    assert "5 was supplied from outside" in run.stdout
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    assert "dlrm" not in rcp_checker.submission_runs["training"]


@pytest.mark.parametrize(("logs", "said"), [(1, "more than 1 log"), (2, "more than 2 logs")])
def test_too_few_logs_are_not_compared_with_the_reference(logs: int, said: str, tmp_path: Path) -> None:
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", unchanged)
    for number in range(logs, 5):
        (folder / f"result_{number}.txt").unlink()
    run = check(folder, "--edition=2.0.0", cwd=tmp_path)
    assert run.status == 1
    assert (
        f"{folder}: convergence: not compared with the reference: the mean needs {said}" in run.stdout.splitlines()
    )
    assert not any(word in run.stdout for word in ("faster than the reference", "nan", "1 logs"))
    assert "found " + str(logs) in run.stdout


@pytest.mark.parametrize(
    ("change", "row", "location", "words"),
    [
        (without("eval_samples", (2,)), "compliance", "result_2.txt:", "'eval_samples' but found 0"),
        (without("global_batch_size", (0,)), "compliance", "result_0.txt:", "'global_batch_size' but found 0"),
        (without("weights_initialization", (1,)), "compliance", "result_1.txt:", "initialized_tensors"),
        (without("run_stop", (1,)), "compliance", "result_1.txt:", "'run_stop' but found 0"),
        (
            changed("eval_accuracy", 0.8, (1,)),
            "target reached",
            "result_1.txt:",
            "target not reached: the best AUC",
        ),
        (aborted, "target reached", "result_3.txt:", "run_stop has status aborted"),
        (changed("seed", 7, (0, 4)), "seeds", "result_4.txt:17", "logs seed 7 on /workspace/train.py:4"),
        (without("seed", (2,)), "seeds", "result_2.txt:", "logs no seed"),
        (hasty, "convergence", "result_0.txt:", "converged faster than the reference: 1.6000 epochs"),
        (changed("global_batch_size", 10**6, (0, 1, 2, 3, 4)), "convergence", "result_0.txt:9", "Missing RCP"),
        (changed("submission_benchmark", "bert", (0,)), "target reached", "result_0.txt:3", "not of dlrm"),
        (changed("submission_org", "", (0,)), "compliance", "result_0.txt:4", "'submission_org' failed"),
    ],
    ids=[
        *("key", "batch size", "weights", "stop", "target", "aborted", "seed twice", "no seed", "hasty"),
        *("no reference", "benchmark", "empty"),
    ],
)
def test_single_fault_is_reported_with_file_and_line(
    change: Change, row: str, location: str, words: str, tmp_path: Path
) -> None:
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", change)
    run = check(folder, "--edition=2.0.0", cwd=tmp_path)
    assert run.status == 1
    matching = [
        line for line in run.stdout.splitlines() if line.startswith(f"{folder}/{location}") and words in line
    ]
    assert matching, run.stdout
    assert matching[0].split(": ")[1] == row
    number = int(matching[0].removeprefix(f"{folder}/").split(":")[1])
    assert 1 <= number <= 90
    assert f"{folder}: edition 2.0.0: FAILED" in run.stdout


@pytest.mark.parametrize("edition", NEWER)
@pytest.mark.parametrize(
    "change", [unchanged, aborted, without("train_samples", (1,))], ids=["good", "abort", "key"]
)
def test_package_of_others_is_checked_like_its_results(change: Change, edition: str, tmp_path: Path) -> None:
    results = foreign_results(tmp_path / "Else" / "results" / "box" / "dlrm", edition, change)
    package = as_package(results)
    run = check(package, f"--edition={edition}", cwd=tmp_path)
    assert run.status == (0 if change is unchanged else 1), run.stdout
    # One run that does not comply is let pass by the package check, which is why it is not enough.
    assert "FOUND NO ERRORS" in official_package_check(package, edition, tmp_path)


def damage_json(package: Path) -> None:
    (package / "systems" / "box.json").write_text('{\n "submitter": "Else",\n}')


def number_for_string(package: Path) -> None:
    file = package / "systems" / "box.json"
    file.write_text(
        file.read_text().replace('"host_processor_core_count": "64"', '"host_processor_core_count": 64')
    )


def drop_field(package: Path) -> None:
    file = package / "systems" / "box.json"
    content = json.loads(file.read_text())
    del content["cooling"], content["framework"]
    file.write_text(json.dumps(content))


def drop_description(package: Path) -> None:
    (package / "systems" / "box.json").unlink()


def drop_systems(package: Path) -> None:
    shutil.rmtree(package / "systems")


def drop_log(package: Path) -> None:
    (package / "results" / "box" / "dlrm" / "result_4.txt").unlink()


def drop_logs(package: Path) -> None:
    for file in (package / "results" / "box" / "dlrm").iterdir():
        file.unlink()


def empty_log(package: Path) -> None:
    (package / "results" / "box" / "dlrm" / "result_1.txt").write_text("")


def garbage_log(package: Path) -> None:
    (package / "results" / "box" / "dlrm" / "result_1.txt").write_bytes(bytes(range(256)) * 100)


def cut_log(package: Path) -> None:
    file = package / "results" / "box" / "dlrm" / "result_1.txt"
    file.write_bytes(file.read_bytes()[:5000])


def odd_values(package: Path) -> None:
    file = package / "results" / "box" / "dlrm" / "result_1.txt"
    file.write_text(
        file.read_text().replace('"epoch_num"', '"epoch"').replace('"value": 55296', '"value": "many"')
    )


@pytest.mark.parametrize(
    ("damage", "location"),
    [
        (damage_json, "systems/box.json:3: "),
        (number_for_string, "systems/box.json:"),
        (drop_field, "systems/box.json:1: system description: Missing field cooling"),
        (drop_description, "systems/box.json: system description: no such file"),
        (drop_systems, "systems/box.json: system description: no such file"),
        (drop_log, "results/box/dlrm: package: "),
        (drop_logs, "results/box/dlrm: package: "),
        (empty_log, "results/box/dlrm/result_1.txt:1: "),
        (garbage_log, "results/box/dlrm/result_1.txt:"),
        (cut_log, "results/box/dlrm/result_1.txt:"),
        (odd_values, "results/box/dlrm/result_1.txt:"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("edition", ["0.7.0", "2.1.0"])
def test_invalid_package_is_reported_without_a_traceback(
    damage: Callable[[Path], None], location: str, edition: str, tmp_path: Path
) -> None:
    package = as_package(foreign_results(tmp_path / "Else" / "results" / "box" / "dlrm", "2.0.0", unchanged))
    damage(package)
    run = check(package, f"--edition={edition}", cwd=tmp_path)
    assert run.status == 1
    assert any(line.startswith(f"{package}/{location}") for line in run.stdout.splitlines()), run.stdout


LAST = 75  # the line of the last evaluation in a foreign log: converged


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ('"key": "eval_accuracy", "value": 0.8026', '"key": "eval_accuracy", "value": NaN', LAST, "is nan, not"),
        ('"key": "eval_accuracy", "value": 0.7686', '"key": "eval_accuracy", "value": NaN', 24, "is nan, not"),
        ('"key": "eval_accuracy", "value": 0.7686', '"key": "eval_accuracy", "value": "x"', 24, "is 'x', not"),
        ('"key": "eval_accuracy", "value": 0.7686', '"key": "eval_accuracy", "value": 5', 24, "is 5, not"),
        ('"epoch_num": 1.8999', '"epoch_num": Infinity', LAST, "epoch_num is inf, not a number"),
        ('"epoch_num": 1.8999', '"epoch_num": [1]', LAST, "epoch_num is [1], not a number"),
        ('"time_ms": 1650000060000,', '"time_ms": 1750000060000,', 77, "minutes from run_start to run_stop"),
        ('"time_ms": 1650000060000,', f'"time_ms": 1{"0" * 400},', 20, "no MLPerf event"),
        ('"status": "success"', '"status": "\\ud800"', 77, "run_stop has status \\ud800"),
    ],
    ids=["all NaN", "NaN", "string", "five", "infinite epoch", "list", "backwards", "huge time", "surrogate"],
)
def test_invalid_value_in_a_log_is_reported_at_its_line(
    old: str, new: str, line: int, words: str, tmp_path: Path
) -> None:
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", unchanged)
    file = folder / "result_1.txt"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    for path in (folder, file):
        run = check(path, "--edition=2.0.0", cwd=tmp_path)
        assert run.status == 1
        matching = [text for text in run.stdout.splitlines() if text.startswith(f"{file}:") and words in text]
        assert matching, run.stdout
        assert int(matching[0].split(":")[1]) == line


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("number_of_nodes", '"one"', "number_of_nodes is 'one', not a whole number"),
        ("hw_notes", "[1]", "hw_notes is [1], not a string"),
        ("division", '"shut"', "division is 'shut', not closed or open"),
        ("system_name", "null", "system_name is None, not a string"),
        ("accelerators_per_node", "NaN", "accelerators_per_node is nan, not"),
    ],
)
def test_invalid_field_of_a_description_is_reported_at_its_line(
    field: str, value: str, words: str, tmp_path: Path
) -> None:
    package = as_package(foreign_results(tmp_path / "Else" / "results" / "box" / "dlrm", "2.0.0", unchanged))
    file = package / "systems" / "box.json"
    content = {**json.loads(file.read_text()), field: "@"}
    file.write_text(json.dumps(content, indent=1).replace('"@"', value))
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if f'"{field}"' in text)
    run = check(package, "--edition=2.1.0", cwd=tmp_path)
    assert run.status == 1
    assert f"{file}:{line}: system description: {words}" in run.stdout
    stops = [text for text in run.stdout.splitlines() if "stops with" in text]
    assert all(text.startswith(f"{file}:{line}: ") for text in stops), run.stdout


@pytest.mark.parametrize(
    "content", [b"", b"[1, 2]", b"3", b'{"a": "\xff"}', b"[" * 100_000], ids=lambda c: str(c[:9])
)
def test_description_that_is_not_a_json_object_gives_one_finding(content: bytes, tmp_path: Path) -> None:
    package = as_package(foreign_results(tmp_path / "Else" / "results" / "box" / "dlrm", "2.0.0", unchanged))
    (package / "systems" / "box.json").write_bytes(content)
    run = check(package, "--edition=2.1.0", cwd=tmp_path)
    assert run.status == 1
    assert f"{package}/systems/box.json:1: system description: not " in run.stdout


def test_folder_or_pipe_instead_of_a_log_is_reported_and_other_logs_are_checked(tmp_path: Path) -> None:
    for system in ("a", "b", "c"):
        foreign_results(tmp_path / "Else" / "results" / system / "dlrm", "2.0.0", unchanged)
    results = tmp_path / "Else" / "results"
    (results / "a" / "dlrm" / "result_1.txt").unlink()
    (results / "a" / "dlrm" / "result_1.txt").mkdir()
    (results / "b" / "dlrm" / "result_1.txt").unlink()
    os.mkfifo(results / "b" / "dlrm" / "result_1.txt")
    run = check(results, "--edition=2.0.0", cwd=tmp_path)
    assert run.status == 1
    assert run.stderr.splitlines() == [
        f"check_submission.py: error: {results}/{system}/dlrm/result_1.txt: not a file" for system in "ab"
    ]
    assert f"{results}/c/dlrm: edition 2.0.0: SUCCESS" in run.stdout


def test_results_folder_within_a_package_is_checked_with_its_description(tmp_path: Path) -> None:
    folder = foreign_results(tmp_path / "Else" / "results" / "box" / "dlrm", "2.0.0", unchanged)
    package = as_package(folder)
    assert check(folder, "--edition=2.0.0", cwd=tmp_path).status == 0
    damage_json(package)
    for location in (folder, folder.parent, folder.parent.parent):
        run = check(".", "--edition=2.0.0", cwd=location)
        assert run.status == 1
        assert "systems/box.json:3: system description: not JSON" in run.stdout


def test_bypass_does_not_accept_runs_that_missed_the_target(tmp_path: Path) -> None:
    aborted_twice = changed("run_stop", None, ())
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", aborted_twice)
    for number in (1, 2):
        file = folder / f"result_{number}.txt"
        file.write_text(file.read_text().replace('"status": "success"', '"status": "aborted"'))
    run = check(folder, "--edition=2.0.0", "--rcp-bypass", cwd=tmp_path)
    assert run.status == 1
    assert "BYPASSED" not in run.stdout
    assert "convergence: Insufficient convergence" in run.stdout


def test_missing_code_gives_a_note(tmp_path: Path) -> None:
    package = as_package(foreign_results(tmp_path / "Else" / "results" / "box" / "dlrm", "2.0.0", unchanged))
    code = package / "benchmarks" / "dlrm" / "implementations" / "pytorch"
    code.mkdir(parents=True)
    note = f"note: {package}: without the code"
    assert note in check(package, "--edition=2.0.0", cwd=tmp_path).stdout
    (code / "train.py").write_text("")
    assert note not in check(package, "--edition=2.0.0", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("files", "places"),
    [
        (("dlrm/4-nodes-pytorch/train.py",), "benchmarks/dlrm/4-nodes-pytorch"),
        (("dlrm/train.py", "dlrm/README"), "benchmarks/dlrm/README, benchmarks/dlrm/train.py"),
        (("hugectr/a/b/c.cpp", "run.sh"), "benchmarks/hugectr, benchmarks/run.sh"),
    ],
)
def test_code_elsewhere_among_the_benchmarks_is_named(files: tuple[str, ...], places: str, tmp_path: Path) -> None:
    package = as_package(foreign_results(tmp_path / "Else" / "results" / "box" / "dlrm", "2.0.0", unchanged))
    for file in files:
        (package / "benchmarks" / file).parent.mkdir(parents=True, exist_ok=True)
        (package / "benchmarks" / file).touch()
    (package / "benchmarks" / "empty").mkdir()
    notes = check(package, "--edition=2.0.0", cwd=tmp_path).stdout
    assert f"note: {package}: no code in benchmarks/dlrm/implementations, but in {places}\n" in notes
    assert "without the code" not in notes


def test_code_in_a_linked_folder_is_code(tmp_path: Path) -> None:
    package = as_package(foreign_results(tmp_path / "Else" / "results" / "box" / "dlrm", "2.0.0", unchanged))
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "train.py").touch()
    (package / "benchmarks" / "dlrm" / "implementations").mkdir(parents=True)
    (package / "benchmarks" / "dlrm" / "implementations" / "pytorch").symlink_to(tmp_path / "shared")
    assert "implementations" not in check(package, "--edition=2.0.0", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("[]", "not one JSON object"),
        ('{"a": 1}', "a: not a JSON object"),
        ('{"a": {"Benchmark": "bert"}}', "a: Benchmark is 'bert', not dlrm"),
        ('{"a": {"Benchmark": "dlrm", "BS": NaN}}', "a: BS is nan"),
        ('{"a": {"Benchmark": "dlrm", "BS": 1, "Hyperparams": {}}}', "a: Epochs to converge is None"),
    ],
)
def test_invalid_convergence_points_are_reported_in_one_line(content: str, words: str, tmp_path: Path) -> None:
    folder = foreign_results(tmp_path / "dlrm", "2.0.0", unchanged)
    (tmp_path / "points.json").write_text(content)
    run = check(folder, "--rcps=points.json", cwd=tmp_path)
    assert run.status == 2
    assert f"--rcps=points.json: {words}" in run.stderr
    assert len(run.stderr.splitlines()) == 1
