"""run_and_time.sh in a copy of the repository, with the environment of the tests."""

from __future__ import annotations

import getpass
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from program import ROOT, Finished, read_events
from repository_copy import copy_repository
from timed_runs import result, run_and_time

import mlperf
from mlperf.benchmarks import DLRM, editions_of
from mlperf.data.criteo.sample.generate import SampleSettings, make_sample
from mlperf.data.prepare.pipeline import prepare
from mlperf.settings.dataset import PreparationSettings
from mlperf.settings.from_flags import parse
from mlperf.submission.check import check_log

TINY = ("--arch-sparse-feature-size=4", "--arch-mlp-bot=13-4", "--arch-mlp-top=2-1")  # trains in no time


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the repository without data and results."""
    return copy_repository(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with prepared data and no raw data, 19,167 rows to train on; its name has a space."""
    raw, folder = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("small data")
    make_sample(SampleSettings(raw, rows=23_000, seed=1))
    assert DLRM.data.index_limit is not None
    prepare(PreparationSettings("terabyte", raw / "day", folder / "mine", max_ind_range=DLRM.data.index_limit))
    return folder


def files(folder: Path) -> set[Path]:
    """Return the files of a folder but for what Python caches."""
    return {path for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.mark.slow
def test_one_command_generates_a_sample_trains_to_the_target_and_passes_the_check(clone: Path) -> None:
    run = run_and_time(clone, SEED="11")
    assert run.status == 0, run.stdout + run.stderr
    tag, benchmark, seed, seconds, user, started = result(run)
    assert (tag, benchmark, seed, user) == ("RESULT", "RECOMMENDATION", "11", getpass.getuser())
    assert 0 < int(seconds) < 600
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [AP]M", started)
    sample = json.loads((clone / "input" / "sample.json").read_text())
    assert f"best reachable AUC is {sample['best_auc']:.4f}" in run.stdout
    (log,) = (clone / "results").glob("*.log")
    assert all(check_log(log, edition).passed for edition in editions_of(DLRM))
    evaluations = [event for event in read_events(log) if event["key"] == "eval_accuracy"]
    assert evaluations[-1]["value"] >= DLRM.auc_target
    assert all(event["value"] < DLRM.auc_target for event in evaluations[:-1])
    assert evaluations[-1]["metadata"]["epoch_num"] > 1.5
    assert (log.with_suffix(".console.txt")).read_text() in run.stdout


def test_prepared_data_is_sufficient_and_a_missed_target_exits_with_status_3(
    clone: Path, small: Path, tmp_path: Path
) -> None:
    variables = {"DATADIR": str(small), "LOGDIR": "my logs", "CONFIG": "sample", "SEED": "3"}
    flags = (*TINY, "--nepochs=1", "--verify-data")
    run = run_and_time(clone, *flags, cwd=tmp_path, DROP_CACHES="false", **variables)
    assert run.status == 3, run.stderr
    assert "page cache dropped: false" in run.stdout
    assert "mine_test.bin: matches the checksum in its manifest" in run.stdout
    (log,) = (tmp_path / "my logs").glob("*.log")
    values = {event["key"]: event for event in read_events(log)}
    assert values["seed"]["value"] == 3
    assert values["cache_clear"]["value"] is False
    assert values["train_samples"]["value"] == 19167
    assert values["run_stop"]["metadata"]["status"] == "aborted"
    assert run.stdout.count("auc") == 2 * 19  # evaluated every 4 of 75 batches
    assert result(run)[:3] == ["RESULT", "RECOMMENDATION", "3"]


@pytest.mark.slow
def test_random_seed_is_drawn_and_logged_by_default(clone: Path, small: Path, tmp_path: Path) -> None:
    seeds = set()
    for number in range(2):
        logs = tmp_path / str(number)
        flags = (*TINY, "--num-batches=1", "--nepochs=1")
        run = run_and_time(clone, *flags, DATADIR=str(small), LOGDIR=str(logs), CONFIG="sample")
        (log,) = logs.glob("*.log")
        logged = next(event["value"] for event in read_events(log) if event["key"] == "seed")
        assert result(run)[2] == str(logged)
        seeds.add(logged)
    assert len(seeds) == 2


def test_script_in_bench_runs_the_same_command(clone: Path, tmp_path: Path) -> None:
    for flag in ("--help", "--no-such-flag"):
        first, second = (
            run_and_time(clone, flag, script=script, cwd=tmp_path, LOGDIR=str(tmp_path), SEED="8")
            for script in ("run_and_time.sh", "bench/run_and_time.sh")
        )
        assert first == second


def test_failed_run_exits_with_status_1_and_a_result_line(clone: Path, small: Path, tmp_path: Path) -> None:
    for path in small.iterdir():
        shutil.copy2(path, tmp_path)
    train = tmp_path / "mine_train.bin"
    train.write_bytes(train.read_bytes()[:-160])
    run = run_and_time(clone, DATADIR=str(tmp_path), LOGDIR=str(tmp_path / "logs"), CONFIG="sample", SEED="1")
    assert run.status == 1
    assert "mine_train.bin" in run.stdout
    assert result(run)[0] == "RESULT"


@pytest.mark.parametrize(
    "variables",
    [
        {"DATADIR": "no/such/folder"},
        {"DATADIR": "mlperf"},
        {"SEED": "-1"},
        {"SEED": "seven"},
        {"SEED": "4294967296"},
        {"SEED": "18446744073709551617"},  # 1 in 64 bits
        {"SEED": "1_0"},
        {"SEED": "0x10"},
        {"CONFIG": "no_such_system"},
        {"EDITION": "3.0.0"},
        {"LOGDIR": "run_and_time.sh"},
        {"DROP_CACHES": "maybe"},
    ],
    ids=str,
)
def test_invalid_variable_is_named_with_status_2(variables: dict[str, str], clone: Path, small: Path) -> None:
    run = run_and_time(clone, **{"DATADIR": str(small), **variables})  # type: ignore[arg-type]
    ((name, value),) = variables.items()
    assert run.status == 2
    assert f"{name}={value}" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_configuration_with_a_missing_variable_is_rejected(clone: Path, small: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.sh").write_text("BATCH_SIZE=128\nTEST_BATCH_SIZE=512\n")
    run = run_and_time(clone, cwd=tmp_path, DATADIR=str(small), CONFIG="mine.sh", LEARNING_RATE="1")
    assert run.status == 2
    assert run.stderr == f"run_and_time.sh: error: {tmp_path}/mine.sh: does not set LEARNING_RATE\n"


CONFIGURATION = "BATCH_SIZE=0128\nTEST_BATCH_SIZE=512\nLEARNING_RATE=1\nWARMUP_STEPS=0\nDECAY_START_STEP=0\n" + (
    "DECAY_STEPS=0\nEPOCHS=1\nTRAINER_FLAGS=(--num-batches=1)"
)


def test_names_with_special_characters_and_line_ends_of_windows_are_used_as_they_are(
    clone: Path, small: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "-a [b] *? 'q\" \\ \n"
    odd.mkdir()
    for path in small.iterdir():
        (odd / path.name).symlink_to(path)
    config = odd / "my [1].sh"
    config.write_text(CONFIGURATION.replace("\n", "\r\n"))  # its last line has no end
    variables = {"DATADIR": odd.name, "CONFIG": f"{odd.name}/{config.name}", "LOGDIR": "-logs [b] *? 'q\" \\ "}
    run = run_and_time(clone, *TINY, cwd=tmp_path, SEED="007", **variables)
    assert run.status == 3, run.stdout + run.stderr
    (log,) = (tmp_path / variables["LOGDIR"]).glob("*.log")
    assert [event["value"] for event in read_events(log, "seed", "global_batch_size")] == [7, 128]
    assert result(run)[2] == "7"


def test_raw_data_is_found_in_a_folder_with_brackets(clone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "[a]"
    folder.mkdir()
    (folder / "day_0").touch()
    run = run_and_time(clone, DATADIR=str(folder), CONFIG=str(tmp_path))
    assert run.status == 2
    assert "CONFIG=" in run.stderr, "the data was not found"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("EPOCHS=$NO_SUCH\n", "NO_SUCH: unbound variable"),
        ("BATCH_SIZE = 128\r\n", "BATCH_SIZE: command not found"),
        ("if\n", "syntax error"),
        ("exit 0\n", "it ends the script"),
        ("false\n", "it ends the script"),
        ("", "does not set BATCH_SIZE"),
        (CONFIGURATION.replace("0128", "12x"), "BATCH_SIZE=12x: must be a whole number from 1 to 2147483647"),
        (CONFIGURATION.replace("0128", "'a[$(touch x)]'"), "must be a whole number"),
        (CONFIGURATION.replace("0128", "99999999999999999999"), "must be a whole number"),
        (CONFIGURATION.replace("EPOCHS=1", "EPOCHS=1e3"), "--nepochs"),
        (CONFIGURATION.replace("LEARNING_RATE=1", "LEARNING_RATE=1e39"), "--learning-rate"),
    ],
)
def test_file_that_is_not_a_configuration_is_rejected_in_one_line(
    content: str, words: str, clone: Path, small: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.sh").write_text(content)
    logs = tmp_path / "logs"
    run = run_and_time(clone, DATADIR=str(small), CONFIG=str(tmp_path / "mine.sh"), LOGDIR=str(logs))
    assert run.status == 2, run.stdout + run.stderr
    assert words in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert run.stdout == ""
    assert not logs.exists()


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("/proc/logs of mine", "/proc/logs of mine: no files can be created there"),
        ("logs\nof mine", "logs?of mine: must not contain line ends or other control characters"),
    ],
)
def test_folder_of_the_logs_that_cannot_be_used_is_named_before_any_work(
    folder: str, message: str, clone: Path, small: Path
) -> None:
    run = run_and_time(clone, DATADIR=str(small), LOGDIR=folder, CONFIG="sample")
    assert run.status == 2
    assert run.stdout == ""
    assert run.stderr == f"run_and_time.sh: error: LOGDIR={message}\n"


@pytest.mark.parametrize("flag", ["--precision=fp8", "--no-such-flag", "--md-flag=1", "--test-freq=0"])
def test_wrong_flag_is_reported_in_one_line_before_any_work(flag: str, clone: Path, tmp_path: Path) -> None:
    before = files(clone)
    run = run_and_time(clone, flag, LOGDIR=str(tmp_path / "logs"), SEED="3")
    assert run.status == 2
    assert flag.partition("=")[0] in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert run.stdout == ""
    assert not list(tmp_path.iterdir())
    assert files(clone) == before


def test_folder_of_the_logs_may_not_be_a_file(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = run_and_time(clone, LOGDIR=str(tmp_path / "file"))
    assert run.status == 2
    assert run.stdout == ""
    assert run.stderr == f"run_and_time.sh: error: LOGDIR={tmp_path / 'file'}: is not a folder\n"


TRAINING_FROM_A_CHECKPOINT = "BATCH_SIZE=128\nTEST_BATCH_SIZE=512\nLEARNING_RATE=1\nWARMUP_STEPS=0\n" + (
    "DECAY_START_STEP=0\nDECAY_STEPS=0\nEPOCHS=1\nTRAINER_FLAGS=(--load-model=model.pt)\n"
)


def test_run_from_a_checkpoint_is_refused_also_by_a_configuration(
    clone: Path, small: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.sh").write_text(TRAINING_FROM_A_CHECKPOINT)
    logs = str(tmp_path / "logs")
    for flags, config in ((("--load-model", "model.pt"), "sample"), ((), str(tmp_path / "mine.sh"))):
        run = run_and_time(clone, *flags, CONFIG=config, DATADIR=str(small), LOGDIR=logs)
        assert run.status == 2
        assert "--load-model=model.pt: a run that starts from a checkpoint is not a result" in run.stderr
        assert len(run.stderr.splitlines()) == 1
        assert run.stdout == ""
    assert not (tmp_path / "logs").exists()


def test_log_of_an_earlier_run_of_the_same_second_is_kept(clone: Path, small: Path, tmp_path: Path) -> None:
    (tmp_path / "date").write_text('#!/bin/sh\nexec /bin/date -d @1700000000 "$@"\n')
    (tmp_path / "date").chmod(0o755)
    logs = tmp_path / "logs"
    logs.mkdir()
    name = time.strftime("dlrm_%Y%m%d_%H%M%S_seed_3", time.localtime(1_700_000_000))
    (logs / f"{name}.console.txt").write_text("of a run that has just begun")
    (logs / f"{name}_2.log").write_text("of an earlier run")
    variables = {"DATADIR": str(small), "LOGDIR": str(logs), "CONFIG": "sample", "SEED": "3"}
    variables["PATH"] = f"{tmp_path}:/usr/bin:/bin"
    run = run_and_time(clone, *TINY, "--nepochs=1", "--num-batches=1", cwd=tmp_path, **variables)
    assert run.status == 3, run.stdout + run.stderr
    assert (logs / f"{name}.console.txt").read_text() == "of a run that has just begun"
    assert (logs / f"{name}_2.log").read_text() == "of an earlier run"
    assert read_events(logs / f"{name}_3.log", "run_stop")
    assert (logs / f"{name}_3.console.txt").read_text() in run.stdout
    assert len(list(logs.iterdir())) == 4


def test_help_needs_no_environment(clone: Path) -> None:
    run = run_and_time(clone, "--help", DLRM_PYTHON="/no/such/python")
    assert run.status == 0
    assert run.stdout.startswith("The benchmark: ")
    assert all(name in run.stdout for name in ("DATADIR", "LOGDIR", "SEED", "CONFIG", "EDITION", "DROP_CACHES"))
    assert run.stderr == ""


def test_version_is_printed_without_a_run(clone: Path) -> None:
    before = files(clone)
    run = run_and_time(clone, "--version", DLRM_PYTHON="/no/such/python")
    assert run == Finished(0, f"run_and_time.sh {mlperf.__version__}\n", "")
    assert files(clone) == before


def test_wrong_flag_is_reported_before_the_environment_is_installed(clone: Path, tmp_path: Path) -> None:
    """Any recent Python can parse the flags; this environment could not be used."""
    (tmp_path / "python3").symlink_to(sys.executable)
    run = run_and_time(clone, "--precision=fp8", DLRM_PYTHON="/no/such/python", PATH=f"{tmp_path}:/usr/bin:/bin")
    assert run.status == 2
    assert run.stderr.startswith("dlrm_s_pytorch.py: error: --precision: ")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signal_is_forwarded_and_the_log_is_closed(
    number: signal.Signals, clone: Path, small: Path, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [str(clone / "run_and_time.sh"), *TINY, "--nepochs=100000"],
        env={
            **{"PATH": "/usr/bin:/bin", "DLRM_PYTHON": sys.executable, "DATADIR": str(small)},
            **{"LOGDIR": str(tmp_path), "CONFIG": "sample"},
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("Testing"):
            assert process.poll() is None
        time.sleep(0.1)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 128 + number, stderr
    assert "the same command starts a new one" in stderr
    assert stdout.splitlines()[-1].startswith("RESULT,RECOMMENDATION,")
    (log,) = tmp_path.glob("*.log")
    assert [e["metadata"]["status"] for e in read_events(log) if e["key"] == "run_stop"] == ["aborted"]


@pytest.mark.parametrize("name", ["gpu_32768", "gpu_55296", "gpu_71680"])
def test_gpu_configurations_match_the_reference_convergence_points(name: str) -> None:
    points = {
        "gpu_32768": {"LEARNING_RATE": "18", "WARMUP_STEPS": "8000", "DECAY_START_STEP": "70000"}
        | {"DECAY_STEPS": "30000", "BATCH_SIZE": "32768"},
        "gpu_55296": {"LEARNING_RATE": "24", "WARMUP_STEPS": "2750", "DECAY_START_STEP": "49315"}
        | {"DECAY_STEPS": "27772", "BATCH_SIZE": "55296"},
        "gpu_71680": {"LEARNING_RATE": "26", "WARMUP_STEPS": "2500", "DECAY_START_STEP": "46821"}
        | {"DECAY_STEPS": "15406", "BATCH_SIZE": "71680"},
    }[name]
    lines = (ROOT / "mlperf" / "systems" / "dlrm" / f"config_{name}.sh").read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    assert {key: found[key].removesuffix(".0") for key in points} == points


def test_each_configuration_of_a_gpu_names_its_precision() -> None:
    files = sorted((ROOT / "mlperf" / "systems").glob("*/config_gpu_*.sh"))
    assert len(files) >= 9
    for file in files:
        flags = re.search(r"^TRAINER_FLAGS=\((.*)\)$", file.read_text(), re.MULTILINE)
        assert flags is not None
        assert parse(flags[1].split()).precision == "bf16"


def test_setup_uses_the_given_environment() -> None:
    def setup(python: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(ROOT / "tools" / "setup.sh")],
            env={"PATH": "/usr/bin:/bin", "DLRM_PYTHON": python},
            capture_output=True,
            text=True,
            check=False,
        )

    assert setup(sys.executable).stdout == f"{sys.executable}\n"
    missing = setup("/no/such/python")
    assert missing.returncode == 2
    assert "DLRM_PYTHON=/no/such/python" in missing.stderr
