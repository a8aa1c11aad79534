"""Write the reference's 72 files to a folder.

The phases after the text are: compute the permutation ("permutation"), distribute the training rows among buckets
of positions ("scatter"), write the training days bucket by bucket ("gather"), write the last day ("last day"), and
rename the working folder to the folder ("publish").
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mlperf.data.prepare.extents import read_rows_at
from mlperf.data.prepare.mapper import Mapper
from mlperf.data.prepare.outputs import require_new_folder, require_other_names
from mlperf.data.prepare.plan import MAX_ID_BYTES, find_inputs, make_plan
from mlperf.data.prepare.preparation import Preparation
from mlperf.data.prepare.reference.gather import Gather
from mlperf.data.prepare.reference.npy_files import DayWriter, all_files, file_checksum
from mlperf.data.prepare.reference.permutation import (
    MAX_ROWS,
    PIECE_ROWS,
    inverse_pieces,
    shuffled_rows,
)
from mlperf.data.prepare.reference.scatter import PositionScatter, Scatter, bucket_shift
from mlperf.data.prepare.reference.values import MAX_FLOAT_ID, convert
from mlperf.data.prepare.reference.work_folder import POSITION_BYTES, ReferenceWorkFolder
from mlperf.data.prepare.request import Request
from mlperf.data.prepare.row_file import open_truncated
from mlperf.data.prepare.state import PreparationState
from mlperf.data.prepare.work_folder import locked
from mlperf.data.prepared.file_facts import FileFacts
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.data.prepared.raw_files import raw_files
from mlperf.data.prepared.reference_manifest import ReferenceManifest
from mlperf.data.schema import CRITEO, Rows
from mlperf.settings.dataset import PreparationSettings
from mlperf.util.errors import RunError
from mlperf.util.failures import continued_by, system_failures
from mlperf.util.files import write_fully
from mlperf.util.memory import require_memory
from mlperf.util.parallel import Portions, Stages, run_in_order
from mlperf.util.progress import Progress

_SEED = 0
_BLOCK_ROWS = 1 << 13
_LAST_DAY_BYTES = 4 * (1 + CRITEO.dense_features) + 8 * CRITEO.tables  # of a row

_log = logging.getLogger(__name__)


def prepare_reference_files(settings: PreparationSettings) -> ReferenceManifest:
    """Write the files to the folder `processed_data_file`, or return what was written there earlier.

    An interrupted preparation continues. Raises RunError, with file, row and column, if the text is invalid;
    UsageError if the folder contains something else.
    """
    settings = replace(settings, randomize="none")
    folder = settings.processed_data_file
    paths = DatasetPaths(folder)
    with system_failures(folder, "the reference files cannot be prepared"):
        raw_files(settings.raw_data_file, settings.data_set)
        require_other_names(paths, settings.raw_data_file)
        inputs = find_inputs(Request(settings))
        facts = [FileFacts.of(path) for path in inputs]
        if (manifest := _finished(settings, facts)) is not None:
            return manifest
        require_new_folder(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(paths):
            manifest = _finished(settings, facts)
            if manifest is None:
                with continued_by("the same command continues the preparation"):
                    manifest = _ReferencePreparation(Request(settings), paths, inputs, facts).run()
        return manifest


def _finished(settings: PreparationSettings, facts: list[FileFacts]) -> ReferenceManifest | None:
    """Return the manifest if the files are already prepared. RunError if they are from other text, or damaged."""
    folder = settings.processed_data_file
    manifest = ReferenceManifest.read(folder)
    if manifest is None:
        return None
    if (manifest.flags, manifest.inputs) != (settings.flags(), facts):
        raise RunError(
            f"{folder}: contains files that were prepared from other text or with other flags; remove it or name "
            "another folder"
        )
    if problem := manifest.find_problem(folder):
        raise RunError(problem)
    return manifest


class _ReferencePreparation(Preparation[ReferenceManifest]):
    """A preparation of the reference's files."""

    _work: ReferenceWorkFolder

    def __init__(self, request: Request, paths: DatasetPaths, inputs: list[Path], facts: list[FileFacts]) -> None:
        self._folder = request.settings.processed_data_file
        text = request.text_format(inputs)
        plan = make_plan(request, inputs, text)
        super().__init__(request, plan, facts, ReferenceWorkFolder(paths), [], text)

    def _disk_needed(self) -> int:
        """Return the peak: while the text is read, the rows are distributed, or the last day is written."""
        training, last_day = sum(self._plan.row_bytes[:-1]), self._plan.row_bytes[-1]
        rows = training // CRITEO.row_bytes
        ids = min(4 * CRITEO.tables * (training + last_day) // CRITEO.row_bytes, MAX_ID_BYTES)
        distributed = training + POSITION_BYTES * rows
        last_files = last_day * _LAST_DAY_BYTES // CRITEO.row_bytes
        return training + last_day + max(ids, distributed, last_files)

    def _check_resources(self) -> None:
        super()._check_resources()
        _require_memory(sum(self._plan.row_bytes[:-1]) // CRITEO.row_bytes, self._folder)

    def _phase_after_text(self) -> str:
        return "permutation"

    def _keep_ids(self, mapper: Mapper) -> None:
        """Store nothing: the folder has the files of the reference only."""

    def _finish(self, state: PreparationState) -> ReferenceManifest:
        """Shuffle the training rows as the reference does, write all days, and rename the folder."""
        if state.phase == "permutation":
            self._compute_positions(state)
        if state.phase == "scatter":
            self._scatter(state)
        if state.phase == "gather":
            self._gather(state)
        if state.phase == "last day":
            self._write_last_day(state)
        return self._publish(state)

    def _compute_positions(self, state: PreparationState) -> None:
        """Write the new position of each training row, uint32."""
        work, rows = self._work, sum(state.rows_per_day[:-1])
        if rows > MAX_ROWS:
            raise RunError(f"{self._settings.raw_data_file}: more than {MAX_ROWS} training rows")
        if max(state.ids[-1]) + self._settings.traits.first_index - 1 > MAX_FLOAT_ID:
            raise RunError(f"{self._settings.raw_data_file}: a column has ids that do not fit in int32 as float32")
        self._checkpoint(state)  # the text is not read again
        work.discard(work.path / "ids")
        _require_memory(rows, self._folder)
        order = shuffled_rows(rows, _SEED)
        progress = Progress("writing positions", POSITION_BYTES * rows)
        descriptor = open_truncated(work.positions, 0)
        try:
            for positions in inverse_pieces(order, self._threads):
                write_fully(descriptor, positions.data)
                progress.add(positions.nbytes, len(positions))
        finally:
            progress.close(finished=False)  # the next phase follows at once
            os.close(descriptor)
        state.phase = "scatter"
        self._checkpoint(state)

    def _scatter(self, state: PreparationState) -> None:
        """Convert the training rows and distribute them among buckets of positions."""
        work, rows_per_day = self._work, state.rows_per_day[:-1]
        rows = sum(rows_per_day)
        target = PositionScatter(
            work.spill, rows, bucket_shift(rows), rows=state.spill_rows, extents=state.spill_extents
        )
        scatter = Scatter(
            work.part("train"), work.positions, target, rows_per_day, state.smallest, self._plan.inputs
        )
        try:
            while not scatter.finished:
                scatter.run(self._seconds_to_checkpoint(), self._threads)
                target.flush()
                state.spill_rows, state.spill_extents = target.rows, target.extents
                if not scatter.finished:
                    self._checkpoint(state)
        finally:
            scatter.close()
            target.close()
        state.phase = "gather"
        self._checkpoint(state)
        work.discard(work.part("train"), work.positions)

    def _gather(self, state: PreparationState) -> None:
        """Write the training days."""
        work, rows_per_day = self._work, state.rows_per_day
        files = all_files(rows_per_day)[:-1]
        gather = Gather(work.spill, work.path, files, bucket_shift(sum(rows_per_day[:-1])), state.parts)
        buckets = Portions(gather.remaining())
        try:
            while not buckets.exhausted:
                gather.write(buckets.portion(self._seconds_to_checkpoint()), self._threads)
                state.parts = gather.checksums
                if not buckets.exhausted:
                    self._checkpoint(state)
            state.checksums = gather.file_checksums()
        finally:
            gather.close(finished=buckets.exhausted)
        state.phase, state.parts = "last day", None
        self._checkpoint(state)
        work.remove_temporary()

    def _write_last_day(self, state: PreparationState) -> None:
        """Write the last day, whose ids keep their exact numbers."""
        rows, day = state.rows_per_day[-1], len(state.rows_per_day) - 1
        files = all_files(state.rows_per_day)[-1]
        writer = DayWriter(self._work.path, files)
        try:
            parts = _copy_day(
                self._work.part("test"), writer, rows, state.smallest[day], self._plan.inputs[day], self._threads
            )
        finally:
            writer.close()
        for file, kind in zip(files, parts, strict=True):
            state.checksums[file.name] = file_checksum(file, kind)
        state.phase = "publish"
        self._checkpoint(state)
        self._work.discard(self._work.part("test"))

    def _publish(self, state: PreparationState) -> ReferenceManifest:
        """Write the manifest and rename the working folder, which makes all files appear at once."""
        work, files = self._work, [file for day in all_files(state.rows_per_day) for file in day]
        work.sync()
        manifest = ReferenceManifest(
            flags=self._settings.flags(),
            inputs=self._facts,
            rows_per_day=state.rows_per_day,
            counts=state.ids[-1],
            smallest_integers=state.smallest,
            files=[FileFacts.of(work.path / file.name, state.checksums[file.name]) for file in files],
            bad_rows=state.bad,
        )
        manifest.write(work.path)
        work.rename(self._folder)
        return manifest


def _require_memory(rows: int, folder: Path) -> None:
    needed = POSITION_BYTES * (rows + min(rows, PIECE_ROWS))
    require_memory(needed, f"{folder}: the permutation of {rows:,} rows")


def _copy_day(
    source: Path, writer: DayWriter, rows: int, smallest: int, text: Path, threads: int
) -> Sequence[list[tuple[int, int]]]:
    """Convert the rows of a binary file and write them as a day.

    Return the number of rows and the CRC-32 of the parts of each file.
    """
    descriptor = os.open(source, os.O_RDONLY)
    parts: Sequence[list[tuple[int, int]]] = ([], [], [])

    def make_worker(stages: Stages) -> Callable[[int, int], None]:
        memory = np.empty((_BLOCK_ROWS, CRITEO.columns), np.int32)

        def copy(number: int, first: int) -> None:
            block = memory[: rows - first]
            read_rows_at(descriptor, block, first)
            convert(block, smallest, text)
            arrays = _arrays(block)
            with stages.turn(0, number):
                for kind, checksum in zip(parts, writer.write(first, arrays), strict=True):
                    kind.append((len(block), checksum))

        return copy

    try:
        run_in_order(iter(range(0, rows, _BLOCK_ROWS)), make_worker, threads=threads, stages=1)
    finally:
        os.close(descriptor)
    return parts


def _arrays(rows: Rows) -> list[npt.NDArray[np.generic]]:
    """Return the dense features, the ids as int64 and the labels of rows."""
    return [
        np.ascontiguousarray(rows[:, CRITEO.dense_columns]),
        rows[:, CRITEO.id_columns].astype(np.int64, order="C"),
        rows[:, :1].copy(),
    ]
