"""Creating submission packages of DLRM-DCNv2, alone and beside results of DLRM."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from foreign_logs import Entry, both, changed, foreign_entries, foreign_results, unchanged, without, write_log
from package_maker import make, write_system_file
from program import check_submission as check
from program import official_package_check

from mlperf.benchmarks import DLRM, DLRM_DCNV2, STATUSES, editions_of
from mlperf.compliance import official
from mlperf.submission.system_description import AVAILABILITY, empty_description


@pytest.fixture
def flags(tmp_path: Path) -> tuple[str, ...]:
    file = write_system_file(tmp_path / "other")
    return ("--submitter=Ours", "--system=box", f"--system-file={file}", "--output=out")


def converged_early(number: int, entries: list[Entry]) -> list[Entry]:
    """Return the events of a run that is faster than the reference points allow."""
    return foreign_entries(number, edition="6.0.0", minutes=2 + number / 10, last_epoch=0.6)


def the_logs(folder: Path, edition: str) -> list[Path]:
    return sorted(foreign_results(folder, edition, unchanged).iterdir())


def test_ten_logs_make_a_package_that_passes(flags: tuple[str, ...], tmp_path: Path) -> None:
    logs = the_logs(tmp_path / "logs", "6.0.0")
    run = make(*flags, "--benchmark=dlrm_dcnv2", "--status=cloud", "--logs", *logs, cwd=tmp_path)
    assert run.status == 0, run.stdout + run.stderr
    assert "edition 6.0.0" in run.stdout
    package = tmp_path / "out" / "Ours"
    names = [file.name for file in sorted(package.glob("results/box/dlrm_dcnv2/*"))]
    assert names == [f"result_{number}.txt" for number in range(10)]
    assert json.loads((package / "systems" / "box.json").read_text())["status"] == "Available cloud"
    steps = (package / "benchmarks" / "dlrm_dcnv2" / "implementations" / "pytorch" / "README.md").read_text()
    assert steps.startswith("# dlrm_dcnv2 on box, by Ours\n")
    assert "BENCHMARK=dlrm_dcnv2 EDITION=6.0.0 DATADIR=$DATA SEED=$SEED ./run_and_time.sh" in steps
    assert "The rules allow one of 10" in steps
    assert "FOUND NO ERRORS" in official_package_check(package, "6.0.0", tmp_path)


def test_both_benchmarks_in_a_package_keep_results_code_and_bypasses_apart(
    flags: tuple[str, ...], tmp_path: Path
) -> None:
    dcnv2 = sorted(foreign_results(tmp_path / "dcnv2", "6.0.0", converged_early).iterdir())
    bypass = "--rcp-bypass=a made-up reason"
    run = make(*flags, bypass, "--logs", *dcnv2, cwd=tmp_path, BENCHMARK="dlrm_dcnv2")
    assert run.status == 0, run.stdout + run.stderr
    run = make(*flags, "--edition=2.1.0", "--logs", *the_logs(tmp_path / "dlrm", "2.1.0"), cwd=tmp_path)
    assert run.status == 0, run.stdout + run.stderr
    assert run.stdout.count("SUCCESS") == 1
    package = tmp_path / "out" / "Ours"
    assert len(list(package.glob("results/box/dlrm_dcnv2/result_?.txt"))) == 10
    assert len(list(package.glob("results/box/dlrm/result_?.txt"))) == 5
    option = package / "results" / "box" / "dlrm_dcnv2" / "package_checker_params"
    assert list(package.rglob("package_checker_params")) == [option]
    assert len(list(package.glob("benchmarks/*/implementations/pytorch/run_and_time.sh"))) == 2
    run = check(package, cwd=tmp_path)
    assert run.status == 0, run.stdout
    assert run.stdout.count("BYPASSED") == 1
    assert "FOUND NO ERRORS" in official_package_check(package, "6.0.0", tmp_path)


def test_both_bypasses_of_one_benchmark_are_found_by_the_official_checker(
    flags: tuple[str, ...], tmp_path: Path
) -> None:
    change = both(converged_early, without("seed", tuple(range(10))))
    logs = sorted(foreign_results(tmp_path / "logs", "6.0.0", change).iterdir())
    bypasses = ("--rcp-bypass=fast", "--seed-bypass=an old run")
    run = make(*flags, *bypasses, "--benchmark=dlrm_dcnv2", "--logs", *logs, cwd=tmp_path)
    assert run.status == 0, run.stdout
    assert "FOUND NO ERRORS" in official_package_check(tmp_path / "out" / "Ours", "6.0.0", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "variable", "words"),
    [
        (
            ("--benchmark=dlrm_dcnv2", "--edition=2.1.0"),
            "",
            "--edition=2.1.0: does not include dlrm_dcnv2; allowed are 3.0.0, 3.1.0, 4.0.0, ",
        ),
        (
            ("--benchmark=dlrm_dcnv2",),
            "dlrm",
            "BENCHMARK=dlrm in the environment: contradicts --benchmark=dlrm_dcnv2",
        ),
        (
            ("--edition=2.1.0",),
            "dlrm_dcnv2",
            "BENCHMARK=dlrm_dcnv2 in the environment: contradicts --edition=2.1.0",
        ),
        ((), "dcn", "BENCHMARK=dcn in the environment: must be dlrm or dlrm_dcnv2"),
        (("--benchmark=dcn",), "", "--benchmark"),
        (("--logs", "a.log", "--edition=6.0.0"), "", "--logs: 1 logs were given, 10 are required"),
        (("--logs", *["a.log"] * 5), "", "--logs: a.log:5 is of dlrm_dcnv2; use --benchmark=dlrm_dcnv2"),
    ],
    ids=str,
)
def test_contradicting_benchmark_is_refused_in_one_line(
    arguments: tuple[str, ...], variable: str, words: str, flags: tuple[str, ...], tmp_path: Path
) -> None:
    write_log(tmp_path / "a.log", foreign_entries(1, edition="6.0.0"), "6.0.0")
    run = make(*flags, *arguments, cwd=tmp_path, BENCHMARK=variable)
    assert run.status == 2
    assert words in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("--division=closed",),
            "--division=closed: not possible on the sample: requires eval_samples of 89137319",
        ),
        (("--rcp-bypass=why",), "--rcp-bypass: not allowed with the open division, which has no such check"),
    ],
)
def test_runs_on_the_sample_belong_to_the_open_division(
    arguments: tuple[str, ...], words: str, flags: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sample.json").write_text('{"rows": 1000, "seed": 1}')
    run = make(*flags, *arguments, "--benchmark=dlrm_dcnv2", cwd=tmp_path, DATADIR=str(tmp_path / "data"))
    assert run.status == 2
    assert run.stderr == f"make_submission.py: error: {words}\n"


def opened(number: int, entries: list[Entry]) -> list[Entry]:
    entries = changed("eval_samples", 1000, (number,))(number, entries)
    return changed("submission_division", "open", (number,))(number, entries)


def test_package_of_the_sample_passes_in_the_open_division(flags: tuple[str, ...], tmp_path: Path) -> None:
    logs = sorted(foreign_results(tmp_path / "logs", "6.0.0", opened).iterdir())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sample.json").write_text('{"rows": 1000, "seed": 1}')
    data = str(tmp_path / "data")
    run = make(*flags, "--benchmark=dlrm_dcnv2", "--logs", *logs, cwd=tmp_path, DATADIR=data)
    assert run.status == 0, run.stdout + run.stderr
    package = tmp_path / "out" / "Ours"
    assert json.loads((package / "systems" / "box.json").read_text())["division"] == "open"
    assert not list(package.rglob("package_checker_params"))  # nothing to bypass
    assert "FOUND NO ERRORS" in official_package_check(package, "6.0.0", tmp_path)


def test_results_of_a_system_are_in_one_division(flags: tuple[str, ...], tmp_path: Path) -> None:
    logs = sorted(foreign_results(tmp_path / "logs", "6.0.0", opened).iterdir())
    opens = ("--benchmark=dlrm_dcnv2", "--division=open")
    assert make(*flags, *opens, "--logs", *logs, cwd=tmp_path).status == 0
    description = tmp_path / "out" / "Ours" / "systems" / "box.json"
    before = description.read_bytes()
    dlrm = the_logs(tmp_path / "dlrm", "2.1.0")
    run = make(*flags, "--logs", *dlrm, cwd=tmp_path)
    assert run.status == 2
    assert run.stderr == (
        "make_submission.py: error: --division=closed: out/Ours/systems/box.json states open, the division of the "
        "results of dlrm_dcnv2 in this package; choose the same division or another --system\n"
    )
    assert description.read_bytes() == before
    assert make(*flags, "--system=other", "--logs", *dlrm, cwd=tmp_path).status == 0
    assert check(tmp_path / "out" / "Ours", cwd=tmp_path).status == 0


def test_reference_of_twenty_runs_checks_other_runs(flags: tuple[str, ...], tmp_path: Path) -> None:
    for number in range(20):
        epoch = 0.5 if number % 2 else 0.55
        entries = foreign_entries(number, edition="6.0.0", last_epoch=epoch)
        write_log(tmp_path / f"{number}.log", entries, "6.0.0")
    logs = sorted(tmp_path.glob("*.log"))
    run = make(*flags, "--reference", "--benchmark=dlrm_dcnv2", "--logs", *logs, cwd=tmp_path)
    assert run.status == 0, run.stderr
    points = tmp_path / "out" / "reference" / "box" / "rcps_dlrm_dcnv2.json"
    (point,) = json.loads(points.read_text()).values()
    assert point["Hyperparams"]["opt_adagrad_epsilon"] == 1e-8
    assert sorted(point["Epochs to converge"]) == [0.5] * 10 + [0.55] * 10
    folder = tmp_path / "dlrm_dcnv2"
    folder.mkdir()
    for number in range(0, 6, 2):
        (tmp_path / f"{number}.log").rename(folder / f"result_{number}.txt")
    rows = [
        next(
            line
            for line in check(folder, "--edition=6.0.0", *given, cwd=tmp_path).stdout.splitlines()
            if line.startswith("convergence")
        )
        for given in ((), (f"--rcps={points}",))
    ]
    assert [row.split()[3] for row in rows] == ["FAIL", "PASS"]


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_has_words_that_the_checker_accepts(status: str, tmp_path: Path) -> None:
    file = tmp_path / "box.json"
    file.write_text(json.dumps({**empty_description("box", "closed"), "status": AVAILABILITY[status]}))
    for edition in (*editions_of(DLRM)[1:], *editions_of(DLRM_DCNV2)):
        assert official.check_system(file, edition).passed
