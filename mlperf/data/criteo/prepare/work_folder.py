"""The folder a preparation works in, and the state in it that an interrupted one goes on from."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlperf.data.criteo.prepare.id_mapping import IdMapper
from mlperf.data.criteo.prepare.shuffle import EXTENT_BYTES, index_path
from mlperf.data.criteo.prepared.manifest import checksum
from mlperf.data.criteo.prepared.paths import SPLITS, DatasetPaths
from mlperf.data.schema import ROW_BYTES, TABLES
from mlperf.util.files import move_into_place, sync, write_atomically, write_fully
from mlperf.util.locking import exclusive

_VERSION = 2


@dataclass
class State:
    """How far a preparation has come, as of the last checkpoint; what the files hold beyond that is cut off.

    phase: "text", "permute", "split" or "publish". file, offset: the next byte of text to read; line, row: the
    lines and the good rows of that file before it. rows_per_day: rows that stay. bad: of each file, how many rows
    are bad for each reason. spill_rows, spill_extents, train_rows, train_crc32, evaluation_rows: what the files
    hold. ids: the distinct ids per column at each checkpoint. buckets: CRC-32 of those written, else None.
    """

    phase: str = "text"
    file: int = 0
    offset: int = 0
    line: int = 0
    row: int = 0
    lines: int = 0
    rows_per_day: list[int] = field(default_factory=list)
    bad: dict[str, dict[str, int]] = field(default_factory=dict)
    spill_rows: int = 0
    spill_extents: int = 0
    train_rows: int = 0
    train_crc32: int = 0
    evaluation_rows: int = 0
    ids: list[list[int]] = field(default_factory=list)
    buckets: list[int | None] | None = None
    checksums: dict[str, int] = field(default_factory=dict)


class WorkFolder:
    """X.preparation beside the files X_train.bin ...; it is gone when they are whole."""

    def __init__(self, place: DatasetPaths) -> None:
        self._place = place
        self.path = place.preparation
        self.spill = self.path / "shuffle"
        self._ids = self.path / "ids"
        self._temporary = (self.spill, index_path(self.spill), self._ids)
        self._state = self.path / "state.json"

    def part(self, split: str) -> Path:
        """Return the file that becomes a split; "test" holds the whole evaluation day at first."""
        return self.path / f"{split}.bin"

    def part_or_moved(self, split: str) -> Path:
        """Return the file that becomes a split, or is it already."""
        return self.part(split) if self.part(split).exists() else self._place.split(split)

    def has_state(self) -> bool:
        """Say whether a preparation, this one or another, left a state."""
        return self._state.exists()

    def load(self, identity: dict[str, Any]) -> State | None:
        """Return the state of this very preparation, None if there is none, or nothing whole to go on from.

        identity: what decides the result.
        """
        try:
            found = json.loads(self._state.read_text(encoding="utf-8"))
            if found.pop("crc32") != checksum(found) or found["version"] != _VERSION:
                return None
            if found["identity"] != json.loads(json.dumps(identity)):
                return None
            state = State(**found["state"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        return state if self._holds_files_of(state) else None

    def _holds_files_of(self, state: State) -> bool:
        """Whether the files are there, and no shorter than the state says."""
        day = state.rows_per_day[-1]
        if state.phase == "publish":
            rows = {"train": state.train_rows, "test": (day + 1) // 2, "val": day // 2}
            least = {self.part_or_moved(split): rows[split] * ROW_BYTES for split in SPLITS}
        else:
            train = state.train_rows if state.buckets is None else state.spill_rows
            test = state.evaluation_rows if state.phase == "text" else day
            least = {self.part("train"): train * ROW_BYTES, self.part("test"): test * ROW_BYTES}
        if state.phase in ("text", "permute"):
            least[self.spill] = state.spill_rows * ROW_BYTES
            least[index_path(self.spill)] = state.spill_extents * EXTENT_BYTES
        if state.phase == "text":
            least[self._ids] = 4 * sum(state.ids[-1])
        return all((path.stat().st_size if path.is_file() else 0) >= size for path, size in least.items())

    def save(self, identity: dict[str, Any], state: State) -> None:
        """Bring what the state speaks of to the disk, then write it whole or not at all."""
        self.sync(temporary=state.phase in ("text", "permute"))
        content = {"version": _VERSION, "identity": identity, "state": asdict(state)}
        write_atomically(self._state, json.dumps({**content, "crc32": checksum(content)}))

    def sync(self, *, temporary: bool = False) -> None:
        """Bring the parts to the disk, and the spill and the snapshot too if they are still needed."""
        for file in self.path.iterdir():
            if temporary or file not in self._temporary:
                sync(file)

    def clear(self) -> None:
        """Begin with an empty folder. While it is there, nobody trains on what may be files of two results."""
        self._state.unlink(missing_ok=True)
        self.path.mkdir(parents=True, exist_ok=True)
        sync(self.path.parent)
        for file in self.path.iterdir():
            file.unlink()
        sync(self.path)

    def remove(self) -> None:
        """Remove the folder, its state first: what is left then is nothing to go on from."""
        self._state.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

    def save_ids(self, numbering: IdMapper, state: State, pool: Executor) -> None:
        """Add the ids that are new since the last checkpoint to the snapshot."""
        before = state.ids[-1] if state.ids else [0] * TABLES
        new = numbering.new_ids(before, pool)
        with self._ids.open("r+b" if self._ids.exists() else "w+b", buffering=0) as file:
            file.truncate(4 * sum(before))
            file.seek(0, os.SEEK_END)
            for ids in new:
                write_fully(file.fileno(), ids.data)
        state.ids.append(list(numbering.counts))

    def restore_ids(self, numbering: IdMapper, state: State, pool: Executor) -> None:
        """Number what the snapshot holds again."""
        if not state.ids:
            return
        stored = np.fromfile(self._ids, np.uint32, count=sum(state.ids[-1]))
        parts: list[list[Any]] = [[] for _ in range(TABLES)]
        at = 0
        before: Sequence[int] = [0] * TABLES
        for counts in state.ids:
            for table in range(TABLES):
                size = counts[table] - before[table]
                parts[table].append(stored[at : at + size])
                at += size
            before = counts
        numbering.restore(parts, pool)

    def remove_spill(self) -> None:
        """Give back the room of the shuffle and of the snapshot."""
        for path in self._temporary:
            path.unlink(missing_ok=True)

    def part_npz(self) -> Path:
        """Return the file that becomes X.npz."""
        return self.path / "rows.npz"

    def publish(self, part: Path, target: Path) -> None:
        """Move a part to its final place, unless that is done already."""
        if part.exists():
            move_into_place(part, target)


def locked(place: DatasetPaths) -> AbstractContextManager[None]:
    """Keep others from preparing into the same place. RunError if one does."""
    return exclusive(place.beside(".lock"), "another preparation is writing to this place")
