"""Output that cannot be written ends a program with one line, and what is on the disk is complete lines."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from easy_data import write_easy_data
from program import ROOT, Finished, read_events, run_program, same_signal_handlers

from mlperf.submission.check import check_log
from mlperf.util import program

SMALL = (
    *("--arch-sparse-feature-size=4", "--arch-mlp-bot=13-4", "--arch-mlp-top=2-1", "--loss-function=bce"),
    *("--data-generation=dataset", "--data-set=terabyte", "--mini-batch-size=128", "--mlperf-logging"),
    *("--num-batches=4", "--test-freq=2", "--mlperf-auc-threshold=0.1", "--mlperf-log-file=run.log"),
)


@pytest.fixture(scope="module")
def easy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the prefix of data on which the target is reached quickly."""
    return write_easy_data(tmp_path_factory.mktemp("easy"))


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let writes beyond `size` bytes fail, like those to a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def train(easy: Path, folder: Path, *flags: str) -> Finished:
    folder.mkdir(exist_ok=True)
    return run_program(*SMALL, f"--processed-data-file={easy}", *flags, cwd=folder)


def test_log_that_outgrows_the_disk_ends_the_run_and_holds_complete_lines(easy: Path, tmp_path: Path) -> None:
    assert train(easy, tmp_path / "whole").status == 0
    whole = (tmp_path / "whole" / "run.log").read_bytes()
    assert json.loads(whole.splitlines()[-1].partition(b" ")[2])["metadata"]["status"] == "success"
    started = whole.index(b'"epoch_start"')
    for size in (len(whole) - 1, len(whole) - 100, started + 300, started - 600, 1):
        folder = tmp_path / str(size)
        with files_of_at_most(size):
            run = train(easy, folder)
        assert run.status == 1
        message = "dlrm_s_pytorch.py: error: --mlperf-log-file=run.log: cannot be written: File too large"
        assert [line for line in run.stderr.splitlines() if "error" in line] == [message]
        assert "Logging error" not in run.stderr
        log = folder / "run.log"
        if size < started:  # it failed before the first step
            assert not log.exists()
            continue
        assert log.read_bytes().endswith(b"}\n")
        assert not any("success" in str(event["metadata"]) for event in read_events(log, "run_stop"))
        assert not check_log(log).passed


def test_pipe_that_nobody_reads_is_refused_as_a_log(easy: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.log")
    run = train(easy, tmp_path)
    assert (run.status, run.stdout) == (1, "")
    words = "cannot be written: a socket, or a pipe that no process reads"
    assert run.stderr == f"dlrm_s_pytorch.py: error: --mlperf-log-file=run.log: {words}\n"


def test_clock_that_is_set_does_not_change_the_times_of_a_log(
    easy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.time()
    readings = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: began - 3600 * next(readings))  # set back at each reading
    run = train(easy, tmp_path)
    monkeypatch.undo()
    assert run.status == 0
    times = [event["time_ms"] for event in read_events(tmp_path / "run.log")]
    assert times == sorted(times)
    assert 1000 * began - 1 <= times[0] <= times[-1] <= 1000 * time.time()


def test_curves_that_cannot_be_written_end_the_run_and_close_the_log(easy: Path, tmp_path: Path) -> None:
    flags = ("--print-freq=1", "--mini-batch-size=16", "--num-batches=200", "--test-freq=1000")
    with files_of_at_most(15_000):  # more than the log has, less than the curves have
        run = train(easy, tmp_path, *flags, "--tensor-board-filename=curves")
    assert run.status == 1
    message = "dlrm_s_pytorch.py: error: --tensor-board-filename=curves: cannot be written: File too large"
    assert run.stderr.splitlines()[-1] == message
    assert "Traceback" not in run.stderr
    assert 0 < len(run.progress_lines) < 200
    (stop,) = read_events(tmp_path / "run.log", "run_stop")
    assert stop["metadata"]["status"] == "aborted"


def test_profile_that_cannot_be_written_is_not_taken_for_written(tmp_path: Path) -> None:
    flags = ("--data-size=8", "--mini-batch-size=2", "--enable-profiling")
    assert run_program(*flags, cwd=tmp_path).status == 0
    (tmp_path / "dlrm_s_pytorch.prof").unlink()
    (tmp_path / "dlrm_s_pytorch.json").unlink()
    cases: tuple[tuple[int, str, list[str]], ...] = (
        (20_000, "dlrm_s_pytorch.json", ["dlrm_s_pytorch.prof"]),
        (100, "dlrm_s_pytorch.prof", []),
    )
    for size, named, left in cases:
        folder = tmp_path / str(size)
        folder.mkdir()
        with files_of_at_most(size):
            run = run_program(*flags, cwd=folder)
        assert run.status == 1
        last = run.stderr.splitlines()[-1]
        assert last.startswith(f"dlrm_s_pytorch.py: error: --enable-profiling: {named}")
        assert "cannot be written: " in last
        assert [path.name for path in folder.iterdir()] == left


@pytest.mark.parametrize(
    ("size", "named", "left"),
    [(100, "dlrm_s_pytorch_time.json", []), (8_000, "dlrm_s_pytorch_time.png", ["dlrm_s_pytorch_time.json"])],
)
def test_breakdown_that_cannot_be_written_is_one_line(
    size: int, named: str, left: list[str], tmp_path: Path
) -> None:
    with files_of_at_most(size):
        run = run_program("--data-size=6", "--mini-batch-size=2", "--time-breakdown", cwd=tmp_path)
    assert run.status == 1
    last = run.stderr.splitlines()[-1]
    assert last.startswith(f"dlrm_s_pytorch.py: error: --time-breakdown: {named}")
    assert last.endswith("File too large")
    assert [path.name for path in tmp_path.iterdir()] == left


PROGRAMS = (
    *(f"{sys.executable} -m {module}" for module in ("mlperf.benchmarks dlrm --flags", "mlperf.cli")),
    *(f"{sys.executable} {ROOT}/{script} --help" for script in ("dlrm_s_pytorch.py", "tools/verify_data.py")),
    *(f"{ROOT}/{script} --help" for script in ("run_and_time.sh", "tools/setup.sh", "bench/dlrm_s_benchmark.sh")),
)
STREAMS = {  # redirections, exit status, pattern of stderr
    ">/dev/full": (1, "No space left on device"),
    ">&-": (0, ""),
    "2>&-": (0, ""),
    "<&- >&- 2>&-": (0, ""),
    "2>/dev/full": (0, ""),
}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.partition(" ")[2] or program)
def test_every_program_ends_quietly_if_streams_are_closed_or_full(program: str, tmp_path: Path) -> None:
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
        )

    for streams, (status, words) in STREAMS.items():
        done = run(f"{program} {streams}")
        assert done.returncode == status, done.stderr
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == (1 if words else 0)
    done = run(f"{{ sleep 0.2; {program}; }} | true; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 141
    assert len(done.stderr.splitlines()) <= 1


def test_full_disk_under_a_cache_of_a_library_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with same_signal_handlers():
        assert program.run_program("x.py", work) == 1
    words = "a file cannot be read or written: No space left on device"
    assert capsys.readouterr().err == f"x.py: error: {words}\n"
