"""Wrong calls of tools/make_submission.py: status 2 and one line, before any run."""

from __future__ import annotations

from pathlib import Path

import pytest
from package_maker import SYSTEM, make


def test_missing_fields_are_listed_together_before_anything_runs(tmp_path: Path) -> None:
    run = make("--submitter=Ours", "--system=box", "--set", "host_networking=none", cwd=tmp_path)
    assert run.status == 2
    assert len(run.stderr.splitlines()) == 1
    assert "host_memory_configuration" in run.stderr
    assert "cooling" in run.stderr
    assert "host_networking" not in run.stderr.replace("host_networking_topology", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--submitter=a/b", "--system=x"), "--submitter"),
        (("--submitter=.a", "--system=x"), "--submitter"),
        (("--submitter=a", "--system=x", "--set=colour=red"), "--set=colour=red"),
        (("--submitter=a", "--system=x", "--set=cooling"), "--set=cooling"),
        (("--submitter=a", "--system=x", "--system-file=no.json"), "--system-file=no.json"),
        (("--submitter=a", "--system=x", "--edition=9"), "--edition"),
        (("--submitter=a",), "--system"),
        (("--submitter=runs", "--system=x"), "--submitter=runs: this name is reserved"),
        (("--submitter=a", "--system=x", "--set=division=open"), "use --division instead"),
        (("--submitter=a", "--system=x", "--", "--numpy-rand-seed=1"), "--numpy-rand-seed=1 after --"),
        (("--submitter=a", "--system=x", "--", "--mlperf-edition", "1.0.0"), "use --edition instead"),
        (("--submitter=a", "--system=x", "--", "--load-model", "m.pt"), "--load-model=m.pt after --: a run that"),
        (
            ("--submitter=a", "--system=x", "--", "--inference-only"),
            "--inference-only after --: a timed run trains",
        ),
        (
            ("--submitter=a", "--system=x", "--", "--num-batches=9"),
            "--num-batches=9 after --: the runs of a result",
        ),
        (("--submitter=a", "--system=x", "--", "--load=m.pt"), "--load=m.pt"),
        (("--submitter=a", "--system=x", "--seed=1", "--logs", "a"), "--seed: not allowed with --logs"),
        (
            ("--submitter=a", "--system=x", "--reference", "--rcp-bypass=b"),
            "--rcp-bypass: not allowed with --reference",
        ),
        (("--submitter=a", "--system=x", "--seed-bypass=b"), "--seed-bypass: only allowed with --logs"),
        (("--submitter=a", "--system=x", "--rcp-bypass="), "--rcp-bypass: must state a reason"),
        (("--submitter=a", "--system=x", "--seed=4294967292", *SYSTEM), "--seed=4294967292: the last of 5 seeds"),
        (
            ("--submitter=a", "--system=x", *SYSTEM, "--set=number_of_nodes=two"),
            "is 'two', must be a whole number",
        ),
    ],
    ids=str,
)
def test_usage_error_of_make_submission_is_reported_in_one_line(
    flags: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    run = make(*flags, cwd=tmp_path)
    assert run.status == 2
    assert words in run.stderr
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize("variable", ["EDITION", "SEED"])
def test_environment_variable_that_contradicts_a_flag_is_rejected(variable: str, tmp_path: Path) -> None:
    run = make("--submitter=a", "--system=x", *SYSTEM, cwd=tmp_path, **{variable: "1.0.0"})
    assert run.status == 2
    assert f"{variable}=1.0.0 in the environment: use --{variable.lower()} instead" in run.stderr


def test_wrong_variable_of_the_page_cache_is_rejected_before_the_data_is_verified(tmp_path: Path) -> None:
    run = make("--submitter=a", "--system=x", *SYSTEM, cwd=tmp_path, DROP_CACHES="no")
    assert run.status == 2
    assert run.stderr == "make_submission.py: error: DROP_CACHES=no in the environment: must be true or false\n"
    assert run.stdout == ""


def test_missing_configuration_is_rejected(tmp_path: Path) -> None:
    run = make("--submitter=a", "--system=x", *SYSTEM, cwd=tmp_path, CONFIG="nosuch")
    assert run.status == 2
    assert "CONFIG=nosuch: neither a file nor config_nosuch.sh" in run.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            "TRAINER_FLAGS=(--use-gpu --load-model=m.pt)",
            "--load-model=m.pt in TRAINER_FLAGS of CONFIG=mine.sh: a run",
        ),
        ('TRAINER_FLAGS=("--load-model" "my model.pt")', "--load-model=my model.pt in TRAINER_FLAGS"),
        ("TRAINER_FLAGS=(--num-batches=10)", "--num-batches=10 in TRAINER_FLAGS"),
        ("echo some text\nTRAINER_FLAGS=(--inference-only)", "--inference-only in TRAINER_FLAGS"),
        ("TRAINER_FLAGS=(", "CONFIG=mine.sh: cannot be read by bash"),
        ("# with line ends of Windows\r\nTRAINER_FLAGS=(--num-batches=3)\r\n", "--num-batches=3 in TRAINER_FLAGS"),
    ],
)
def test_configuration_that_makes_no_result_is_refused(lines: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "mine.sh").write_text(f"BATCH_SIZE=128\n{lines}\n")
    run = make("--submitter=a", "--system=x", *SYSTEM, cwd=tmp_path, CONFIG="mine.sh")
    assert run.status == 2
    assert words in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.sh"]


def test_output_that_is_a_file_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    run = make("--submitter=a", "--system=x", "--output=out", *SYSTEM, cwd=tmp_path)
    assert run.status == 2
    assert run.stderr.count("\n") == 1
    assert "out" in run.stderr


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"seeds": 3}'])
def test_damaged_set_json_is_reported_in_one_line(content: str, tmp_path: Path) -> None:
    plan = tmp_path / "submission" / "runs" / "x" / "dlrm" / "set.json"
    plan.parent.mkdir(parents=True)
    plan.write_text(content)
    run = make("--submitter=a", "--system=x", *SYSTEM, cwd=tmp_path)
    assert run.status == 2
    assert run.stderr.count("\n") == 1
    assert "submission/runs/x/dlrm/set.json: damaged" in run.stderr
