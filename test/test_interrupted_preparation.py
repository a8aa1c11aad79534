"""Preparations that are killed, and go on to the same bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import raw_text
from program import ROOT

from mlperf.data.criteo.manifest import Place
from mlperf.data.criteo.plan import PreparationSettings
from mlperf.data.criteo.prepare import prepare
from mlperf.data.criteo.prepared import open_prepared
from mlperf.data.criteo.work import State, WorkFolder
from mlperf.errors import RunError

DAYS = [300, 20, 250, *([40] * 20), 101]

# Slows every phase down to some tenths of a second, in pieces that are saved often: a kill hits any of them.
SCRIPT = """
import sys, time
from pathlib import Path
import mlperf.data.criteo.text as text, mlperf.data.criteo.shuffle as shuffle, mlperf.data.criteo.work as work
import mlperf.data.criteo.ingest as ingest
from mlperf.data.criteo.ordered import Stages
from mlperf.data.criteo.plan import PreparationSettings
from mlperf.data.criteo.prepare import prepare
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


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with days of text."""
    folder = tmp_path_factory.mktemp("raw")
    raw_text.write_days(folder, DAYS, seed=11)
    return folder


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the pieces as small as the script does: their number decides the permutation."""
    monkeypatch.setattr("mlperf.data.criteo.text.BLOCK_BYTES", 8000)
    monkeypatch.setattr("mlperf.data.criteo.shuffle._SMALL_BUCKET_BYTES", 8000)


def result(place: Path) -> dict[str, object]:
    """Return the bytes of the files and the manifest but for times."""
    manifest = json.loads(Path(f"{place}.json").read_text())
    for facts in manifest["files"].values():
        del facts["mtime_ns"]
    manifest["files"] = {split: {**facts, "name": ""} for split, facts in manifest["files"].items()}
    return {"manifest": manifest} | {
        split: Path(f"{place}_{split}.bin").read_bytes() for split in ("train", "test", "val")
    }


def phase(place: Path) -> str:
    """Return what a killed preparation was doing, as far as it left word of it."""
    work = WorkFolder(Place.named(place))
    if not work.path.exists():
        return "begin or end"
    state = work.path / "state.json"
    if not state.exists():
        return "text"
    return str(json.loads(state.read_text())["state"]["phase"])


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

    class Killed(BaseException):
        pass

    for times in (1, 2):
        left = times
        save, publish = WorkFolder.save, WorkFolder.publish

        def save_and_stop(self: WorkFolder, identity: dict[str, object], state: State) -> None:
            nonlocal left
            save(self, identity, state)  # noqa: B023
            left -= state.phase == stop
            if left == 0:
                raise Killed

        def publish_and_stop(self: WorkFolder, split: str, target: Path) -> None:
            nonlocal left
            publish(self, split, target)  # noqa: B023
            left -= stop.endswith(split)
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


def stop_in_text(raw: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = WorkFolder.save
    settings = PreparationSettings("terabyte", raw / "day", place, seed=7, checkpoint_seconds=0.0)

    def save_and_stop(self: WorkFolder, identity: dict[str, object], state: State) -> None:
        save(self, identity, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(WorkFolder, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(settings)
    assert phase(place) == "text"


@pytest.mark.parametrize("change", ["seed", "input", "touched"])
def test_changed_flags_or_inputs_begin_anew(
    change: str, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    days = tmp_path / "days"
    shutil.copytree(raw, days)
    stop_in_text(days, tmp_path / "x", monkeypatch)
    seed = 8 if change == "seed" else 7
    if change == "input":
        lines = (days / "day_0").read_bytes().splitlines(keepends=True)
        (days / "day_0").write_bytes(b"".join(lines[::-1]))
    elif change == "touched":
        os.utime(days / "day_5", ns=(1, 1))
    prepare(PreparationSettings("terabyte", days / "day", tmp_path / "x", seed=seed))
    prepare(PreparationSettings("terabyte", days / "day", tmp_path / "y", seed=seed))
    assert result(tmp_path / "x") == result(tmp_path / "y")


def test_full_disk_leaves_nothing_that_looks_finished_and_goes_on_later(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    stop_in_text(raw, tmp_path / "x", monkeypatch)
    settings = PreparationSettings("terabyte", raw / "day", tmp_path / "x", seed=7)

    def full(descriptor: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(RunError, match="No space left on device"):
            prepare(settings)
    assert open_prepared(tmp_path / "x") is None
    assert not list(tmp_path.glob("x_*"))
    prepare(settings)
    prepare(PreparationSettings("terabyte", raw / "day", tmp_path / "y", seed=7))
    assert result(tmp_path / "x") == result(tmp_path / "y")


def test_disk_too_small_is_said_before_with_both_figures(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    settings = PreparationSettings("terabyte", raw / "day", tmp_path / "x")
    with pytest.raises(RunError, match=r"about 0\.000\d+ GB are needed .* 0\.0001 GB are free; .*--force"):
        prepare(settings)
    assert not list(tmp_path.iterdir())
    prepare(PreparationSettings("terabyte", raw / "day", tmp_path / "x", force=True))
    assert open_prepared(tmp_path / "x") is not None
