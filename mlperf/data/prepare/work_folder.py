"""Working folder of a preparation: temporary files and the state used to resume."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mlperf.data.criteo.days import SPLITS
from mlperf.data.prepare.extents import EXTENT_BYTES, index_path
from mlperf.data.prepare.layout import CRITEO_LAYOUT, Layout
from mlperf.data.prepare.mapper import Mapper
from mlperf.data.prepare.row_file import open_truncated
from mlperf.data.prepare.state import PreparationState
from mlperf.data.prepared.manifest import json_crc32
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.util.errors import RunError
from mlperf.util.files import move_into_place, read_regular, sync, write_atomically, write_fully
from mlperf.util.locking import exclusive
from mlperf.util.temporary import is_temporary
from mlperf.util.threads import Threads

_VERSION = 2
_MARK = "This folder belongs to a preparation, which removes it when it is complete.\n"


class WorkFolder:
    """X.preparation, beside X_train.bin and the other files; removed when the preparation is complete.

    Only a folder with a marker, or with a state, is one of this program. Anything else under this name is refused
    and left as it is, and so is a folder with other files in it.
    """

    _phases_with_temporary: tuple[str, ...] = ("text", "permute")

    def __init__(self, paths: DatasetPaths, layout: Layout = CRITEO_LAYOUT) -> None:
        self._paths = paths
        self.layout = layout
        self.path = paths.work_folder
        self.spill = self.path / "shuffle"
        self._ids = self.path / "ids"
        self._temporary: tuple[Path, ...] = (self.spill, index_path(self.spill), self._ids)
        self._state = self.path / "state.json"
        self._mark = self.path / "README.txt"

    def part(self, split: str) -> Path:
        """Return the file that becomes a split; "test" contains the whole last day at first."""
        return self.path / f"{split}.bin"

    def part_or_moved(self, split: str) -> Path:
        """Return the file that becomes a split or, once it is moved into place, the split."""
        return self.part_or(self.part(split), self._paths.split(split))

    def part_or(self, part: Path, target: Path) -> Path:
        """Return a file of this folder or, once it is moved into place, its target."""
        return part if part.exists() else target

    def part_ids(self) -> Path:
        """Return the file that becomes X.ids."""
        return self.path / "rows.ids"

    def part_npz(self) -> Path:
        """Return the file that becomes X.npz."""
        return self.path / "rows.npz"

    def check(self) -> None:
        """Raise RunError if the folder is not one of this program, or contains something else than its files.

        Links to files are something else, and so are files with two names: they would be written to.
        """
        if not os.path.lexists(self.path):
            return
        if self.path.is_symlink() or not self.path.is_dir():
            raise RunError(f"{self.path}: is not a folder of a preparation; move or remove it")
        files = list(self.path.iterdir())
        for file in files:
            if not self._is_ours(file):
                raise RunError(f"{file}: is not a file of a preparation and would be lost; move or remove it")
        if files and not self._is_own():
            raise RunError(
                f"{self.path}: has neither the marker nor the state of a preparation; move or remove it"
            )

    def _is_ours(self, file: Path) -> bool:
        status = file.lstat()
        names = [self._mark, self._state, *self._temporary, *self._parts()]
        is_single = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
        return is_single and (file in names or is_temporary(file))

    def _parts(self) -> list[Path]:
        """Return the files that become the prepared files."""
        return [*map(self.part, SPLITS), self.part_npz(), self.part_ids()]

    def _is_own(self) -> bool:
        """Whether there is a marker or, in a folder of an earlier version, a state."""
        try:
            return read_regular(self._mark, len(_MARK)) == _MARK.encode()
        except OSError:
            return self._saved_content() is not None

    def has_state(self) -> bool:
        """Return whether there is a state, of this or of another preparation."""
        return self._state.exists()

    def load(self, identity: dict[str, Any]) -> PreparationState | None:
        """Return the saved state; None if it is missing, damaged or of another preparation, or files are missing.

        identity: everything that determines the result of the preparation.
        """
        content = self._saved_content()
        if content is None or content.get("identity") != json.loads(json.dumps(identity)):
            return None
        try:
            state = PreparationState(**content["state"])
            return state if self._has_files_of(state) else None
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return None

    def _saved_content(self) -> dict[str, Any] | None:
        """Return the saved state and what it belongs to; None if it is missing or damaged."""
        try:
            content: dict[str, Any] = json.loads(read_regular(self._state).decode())
            if content.pop("crc32") != json_crc32(content) or content["version"] != _VERSION:
                return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        return content

    def _has_files_of(self, state: PreparationState) -> bool:
        """Return whether the files exist and are at least as long as the state says."""
        sizes = self._min_sizes(state)
        return all((path.stat().st_size if path.is_file() else 0) >= size for path, size in sizes.items())

    def _min_sizes(self, state: PreparationState) -> dict[Path, int]:
        """Return the size that each file must have to continue from a state."""
        files = self.part_or_moved if state.phase == "publish" else self.part
        min_sizes = {files(split): size for split, size in self.layout.row_bytes(state).items()}
        if state.phase in ("text", "permute"):
            min_sizes[self.spill] = state.spill_rows * self.layout.schema.row_bytes
            min_sizes[index_path(self.spill)] = state.spill_extents * EXTENT_BYTES
        if state.phase == "text":
            min_sizes[self._ids] = self.layout.key_bytes * sum(state.ids[-1] if state.ids else [])
        return min_sizes

    def save(self, identity: dict[str, Any], state: PreparationState) -> None:
        """Flush the files that the state describes to the disk, then write the state atomically."""
        self.sync(temporary=state.phase in self._phases_with_temporary)
        content = {"version": _VERSION, "identity": identity, "state": asdict(state)}
        write_atomically(self._state, json.dumps({**content, "crc32": json_crc32(content)}))

    def sync(self, *, temporary: bool = False) -> None:
        """Flush the files to the disk, the temporary ones (shuffle and ids) only if `temporary`."""
        for file in self.path.iterdir():
            if temporary or file not in self._temporary:
                sync(file)

    def clear(self) -> None:
        """Create the folder, or empty it. RunError as from `check`.

        While the folder exists, the files beside it are rejected: they may be a mix of two preparations.
        """
        self.check()
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self._mark, _MARK)  # before the state is removed, by which an older folder is recognized
        sync(self.path.parent)
        self._remove_files(all_but=self._mark)
        sync(self.path)

    def remove(self) -> None:
        """Remove the folder, unless it contains other files."""
        if self.path.is_symlink() or not self.path.is_dir() or not self._is_own():
            return
        with suppress(OSError):
            self._remove_files()
            self.path.rmdir()

    def _remove_files(self, all_but: Path | None = None) -> None:
        """Remove our files, the state first: without it no preparation resumes from the remaining files.

        The marker is the last: until then, the folder is recognized after a kill.
        """
        files = [file for file in self.path.iterdir() if file != all_but and self._is_ours(file)]
        for file in sorted(files, key=lambda file: (file == self._mark, file != self._state)):
            file.unlink(missing_ok=True)

    def save_ids(self, mapper: Mapper, state: PreparationState, pool: Threads) -> None:
        """Append the ids added since the last checkpoint to the file of ids."""
        before = state.ids[-1] if state.ids else [0] * len(mapper.counts)
        new_ids = mapper.new_ids(before, pool)
        descriptor = open_truncated(self._ids, self.layout.key_bytes * sum(before))
        try:
            for ids in new_ids:
                write_fully(descriptor, ids.data)
        finally:
            os.close(descriptor)
        state.ids.append(list(mapper.counts))

    def restore_ids(self, mapper: Mapper, state: PreparationState, pool: Threads) -> None:
        """Restore the mapping from the saved ids."""
        if not state.ids:
            return
        tables = range(len(mapper.counts))
        saved = np.fromfile(self._ids, np.dtype(f"<u{self.layout.key_bytes}"), count=sum(state.ids[-1]))
        parts: list[list[Any]] = [[] for _ in tables]
        start = 0
        before: Sequence[int] = [0] * len(tables)
        for counts in state.ids:
            for table in tables:
                size = counts[table] - before[table]
                parts[table].append(saved[start : start + size])
                start += size
            before = counts
        mapper.restore(parts, pool)

    def remove_temporary(self) -> None:
        """Remove the files of the shuffle and of the ids."""
        for path in self._temporary:
            path.unlink(missing_ok=True)

    def publish(self, part: Path, target: Path) -> None:
        """Move a file of this folder into place, unless it is already there."""
        if part.exists():
            move_into_place(part, target)


def locked(paths: DatasetPaths) -> AbstractContextManager[None]:
    """Hold the lock of a data set. RunError if another preparation is writing it."""
    return exclusive(paths.lock, "another preparation is writing to this path")
