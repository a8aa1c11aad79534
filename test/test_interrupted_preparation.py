"""Preparations that are killed, continue, and end with the same bytes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from interruption import Killed, killed_after_moves, killed_after_saves, phase, result, shuffled
from program import ROOT

from mlperf.data.prepare.open_prepared import open_prepared
from mlperf.data.prepare.pipeline import prepare

ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'test'}"}

# Slow every phase down to tenths of a second and save often, so that a kill can hit any phase.
SCRIPT = """
import sys, time
from pathlib import Path
from interruption import shuffled
from mlperf.data.prepare import row_file, shuffle, work_folder
from mlperf.data.prepare.pipeline import prepare
from mlperf.data.text import blocks
blocks.BLOCK_BYTES, shuffle.SMALL_BUCKET_BYTES = 8000, 8000

def slow(cls, name, seconds, before=False):
    function = getattr(cls, name)
    def slowed(*arguments):
        if before:
            time.sleep(seconds)
        result = function(*arguments)
        time.sleep(seconds)
        return result
    setattr(cls, name, slowed)

slow(shuffle.SpillFile, "append", 0.006)
slow(row_file.RowFile, "append", 0.006)
slow(shuffle.BucketPermuter, "write_bucket", 0.04)
slow(work_folder.WorkFolder, "remove_temporary", 0.3, before=True)
slow(work_folder.WorkFolder, "publish", 0.2, before=True)
raw, processed, randomize = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
prepare(shuffled(raw, processed, randomize=randomize, checkpoint_seconds=0.02))
"""


@pytest.mark.slow
@pytest.mark.parametrize("randomize", ["total", "none"])
def test_preparation_killed_at_random_moments_ends_with_the_same_bytes(
    randomize: str, raw: Path, tmp_path: Path, small_pieces: None
) -> None:
    """Killed twice in each phase, in turn; started from the beginning if the phase is already over."""
    prepare(shuffled(raw, tmp_path / "whole", randomize=randomize))
    expected = result(tmp_path / "whole")
    draw = random.Random(randomize)
    processed = tmp_path / "out" / "x"
    processed.parent.mkdir()
    command = [sys.executable, "-c", SCRIPT, str(raw), str(processed), randomize]
    phases = ["text", "publish"] if randomize == "none" else ["text", "permute", "split", "publish"]
    stopped_in: list[str] = []
    for target in 2 * phases:
        if phase(processed) in phases[phases.index(target) + 1 :]:
            subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, check=True)
            assert result(processed) == expected
            shutil.rmtree(processed.parent)
            processed.parent.mkdir()
        with subprocess.Popen(
            command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            while phase(processed) != target and process.poll() is None:
                time.sleep(0.002)
            time.sleep(draw.uniform(0, 0.15))
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        stopped_in.append(phase(processed))
        found = open_prepared(processed)
        assert found is None or result(processed) == expected
    assert set(phases) <= set(stopped_in), stopped_in
    subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, check=True)
    assert result(processed) == expected
    names = {path.name for path in processed.parent.iterdir()}
    assert names == {"x_train.bin", "x_test.bin", "x_val.bin", "x.json", "x.ids"}


@pytest.mark.parametrize("phase", ["text", "permute", "split", "publish"])
@pytest.mark.parametrize("randomize", ["total", "day", "none"])
def test_preparation_stopped_at_a_checkpoint_continues_from_it(
    phase: str, randomize: str, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    """Stopped at the first checkpoint of a phase, then continued and stopped at the next one, if there is one."""
    settings = shuffled(raw, tmp_path / "x", randomize=randomize)
    for saves in (1, 2):
        with killed_after_saves(monkeypatch, phase, saves):
            try:
                # A checkpoint is due after every block and every bucket.
                prepare(replace(settings, checkpoint_seconds=0.0))
            except Killed:
                assert open_prepared(tmp_path / "x") is None
    prepare(settings)
    prepare(shuffled(raw, tmp_path / "whole", randomize=randomize))
    assert result(tmp_path / "x") == result(tmp_path / "whole")


@pytest.mark.parametrize("moves", [0, 1, 2, 3])
def test_preparation_stopped_while_moving_files_continues(
    moves: int, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    with killed_after_moves(monkeypatch, moves), pytest.raises(Killed):
        prepare(shuffled(raw, tmp_path / "x"))
    assert open_prepared(tmp_path / "x") is None
    prepare(shuffled(raw, tmp_path / "x"))
    prepare(shuffled(raw, tmp_path / "whole"))
    assert result(tmp_path / "x") == result(tmp_path / "whole")
