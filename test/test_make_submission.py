"""Creating a submission package, from runs or from logs."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from easy_data import write_easy_data
from foreign_logs import (
    Entry,
    aborted,
    both,
    changed,
    foreign_entries,
    foreign_results,
    hasty,
    unchanged,
    with_metadata,
    without,
    write_log,
)
from package_maker import SYSTEM, make, write_system_file
from program import ROOT, official_package_check, read_events
from program import check_submission as check

from mlperf.benchmarks import DLRM, editions_of
from mlperf.submission.system_description import describe_processors


@pytest.fixture
def description(tmp_path: Path) -> Path:
    """Return a file with a whole system description."""
    return write_system_file(tmp_path / "other")


@pytest.mark.parametrize("edition", ["1.0.0", "2.0.0"])
def test_logs_are_collected_into_a_package_that_passes(edition: str, description: Path, tmp_path: Path) -> None:
    logs = sorted(foreign_results(tmp_path / "logs", edition, unchanged).iterdir())
    flags = ("--submitter=Ours", "--system=box", f"--edition={edition}", f"--system-file={description}")
    run = make(*flags, "--output=out", "--logs", *logs, cwd=tmp_path)
    assert run.status == 0, run.stdout + run.stderr
    package = tmp_path / "out" / "Ours"
    assert [file.read_bytes() for file in sorted(package.glob("results/box/dlrm/result_?.txt"))] == [
        file.read_bytes() for file in logs
    ]
    assert json.loads((package / "systems" / "box.json").read_text())["submitter"] == "Ours"
    implementation = package / "benchmarks" / "dlrm" / "implementations" / "pytorch"
    assert (implementation / "run_and_time.sh").stat().st_mode & 0o100
    steps = (implementation / "README.md").read_text()
    assert "SEED" in steps
    assert "$(tools/setup.sh) tools/check_submission.py ../../../.." in steps
    assert "python tools/" not in steps  # the steps work on a machine without an environment
    assert "without config_box.sh: CONFIG does not say" in run.stdout
    assert not [file for file in package.rglob("*") if file.name.startswith(".") or " " in file.name]
    assert "FOUND NO ERRORS" in official_package_check(package, edition, tmp_path)
    assert check(package, cwd=tmp_path).status == 0


def test_rewriting_a_package_replaces_only_its_own_results(description: Path, tmp_path: Path) -> None:
    logs = sorted(foreign_results(tmp_path / "logs", "2.0.0", unchanged).iterdir())
    package = tmp_path / "out" / "Ours"
    kept = [
        *("README.md", "results/box/bert/result_0.txt", "results/box/package_notes.txt", "systems/notes.txt"),
        *("results/other/dlrm/result_0.txt", "results/other/package_checker_params", "systems/other.json"),
        *("benchmarks/bert/implementations/jax/run.py", "benchmarks/dlrm/implementations/jax/run.py"),
        *("benchmarks/dlrm/README.md", "benchmarks/dlrm/implementations/pytorch/config_other.sh"),
    ]
    replaced = [
        *("results/box/dlrm/result_5.txt", "results/box/package_checker_params"),
        *("systems/box.json", "benchmarks/dlrm/implementations/pytorch/mlperf/gone.py"),
    ]
    for name in (*kept, *replaced):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("as it was")
    (package / "link").symlink_to("nowhere")
    flags = ("--submitter=Ours", "--system=box", "--edition=2.0.0", f"--system-file={description}", "--output=out")
    run = make(*flags, "--logs", *logs, cwd=tmp_path)
    assert run.status == 0, run.stdout + run.stderr
    assert [name for name in kept if (package / name).read_text() != "as it was"] == []
    assert (package / "link").is_symlink()
    assert not (package / "results/box/dlrm/result_5.txt").exists()
    assert not (package / "results/box/package_checker_params").exists()
    assert not (package / "benchmarks/dlrm/implementations/pytorch/mlperf/gone.py").exists()
    assert json.loads((package / "systems/box.json").read_text())["system_name"] == "box"
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["Ours"]


def test_configuration_and_data_are_recorded_with_collected_logs(description: Path, tmp_path: Path) -> None:
    logs = sorted(foreign_results(tmp_path / "logs", "2.0.0", unchanged).iterdir())
    odd = logs[1]
    odd.write_text(odd.read_text().replace('"epoch_num": 1.8999', '"epoch_num": "late"'))
    flags = ("--submitter=Ours", "--system=box", "--edition=2.0.0", f"--system-file={description}", "--output=out")
    (tmp_path / "sample.json").write_text('{"rows": 12345, "seed": 6}')
    run = make(*flags, "--logs", *logs, cwd=tmp_path, CONFIG="gpu_55296", DATADIR=".")
    assert run.status == 1
    assert "epoch_num is 'late', not a number" in run.stdout
    written = tmp_path / "out" / "Ours" / "benchmarks" / "dlrm" / "implementations" / "pytorch"
    assert "BATCH_SIZE=55296" in (written / "config_box.sh").read_text()
    assert "CONFIG=config_box.sh" in (written / "README.md").read_text()
    assert "tools/make_sample.py --folder=$DATA --rows=12345 --seed=6" in (written / "README.md").read_text()
    assert "bypassed: the runs use the synthetic sample" in run.stdout


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("eval_accuracy", "eval_other"), "did not reach AUC 0.8025"),
        (
            lambda text: text.replace('"epoch_num": 1.8999', '"epoch_num": NaN'),
            ":75: epoch_num is nan, must be a number",
        ),
        (
            lambda text: text.replace('"value": 55296', '"value": null'),
            "global_batch_size is None, must be a number",
        ),
        (lambda text: text.replace('"success"', '"aborted"'), "run_stop has status aborted"),
        (
            lambda text: text.replace('"key": "seed", "value": 0', '"key": "seed", "value": 3'),
            "has the same seed as",
        ),
    ],
    ids=["no AUC", "NaN", "no batch size", "aborted", "seed twice"],
)
def test_reference_from_an_invalid_run_is_reported_in_one_line(
    change: Callable[[str], str], words: str, tmp_path: Path
) -> None:
    for number in range(10):
        write_log(tmp_path / f"{number}.log", foreign_entries(number, edition="2.0.0"))
    first = tmp_path / "0.log"
    first.write_text(change(first.read_text()))
    logs = sorted(tmp_path.glob("*.log"))
    run = make("--submitter=Ours", "--system=box", "--reference", "--logs", *logs, cwd=tmp_path)
    assert run.status == 1
    assert words in run.stderr
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize(("flags", "count"), [((), 5), (("--reference",), 10)], ids=["package", "reference"])
def test_nothing_is_made_of_a_run_that_started_from_a_checkpoint(
    flags: tuple[str, ...], count: int, description: Path, tmp_path: Path
) -> None:
    for number in range(count):
        entries = foreign_entries(number, edition="2.0.0")
        mark = with_metadata("run_start", {"started_from": "epoch 0, iteration 300"}, (1,))
        write_log(tmp_path / f"{number}.log", mark(number, entries))
    logs = sorted(tmp_path.glob("*.log"))
    system = (
        "--submitter=Ours",
        "--system=box",
        "--edition=2.0.0",
        f"--system-file={description}",
        "--output=out",
    )
    run = make(*system, *flags, "--logs", *logs, cwd=tmp_path)
    assert run.status == 1
    assert "1.log:21: the run did not start from scratch but from epoch 0, iteration 300" in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def short_of_target(number: int, entries: list[Entry]) -> list[Entry]:
    return aborted(3, changed("eval_accuracy", 0.8, (1,))(number, entries)) if number == 1 else entries


def test_run_that_missed_the_target_is_kept_and_counts_as_the_slowest(description: Path, tmp_path: Path) -> None:
    logs = sorted(foreign_results(tmp_path / "logs", "2.0.0", short_of_target).iterdir())
    flags = ("--submitter=Ours", "--system=box", "--edition=2.0.0", f"--system-file={description}", "--output=out")
    run = make(*flags, "--logs", *logs, cwd=tmp_path)
    assert run.status == 1
    package = tmp_path / "out" / "Ours"
    assert len(list(package.glob("results/box/dlrm/result_?.txt"))) == 5
    assert "FOUND NO ERRORS" in official_package_check(package, "2.0.0", tmp_path)
    assert "1 of 5 runs is aborted or short of the target: the rules count it as the slowest" in run.stdout
    assert "2.300 minutes" in run.stdout  # of 2.0, 2.2, 2.3, 2.4 and the run without a time


def test_bypass_is_reported_with_its_reason_everywhere(description: Path, tmp_path: Path) -> None:
    logs = sorted(foreign_results(tmp_path / "logs", "2.0.0", hasty).iterdir())
    flags = ("--submitter=Ours", "--system=box", "--edition=2.0.0", f"--system-file={description}", "--output=out")
    refused = make(*flags, "--logs", *logs, cwd=tmp_path)
    assert refused.status == 1
    assert "converged faster than the reference" in refused.stdout
    run = make(*flags, "--rcp-bypass=a made-up reason", "--logs", *logs, cwd=tmp_path)
    assert run.status == 0, run.stdout
    package = tmp_path / "out" / "Ours"
    assert "BYPASSED" in run.stdout
    assert "not counted: converged faster than the reference" in run.stdout
    readme = package / "benchmarks" / "dlrm" / "implementations" / "pytorch" / "README.md"
    for text in (run.stdout, readme.read_text(), check(package, cwd=tmp_path).stdout):
        assert "a made-up reason" in text
    assert "FOUND NO ERRORS" in official_package_check(package, "2.0.0", tmp_path)


def test_seed_check_and_convergence_check_are_bypassed_together(description: Path, tmp_path: Path) -> None:
    change = both(hasty, without("seed", (0, 1, 2, 3, 4)))
    logs = sorted(foreign_results(tmp_path / "logs", "2.0.0", change).iterdir())
    flags = ("--submitter=Ours", "--system=box", "--edition=2.0.0", f"--system-file={description}", "--output=out")
    assert make(*flags, "--rcp-bypass=fast", "--logs", *logs, cwd=tmp_path).status == 1
    run = make(*flags, "--rcp-bypass=fast", "--seed-bypass=an old run", "--logs", *logs, cwd=tmp_path)
    assert run.status == 0, run.stdout
    package = tmp_path / "out" / "Ours"
    readme = package / "benchmarks" / "dlrm" / "implementations" / "pytorch" / "README.md"
    for text in (run.stdout, readme.read_text(), check(package, "--edition=2.0.0", cwd=tmp_path).stdout):
        assert "an old run" in text
    assert "FOUND NO ERRORS" in official_package_check(package, "2.0.0", tmp_path)


def test_reference_from_twice_as_many_runs_can_check_other_runs(tmp_path: Path) -> None:
    for number in range(10):
        epoch = 1.5 if number % 2 else 1.55
        write_log(tmp_path / f"{number}.log", foreign_entries(number, edition="2.0.0", last_epoch=epoch))
    logs = sorted(tmp_path.glob("*.log"))
    flags = ("--submitter=Ours", "--system=box", "--reference", "--output=out")
    assert make(*flags, "--logs", *logs[:5], cwd=tmp_path).status == 2
    run = make(*flags, "--logs", *logs, cwd=tmp_path)
    assert run.status == 0, run.stderr
    points = tmp_path / "out" / "reference" / "box" / "rcps_dlrm.json"
    (point,) = json.loads(points.read_text()).values()
    assert sorted(point["Epochs to converge"]) == [1.5] * 5 + [1.55] * 5
    assert point["Hyperparams"]["opt_base_learning_rate"] == 24.0
    folder = foreign_results(
        tmp_path / "dlrm", "2.0.0", lambda n, _: foreign_entries(n, edition="2.0.0", last_epoch=1.55)
    )
    against = check(folder, "--edition=2.0.0", f"--rcps={points}", cwd=tmp_path)
    assert any(line.startswith("convergence") and "PASS" in line for line in against.stdout.splitlines())
    without_it = check(folder, "--edition=2.0.0", cwd=tmp_path)
    assert any(line.startswith("convergence") and "FAIL" in line for line in without_it.stdout.splitlines())


@pytest.mark.slow
def test_interrupted_set_is_resumed_and_its_package_passes_for_every_edition(tmp_path: Path) -> None:
    """Five real runs on easy data, the second of them interrupted at first."""
    data = tmp_path / "data"
    data.mkdir()
    write_easy_data(data)
    (tmp_path / "mine.sh").write_text(
        "BATCH_SIZE=128\nTEST_BATCH_SIZE=512\nLEARNING_RATE=0.2\nWARMUP_STEPS=0\nDECAY_START_STEP=0\n"
        "DECAY_STEPS=0\nEPOCHS=4\n"
    )
    variables = {"DATADIR": str(data), "CONFIG": str(tmp_path / "mine.sh")}
    flags = ("--submitter=Ours", "--system=box", "--output=out", "--seed=5", "--rcp-bypass=easy data", *SYSTEM)
    with subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "make_submission.py"), *flags],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "DLRM_PYTHON": sys.executable, **variables},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("seed 6,"):
                process.send_signal(signal.SIGTERM)
                break
        process.communicate(timeout=60)
    assert process.returncode == 143
    first = sorted((tmp_path / "out" / "runs" / "box" / "dlrm" / "run_0").glob("*.log"))
    assert len(first) == 1

    other = make(*flags, "--edition=1.0.0", cwd=tmp_path, **variables)
    assert other.status == 2
    assert "made with edition '2.1.0', now it is '1.0.0'" in other.stderr

    other = make(*flags, "--seed=6", cwd=tmp_path, **variables)
    assert other.status == 2
    assert "--seed=6: the runs in out/runs/box/dlrm have the seeds 5, 6, 7, 8, 9" in other.stderr

    own = (tmp_path / "mine.sh").read_text()
    (tmp_path / "mine.sh").write_text(own.replace("0.2", "0.3"))
    other = make(*flags, cwd=tmp_path, **variables)
    assert other.status == 2
    assert "made with configuration_hash" in other.stderr
    (tmp_path / "mine.sh").write_text(own)

    run = make(*flags, cwd=tmp_path, **variables)
    assert run.status == 0, run.stdout + run.stderr
    assert run.stdout.count("done before") == 1
    assert sorted((tmp_path / "out" / "runs" / "box" / "dlrm" / "run_0").glob("*.log")) == first
    package = tmp_path / "out" / "Ours"
    logs = sorted(package.glob("results/box/dlrm/*_?.txt"))
    assert [log.name for log in logs] == [f"result_{number}.txt" for number in range(5)]
    seeds = [event["value"] for log in logs for event in read_events(log, "seed")]
    assert seeds == [5, 6, 7, 8, 9]
    assert len({hashlib.sha256(log.read_bytes()).hexdigest() for log in logs}) == 5
    implementation = package / "benchmarks" / "dlrm" / "implementations" / "pytorch"
    assert (implementation / "config_box.sh").read_text() == (tmp_path / "mine.sh").read_text()
    for edition in editions_of(DLRM):
        assert "FOUND NO ERRORS" in official_package_check(package, edition.name, tmp_path)
    assert check(package, "--edition=all", cwd=tmp_path).status == 0


def test_processor_fields_come_only_from_lscpu() -> None:
    lscpu = "\n".join(
        [
            *("Model name:  Made Up CPU @ 2.40GHz", "Socket(s):  2", "Core(s) per socket:  28", "CPU(s):  112"),
            *("L1d cache:  2.6 MiB (56 instances)", "L3 cache:  210 MiB (2 instances)"),
        ]
    )
    found = describe_processors(lscpu)
    assert found["host_processors_per_node"] == "2"
    assert found["host_processor_core_count"] == "28"
    assert found["host_processor_vcpu_count"] == "112"
    assert found["host_processor_frequency"] == "2.40GHz"
    assert found["host_processor_caches"] == "L1d 2.6 MiB (56 instances), L3 210 MiB (2 instances)"
    assert "host_processor_interconnect" not in found  # lscpu does not tell how two processors are connected
    assert not any(describe_processors("").values())
    assert not describe_processors("Socket(s):  -")["host_processors_per_node"]  # "-" is unknown
