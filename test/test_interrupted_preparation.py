"""Preparations that are killed, and go on to the same bytes."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from interruption import Killed, phase, result
from program import ROOT

from mlperf.data.criteo.prepare.pipeline import prepare
from mlperf.data.criteo.prepare.plan import PreparationSettings
from mlperf.data.criteo.prepare.work_folder import State, WorkFolder
from mlperf.data.criteo.prepared.dataset import open_prepared

# Slows every phase down to some tenths of a second, in pieces that are saved often: a kill hits any of them.
SCRIPT = """
import sys, time
from pathlib import Path
import mlperf.data.criteo.prepare.text_blocks as text, mlperf.data.criteo.prepare.shuffle as shuffle
import mlperf.data.criteo.prepare.work_folder as work
import mlperf.data.criteo.prepare.ingest as ingest
from mlperf.util.parallel import Stages
from mlperf.data.criteo.prepare.plan import PreparationSettings
from mlperf.data.criteo.prepare.pipeline import prepare
text.BLOCK_BYTES, shuffle._SMALL_BUCKET_BYTES = 8000, 8000

def slow(cls, name, seconds, before=False):
    function = getattr(cls, name)
    def slowed(*arguments):
        if before:
            time.sleep(seconds)
        result = function(*arguments)
        time.sleep(seconds)
        return result
    setattr(cls, name, slowed)

slow(shuffle.Spill, "add", 0.006)
slow(ingest.RowFile, "add", 0.006)
slow(shuffle.Permuter, "write_bucket", 0.04)
slow(work.WorkFolder, "remove_spill", 0.3, before=True)
slow(work.WorkFolder, "publish", 0.2, before=True)
raw, place, randomize = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
prepare(PreparationSettings("terabyte", raw, place, randomize=randomize, seed=7, checkpoint_seconds=0.02))
"""


@pytest.mark.parametrize("randomize", ["total", "day", "none"])
def test_killed_twenty_times_it_ends_with_the_same_bytes(
    randomize: str, raw: Path, tmp_path: Path, small_pieces: None
) -> None:
    """Killed at random moments of the phases in turn, and begun anew where one is over already."""
    prepare(PreparationSettings("terabyte", raw / "day", tmp_path / "whole", randomize=randomize, seed=7))
    expected = result(tmp_path / "whole")
    draw = random.Random(randomize)
    place = tmp_path / "out" / "x"
    place.parent.mkdir()
    command = [sys.executable, "-c", SCRIPT, str(raw / "day"), str(place), randomize]
    phases = ["text", "publish"] if randomize == "none" else ["text", "permute", "split", "publish"]
    seen: list[str] = []
    for target in phases * (5 if randomize == "total" else 2):
        if phase(place) in phases[phases.index(target) + 1 :]:
            assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0
            assert result(place) == expected
            shutil.rmtree(place.parent)
            place.parent.mkdir()
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            while phase(place) != target and process.poll() is None:
                time.sleep(0.002)
            time.sleep(draw.uniform(0, 0.15))
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        seen.append(phase(place))
        found = open_prepared(place)
        assert found is None or result(place) == expected
    assert all(seen.count(one) >= 2 for one in phases), seen
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0
    assert result(place) == expected
    assert {path.name for path in place.parent.iterdir()} == {"x_train.bin", "x_test.bin", "x_val.bin", "x.json"}


PHASES = ("text", "permute", "split", "publish", "published train")


@pytest.mark.parametrize("stop", PHASES)
@pytest.mark.parametrize("randomize", ["total", "none"])
def test_stopped_in_every_phase_it_goes_on_from_there(
    stop: str, randomize: str, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    """Stopped at a saved state, twice in each phase, as a kill would: nothing is cleaned up."""
    settings = PreparationSettings(
        "terabyte", raw / "day", tmp_path / "x", randomize=randomize, seed=7, checkpoint_seconds=0.0
    )
    whole = tmp_path / "whole"
    prepare(PreparationSettings("terabyte", raw / "day", whole, randomize=randomize, seed=7))

    for times in (1, 2):
        left = times
        save, publish = WorkFolder.save, WorkFolder.publish

        def save_and_stop(self: WorkFolder, identity: dict[str, object], state: State) -> None:
            nonlocal left
            save(self, identity, state)  # noqa: B023
            left -= state.phase == stop
            if left == 0:
                raise Killed

        def publish_and_stop(self: WorkFolder, part: Path, target: Path) -> None:
            nonlocal left
            publish(self, part, target)  # noqa: B023
            left -= stop.endswith(part.stem)
            if left == 0:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(WorkFolder, "save", save_and_stop)
            patch.setattr(WorkFolder, "publish", publish_and_stop)
            stopped = False
            try:
                # Each call does a little of the text: a checkpoint is due at once.
                prepare(settings)
            except Killed:
                stopped = True
        if stopped:
            assert open_prepared(tmp_path / "x") is None
    prepare(PreparationSettings("terabyte", raw / "day", tmp_path / "x", randomize=randomize, seed=7))
    assert result(tmp_path / "x") == result(whole)
