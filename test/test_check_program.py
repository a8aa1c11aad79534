"""The program that checks results: its arguments, its output and its exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import pytest
from foreign_logs import Entry, foreign_entries, foreign_results, unchanged, write_log
from program import ROOT, same_signal_handlers
from program import check_submission as check

from mlperf.submission.report import four_digits
from mlperf.util.failures import system_failures
from mlperf.util.program import run_program as run_entry_point


@pytest.mark.parametrize(
    "arguments",
    [
        ("a.log", "--edition", "1.1.0", "2.1.0"),
        ("--edition", "1.1.0", "2.1.0", "a.log"),
        ("--edition=1.1.0,2.1.0", "a.log"),
        ("--edition", "1.1.0,2.1.0", "a.log", "--edition=2.1.0"),
        ("--edition", "1.1.0", "--edition", "2.1.0", "a.log"),
    ],
    ids=" ".join,
)
def test_several_editions_may_be_given_in_any_form(arguments: tuple[str, ...], tmp_path: Path) -> None:
    write_log(tmp_path / "a.log", foreign_entries(1, edition="2.0.0"))
    run = check(*arguments, cwd=tmp_path)
    assert run.status == 0, run.stderr
    verdicts = [line for line in run.stdout.splitlines() if line.endswith(": SUCCESS")]
    assert verdicts == ["a.log: edition 1.1.0: SUCCESS", "a.log: edition 2.1.0: SUCCESS"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.58762, "0.5876"),
        (116.56, "116.6"),
        (2.2, "2.200"),
        (0.99996, "1.000"),
        (9.9999, "10.00"),
        (12345.6, "12346"),
        (0.01234567, "0.01235"),
        (0, "0.000"),
    ],
)
def test_minutes_have_four_significant_digits(number: float, text: str) -> None:
    assert four_digits(number) == text


def test_score_has_four_significant_digits(tmp_path: Path) -> None:
    def timed(number: int, entries: list[Entry]) -> list[Entry]:
        return foreign_entries(number, edition="2.0.0", minutes=0.5876 + number / 1e4 - 2e-4)

    run = check(foreign_results(tmp_path / "dlrm", "2.0.0", timed), "--edition=2.0.0", cwd=tmp_path)
    assert "0.5876 minutes, the mean without the fastest and the slowest run" in run.stdout
    assert "at epoch 1.900, 0.5874 minutes" in run.stdout


def to_full_disk() -> TextIO:
    return open("/dev/full", "w")


def to_no_reader() -> TextIO:
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


def run_without_reader(cwd: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program whose stdout is a pipe that nobody reads."""
    with to_no_reader() as closed:
        return run_into(closed, cwd, program, *arguments)


def run_into(stdout: TextIO, cwd: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / program), *arguments]
    return subprocess.run(command, cwd=cwd, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)


@pytest.mark.parametrize("path", ["dlrm", "dlrm/result_0.txt"])
def test_output_without_a_reader_is_not_blamed_on_the_log(path: str, tmp_path: Path) -> None:
    foreign_results(tmp_path / "dlrm", "2.0.0", unchanged)
    run = run_without_reader(tmp_path, "tools/check_submission.py", path, "--edition=2.0.0")
    assert run.returncode == 141
    assert run.stderr == "check_submission.py: the reader of the output has ended\n"


def test_full_disk_is_not_blamed_on_the_log(tmp_path: Path) -> None:
    write_log(tmp_path / "a.log", foreign_entries(1, edition="2.0.0"))
    with to_full_disk() as full:
        run = run_into(full, tmp_path, "tools/check_submission.py", "a.log", "--edition=2.0.0")
    assert run.returncode == 1
    assert run.stderr == (
        "check_submission.py: error: standard output: cannot be written: No space left on device\n"
    )


def test_any_program_ends_with_one_line_when_the_reader_of_its_output_has_ended(tmp_path: Path) -> None:
    run = run_without_reader(tmp_path, "dlrm_s_pytorch.py", "--data-size=4", "--print-freq=1")
    assert run.returncode == 141
    assert run.stderr.splitlines()[-1] == "dlrm_s_pytorch.py: the reader of the output has ended"
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("flush", [True, False])
@pytest.mark.parametrize(
    ("output", "status", "message"),
    [
        (to_full_disk, 1, "x.py: error: standard output: cannot be written: No space left on device\n"),
        (to_no_reader, 141, "x.py: the reader of the output has ended\n"),
    ],
)
def test_output_that_cannot_be_written_is_not_blamed_on_the_file_in_work(
    output: Callable[[], TextIO],
    status: int,
    message: str,
    flush: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work() -> int:
        with system_failures(Path("data.bin"), "cannot be read"):
            print("text", flush=flush)
        return 0

    with output() as stdout, same_signal_handlers():
        monkeypatch.setattr("sys.stdout", stdout)
        assert run_entry_point("x.py", work) == status
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("dlrm_s_pytorch.py", ("--data-size=4", "--print-freq=1")),
        ("tools/plot_run.py", ("a.log", "--output=run.png")),
        ("tools/report.py", ("a.log",)),
    ],
)
def test_any_program_names_a_full_disk_and_runs_without_stdout(
    program: str, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    write_log(tmp_path / "a.log", foreign_entries(1, edition="2.0.0"))
    with open("/dev/full", "w") as full:
        run = run_into(full, tmp_path, program, *arguments)
    assert run.returncode == 1
    words = "error: standard output: cannot be written: No space left on device"
    assert run.stderr.splitlines()[-1] == f"{Path(program).name}: {words}"
    assert "Traceback" not in run.stderr
    command = ["bash", "-c", 'exec "$@" >&-', "bash", sys.executable, str(ROOT / program), *arguments]
    closed = subprocess.run(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False)
    assert closed.returncode == 0, closed.stderr
    assert "Traceback" not in closed.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("no_such",), 1, "no_such: no such file or folder"),
        ((".",), 1, ".: holds neither result_0.txt"),
        ((".", "--edition=6.1.0"), 2, "--edition: '6.1.0' includes dlrmv4, which is not supported"),
        (("--edition", "2.0.0", "9.9.0", "."), 2, "--edition: '9.9.0' is unknown; allowed: 0.7.0, 1.0.0"),
        ((".", "--rcps=none.json"), 2, "--rcps=none.json: no such file"),
        ((".", "--rcps=."), 2, "--rcps=.: is a folder"),
        ((), 2, "path"),
    ],
    ids=str,
)
def test_usage_error_of_the_check_is_reported_in_one_line(
    arguments: tuple[str, ...], status: int, words: str, tmp_path: Path
) -> None:
    run = check(*arguments, cwd=tmp_path)
    assert run.status == status
    assert words in run.stderr
    assert len(run.stderr.splitlines()) == 1
