"""Shared by the tests of interrupted preparations: an end like a kill, and what is compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mlperf.data.criteo.prepare.pipeline import prepare
from mlperf.data.criteo.prepare.plan import PreparationSettings
from mlperf.data.criteo.prepare.work_folder import State, WorkFolder
from mlperf.data.criteo.prepared.paths import DatasetPaths


class Killed(BaseException):
    """Ends a preparation as a kill would: nothing is cleaned up."""


def result(place: Path) -> dict[str, object]:
    """Return the bytes of the files and the manifest but for times."""
    manifest = json.loads(Path(f"{place}.json").read_text())
    del manifest["manifest_crc32"]  # of the times too
    for facts in manifest["files"].values():
        del facts["mtime_ns"]
    manifest["files"] = {split: {**facts, "name": ""} for split, facts in manifest["files"].items()}
    return {"manifest": manifest} | {
        split: Path(f"{place}_{split}.bin").read_bytes() for split in ("train", "test", "val")
    }


def phase(place: Path) -> str:
    """Return what a killed preparation was doing, as far as it left word of it."""
    work = WorkFolder(DatasetPaths.named(place))
    if not work.path.exists():
        return "begin or end"
    state = work.path / "state.json"
    if not state.exists():
        return "text"
    return str(json.loads(state.read_text())["state"]["phase"])


def stop_at_save(settings: PreparationSettings, monkeypatch: pytest.MonkeyPatch, wanted: str = "text") -> None:
    """Begin a preparation and end it at the first state of a phase that it saves."""
    save = WorkFolder.save

    def save_and_stop(self: WorkFolder, identity: dict[str, object], state: State) -> None:
        save(self, identity, state)
        if state.phase == wanted:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(WorkFolder, "save", save_and_stop)
        with pytest.raises(Killed):
            prepare(replace(settings, checkpoint_seconds=0.0))


def stop_at_move(make: Callable[[], object], monkeypatch: pytest.MonkeyPatch, moves: int) -> None:
    """Call what prepares data, and end it after so many files were moved to their places."""
    publish, left = WorkFolder.publish, moves

    def publish_and_stop(self: WorkFolder, part: Path, target: Path) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= part.exists()
        publish(self, part, target)

    with monkeypatch.context() as patch:
        patch.setattr(WorkFolder, "publish", publish_and_stop)
        patch.setattr(WorkFolder, "remove", lambda self: None)
        with pytest.raises(Killed):
            make()
