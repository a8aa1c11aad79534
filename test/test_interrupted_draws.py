"""Ctrl-C ends long work in compiled code, whose calls are short. Here all the work would take minutes to hours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from program import ROOT

TRAINER, SAMPLE = "dlrm_s_pytorch.py", "tools/make_sample.py"
TABLES = "--arch-embedding-size=1000000-1000000-1000000"
# 2^20 ids for a sample: skipped quickly by the constructor, drawn and sorted slowly by the reading thread.
MANY_IDS = (TABLES, "--num-indices-per-lookup=1048576", "--num-indices-per-lookup-fixed")
NORMAL_IDS = (*MANY_IDS, "--rand-data-dist=gaussian")


def processor_seconds(pid: int) -> float:
    """Return the time that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    ("program", "flags", "after_line", "seconds"),
    [
        (
            TRAINER,
            (TABLES, "--num-indices-per-lookup=999999", "--data-size=900000", "--mini-batch-size=900000"),
            "",
            5,
        ),
        pytest.param(
            TRAINER,
            (*NORMAL_IDS, "--data-size=3000", "--mini-batch-size=3000"),
            "",
            5,
            marks=pytest.mark.slow,
        ),
        (TRAINER, (*MANY_IDS, "--data-size=900", "--mini-batch-size=900"), "engine:", 2),
        pytest.param(
            TRAINER,
            (*MANY_IDS, "--data-size=900", "--mini-batch-size=900", "--data-generation=synthetic"),
            "engine:",
            2,
            marks=pytest.mark.slow,
        ),
        (SAMPLE, ("--folder=.", "--rows=1000000000"), "", 5),
    ],
    ids=["skipped ids", "skipped normal ids", "drawn ids", "synthetic ids", "sample"],
)
def test_interrupted_work_ends_with_one_line_and_leaves_no_file(
    program: str, flags: tuple[str, ...], after_line: str, seconds: float, tmp_path: Path
) -> None:
    (tmp_path / "input").mkdir()
    for table in range(3):
        (tmp_path / "input" / f"dist_emb_{table}.log").write_text("1, 2, 3, 4\n0, 1, 2, 3\n0.01, 0.5, 0.9, 1.0\n")
    with subprocess.Popen(
        [sys.executable, str(ROOT / program), *flags],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while after_line and not process.stderr.readline().startswith(after_line):
            assert process.poll() is None
        start = processor_seconds(process.pid) if after_line else 0.0
        while processor_seconds(process.pid) - start < seconds:  # until the compiled code runs
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        try:
            stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, stderr
    assert stderr.splitlines()[-1] == f"{Path(program).name}: interrupted"
    assert "Finished training" not in stdout
    assert [path.name for path in tmp_path.iterdir()] == ["input"]
