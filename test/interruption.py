"""Helpers for tests of interrupted preparations: stopping one as a kill would, and comparing results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from preparations import preparation

from mlperf.data.criteo.days import SPLITS
from mlperf.data.prepare.pipeline import prepare
from mlperf.data.prepare.state import PreparationState
from mlperf.data.prepare.work_folder import WorkFolder
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.settings.dataset import PreparationSettings


class Killed(BaseException):
    """Ends a preparation like a kill: nothing is cleaned up."""


def shuffled(raw: Path, processed: Path, seed: int = 7, **flags: object) -> PreparationSettings:
    """Return the settings of a preparation with all training rows shuffled."""
    return preparation(raw / "day", processed, seed=seed, **{"randomize": "total", **flags})


def result(processed: Path) -> dict[str, object]:
    """Return the bytes of the binary files, and the manifest without names and times."""
    manifest = json.loads(Path(f"{processed}.json").read_text())
    del manifest["manifest_crc32"]  # depends on the times
    for facts in (*manifest["files"].values(), manifest["ids"]):
        del facts["mtime_ns"], facts["name"]
    contents = {split: Path(f"{processed}_{split}.bin").read_bytes() for split in SPLITS}
    return {"manifest": manifest, "ids": Path(f"{processed}.ids").read_bytes(), **contents}


def phase(processed: Path) -> str:
    """Return the phase of the last checkpoint of a stopped preparation."""
    work = WorkFolder(DatasetPaths.from_name(processed))
    if not work.path.exists():
        return "not running"
    state = work.path / "state.json"
    if not state.exists():
        return "text"
    return str(json.loads(state.read_text())["state"]["phase"])


@contextmanager
def killed_after_saves(monkeypatch: pytest.MonkeyPatch, phase: str, saves: int = 1) -> Iterator[None]:
    """Raise Killed in the `with` block after `saves` checkpoints of a phase."""
    save, remaining = WorkFolder.save, saves

    def save_and_stop(self: WorkFolder, identity: dict[str, object], state: PreparationState) -> None:
        nonlocal remaining
        save(self, identity, state)
        remaining -= state.phase == phase
        if remaining == 0:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(WorkFolder, "save", save_and_stop)
        yield


@contextmanager
def killed_after_moves(monkeypatch: pytest.MonkeyPatch, moves: int) -> Iterator[None]:
    """Raise Killed in the `with` block before file number `moves` + 1 is moved into place."""
    publish, remaining = WorkFolder.publish, moves

    def publish_or_stop(self: WorkFolder, part: Path, target: Path) -> None:
        nonlocal remaining
        if remaining == 0:
            raise Killed
        remaining -= part.exists()
        publish(self, part, target)

    with monkeypatch.context() as patch:
        patch.setattr(WorkFolder, "publish", publish_or_stop)
        patch.setattr(WorkFolder, "remove", lambda self: None)
        yield


def stop_at_save(settings: PreparationSettings, monkeypatch: pytest.MonkeyPatch, phase: str = "text") -> None:
    """Start a preparation and stop it at the first checkpoint of a phase."""
    with killed_after_saves(monkeypatch, phase), pytest.raises(Killed):
        prepare(replace(settings, checkpoint_seconds=0.0))


def stop_at_move(make: Callable[[], object], monkeypatch: pytest.MonkeyPatch, moves: int) -> None:
    """Call a function that prepares data and stop it after `moves` files have been moved into place."""
    with killed_after_moves(monkeypatch, moves), pytest.raises(Killed):
        make()
