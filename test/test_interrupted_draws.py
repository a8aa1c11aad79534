"""Ctrl-C ends long work in compiled code, whose calls are short. All of the work would take a minute to hours."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from program import run_program

TRAINER, SAMPLE = "dlrm_s_pytorch.py", "tools/make_sample.py"
TABLES = "--arch-embedding-size=1000000-1000000-1000000"
MANY_IDS = (TABLES, "--num-indices-per-lookup=1048576", "--num-indices-per-lookup-fixed")
NORMAL, SYNTHETIC = "--rand-data-dist=gaussian", "--data-generation=synthetic"
HANGS = 60.0  # seconds


def write_distances(folder: Path) -> None:
    """Write the stack distances from which the ids of synthetic data are drawn."""
    (folder / "input").mkdir()
    for table in range(3):
        (folder / "input" / f"dist_emb_{table}.log").write_text("1, 2, 3, 4\n0, 1, 2, 3\n0.01, 0.5, 0.9, 1.0\n")


@pytest.fixture(scope="module", autouse=True)
def imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import everything and load compiled code, so that the time below is spent on the work itself."""
    folder = tmp_path_factory.mktemp("imported")
    write_distances(folder)
    for flags in ((), (NORMAL,), (SYNTHETIC,)):
        assert run_program(*flags, cwd=folder).status == 0
    assert run_program("--folder=.", "--rows=1000", cwd=folder, program=SAMPLE).status == 0


@contextmanager
def interrupted_after(seconds: float) -> Iterator[list[float]]:
    """Send Ctrl-C when this process has computed for `seconds`; the list then has the time at which it was sent.

    If the block hangs, this process ends with a traceback.
    """
    ended, sent = threading.Event(), list[float]()
    start = time.process_time()

    def send() -> None:
        while time.process_time() - start < seconds:
            if ended.wait(0.01):
                return
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=send)
    faulthandler.dump_traceback_later(HANGS, exit=True)
    thread.start()
    try:
        yield sent
    finally:
        ended.set()
        thread.join()
        faulthandler.cancel_dump_traceback_later()


@pytest.mark.parametrize(
    ("program", "flags", "seconds"),
    [
        (
            TRAINER,
            (TABLES, "--num-indices-per-lookup=999999", "--data-size=900000", "--mini-batch-size=900000"),
            0.5,
        ),
        (TRAINER, (*MANY_IDS, NORMAL, "--data-size=3000", "--mini-batch-size=3000"), 0.5),
        # Skipped by the constructor in half a second, then drawn and sorted by the reading thread.
        (TRAINER, (*MANY_IDS, "--data-size=100", "--mini-batch-size=100"), 1.5),
        (TRAINER, (*MANY_IDS, SYNTHETIC, "--data-size=900", "--mini-batch-size=900"), 0.5),
        (SAMPLE, ("--folder=.", "--rows=1000000000"), 0.5),
    ],
    ids=["skipped ids", "skipped normal ids", "drawn ids", "synthetic ids", "sample"],
)
def test_interrupted_work_ends_soon_with_one_line_and_leaves_no_file(
    program: str, flags: tuple[str, ...], seconds: float, tmp_path: Path
) -> None:
    write_distances(tmp_path)
    with interrupted_after(seconds) as sent:
        run = run_program(*flags, cwd=tmp_path, program=program)
        ended = time.monotonic()
    assert run.status == 130, run.stderr
    assert ended - sent[0] < 10
    assert run.stderr.splitlines()[-1] == f"{Path(program).name}: interrupted"
    assert "Finished training" not in run.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["input"]
