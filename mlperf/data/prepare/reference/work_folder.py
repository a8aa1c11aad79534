"""The working folder of a preparation of the reference's files. It becomes their folder when it is complete."""

from __future__ import annotations

import os
from pathlib import Path

from mlperf.benchmarks.data_sets import TERABYTE_DAYS
from mlperf.data.criteo.days import SPLITS
from mlperf.data.prepare.extents import EXTENT_BYTES, index_path
from mlperf.data.prepare.reference.npy_files import all_files
from mlperf.data.prepare.state import PreparationState
from mlperf.data.prepare.work_folder import WorkFolder
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.data.prepared.reference_manifest import MANIFEST_NAME
from mlperf.data.schema import CRITEO
from mlperf.util.files import sync

POSITION_BYTES = 4


class ReferenceWorkFolder(WorkFolder):
    """FOLDER.preparation, beside FOLDER."""

    _phases_with_temporary = ("text", "scatter")

    def __init__(self, paths: DatasetPaths) -> None:
        super().__init__(paths)
        self.positions = self.path / "positions"
        self._temporary = (*self._temporary, self.positions)
        self.files = [file.name for day in all_files([0] * TERABYTE_DAYS) for file in day]

    def _parts(self) -> list[Path]:
        return [*super()._parts(), *(self.path / name for name in (*self.files, MANIFEST_NAME))]

    def _min_sizes(self, state: PreparationState) -> dict[Path, int]:
        if state.phase == "text":
            return super()._min_sizes(state)
        training, last_day = sum(state.rows_per_day[:-1]), state.rows_per_day[-1]
        sizes = {}
        if state.phase != "publish":
            sizes[self.part("test")] = last_day * CRITEO.row_bytes
        if state.phase in ("permutation", "scatter"):
            sizes[self.part("train")] = training * CRITEO.row_bytes
        if state.phase == "scatter":
            sizes[self.positions] = training * POSITION_BYTES
        if state.phase in ("scatter", "gather"):
            sizes[self.spill] = state.spill_rows * CRITEO.row_bytes
            sizes[index_path(self.spill)] = state.spill_extents * EXTENT_BYTES
        if state.phase == "gather" and state.parts is None:
            return sizes
        days = {"gather": 1, "last day": 1, "publish": 0}.get(state.phase)
        written = [] if days is None else all_files(state.rows_per_day)[: len(state.rows_per_day) - days]
        return {**sizes, **{self.path / file.name: file.size for day in written for file in day}}

    def discard(self, *paths: Path) -> None:
        """Remove temporary files that no saved state needs any more."""
        for path in paths:
            path.unlink(missing_ok=True)

    def rename(self, target: Path) -> None:
        """Rename the folder to `target`, which does not exist or is empty, without files of no use to the user.

        A process that is killed in between leaves its state and marker in `target`, which are ignored there.
        """
        self.remove_temporary()
        self.discard(*map(self.part, SPLITS))
        sync(self.path)
        os.replace(self.path, target)
        sync(target.parent)
        for name in (self._state.name, self._mark.name):
            (target / name).unlink(missing_ok=True)
