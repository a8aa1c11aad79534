"""One preparation, which continues after interruptions: reads the text and stores its rows in temporary files.

A subclass makes the prepared files of them.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import Any, Generic, TypeVar

from mlperf.data.prepare.column_facts import warn_of_missing_rows
from mlperf.data.prepare.division import ByFile
from mlperf.data.prepare.ingest import Ingest
from mlperf.data.prepare.mapper import Mapper
from mlperf.data.prepare.moments import Moments
from mlperf.data.prepare.parse import MAX_INT32
from mlperf.data.prepare.plan import Plan, require_disk
from mlperf.data.prepare.request import Request
from mlperf.data.prepare.row_file import RowFile
from mlperf.data.prepare.shuffle import SpillFile
from mlperf.data.prepare.state import PreparationState
from mlperf.data.prepare.text_format import TextFormat
from mlperf.data.prepare.work_folder import WorkFolder
from mlperf.data.prepared.file_facts import FileFacts
from mlperf.data.prepared.known_ids import KnownIds
from mlperf.data.prepared.raw_files import gzipped
from mlperf.data.text.compressed import gzip_advice
from mlperf.util.errors import RunError
from mlperf.util.threads import Threads, available_cores

_log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Preparation(ABC, Generic[Result]):
    """Started from the beginning, or continued from the state of an interrupted process.

    The training rows are stored in the order of the text with --data-randomize=none, otherwise in buckets.

    buckets: number of buckets of each group of training rows that is shuffled.
    """

    def __init__(
        self,
        request: Request,
        plan: Plan,
        facts: Sequence[FileFacts],
        work: WorkFolder,
        buckets: list[int],
        text: TextFormat,
    ) -> None:
        self._settings = request.settings
        self._plan = plan
        self._text = text
        self._layout = text.layout
        self._facts = list(facts)
        self._work = work
        self._buckets = buckets
        self._threads = available_cores()
        self._identity: dict[str, Any] = {
            **request.identity(),
            "inputs": [[fact.name, fact.size, fact.mtime_ns] for fact in facts],
            "buckets": buckets,
        }
        self._last_checkpoint = time.monotonic()

    def run(self) -> Result:
        """Run the phases that are not yet finished."""
        self._work.check()
        state = self._work.load(self._identity)
        if state is None:
            state = self._start()
        else:
            where = state.position(self._plan.inputs)
            _log.info(f"continuing the preparation in {self._work.path} from {where}")
        try:
            if state.phase == "text":
                self._read_text(state)
            return self._finish(state)
        except RunError:  # the same input would fail again: do not continue from it
            self._work.remove()
            raise

    @abstractmethod
    def _disk_needed(self) -> int:
        """Return the peak disk use in bytes."""

    @abstractmethod
    def _phase_after_text(self) -> str:
        """Return the name of the next phase."""

    @abstractmethod
    def _keep_ids(self, mapper: Mapper) -> None:
        """Store the ids of all columns, if the prepared data has them."""

    @abstractmethod
    def _finish(self, state: PreparationState) -> Result:
        """Run the phases after the text."""

    def _start(self) -> PreparationState:
        """Check the disk space, log warnings and hints about the inputs, and empty the work folder."""
        if not self._settings.force:
            self._check_resources()
        if self._work.has_state():
            _log.warning(
                f"{self._work.path}: damaged, or from a preparation with other settings or inputs; starting over"
            )
        inputs = self._plan.inputs
        both = [path.name for path in inputs if gzipped(path).is_file()]
        if both:
            _log.warning(f"the file exists with and without .gz; reading the one without: {', '.join(both)}")
        compressed = [path.name for path in inputs if path.suffix == ".gz"]
        if compressed and (advice := gzip_advice()):
            _log.info(f"{', '.join(compressed)}: {advice}")
        self._work.clear()
        parts = len(self._plan.row_bytes)
        return PreparationState(
            rows_per_day=[0] * parts,
            cut=[0] * self._layout.schema.tables if self._layout.has_splits else [],
            smallest=[MAX_INT32] * parts if self._settings.traits.keeps_negative else [],
        )

    def _check_resources(self) -> None:
        """Raise RunError if there is too little disk space."""
        work = self._work.path
        removable = sum(file.stat().st_size for file in work.rglob("*")) if work.exists() else 0
        hint = "; the first number is an estimate: pass --force to tools/prepare_criteo.py to start anyway"
        require_disk(work.parent, self._disk_needed(), "to prepare the data", removable=removable, hint=hint)

    def _read_text(self, state: PreparationState) -> None:
        work, mapper = self._work, self._text.mapper()
        moments = Moments(self._text.standardized, state.sums)
        with Threads(self._threads) as pool, ExitStack() as files:
            self._restore_ids(mapper, state, pool)
            held_out = {
                part: files.enter_context(closing(RowFile(work.part(split), rows, schema=self._layout.schema)))
                for part, (split, rows) in self._held_out(state).items()
            }
            train = files.enter_context(closing(self._training_file(state)))
            ingest = Ingest(self._settings, self._plan, state, self._text, mapper, train, held_out, moments)
            files.enter_context(closing(ingest))
            while not ingest.finished:
                ingest.run(self._seconds_to_checkpoint(), self._threads)
                state.sums = moments.state()
                if isinstance(train, SpillFile):
                    train.flush()
                    state.spill_rows, state.spill_extents = train.rows, train.extents
                else:
                    state.train_rows, state.train_crc32 = train.rows, train.checksum
                if isinstance(mapper, KnownIds):
                    state.unknown = list(mapper.unknown)
                if not ingest.finished:
                    if mapper.grows:
                        work.save_ids(mapper, state, pool)
                    self._checkpoint(state)
        self._check_inputs()
        self._check_splits(state)
        if isinstance(mapper, KnownIds):
            warn_of_missing_rows(mapper)
        state.ids = [list(mapper.counts)]
        self._keep_ids(mapper)
        state.phase = self._phase_after_text()

    def _restore_ids(self, mapper: Mapper, state: PreparationState, pool: Threads) -> None:
        if isinstance(mapper, KnownIds):
            mapper.load(pool)
            mapper.unknown = list(state.unknown) or mapper.unknown
        else:
            self._work.restore_ids(mapper, state, pool)

    def _held_out(self, state: PreparationState) -> dict[int, tuple[str, int]]:
        """Return the name and the rows of the file of each part, a day or split, that is not for training."""
        files = list(self._layout.held_out_rows(state.rows_per_day).items())
        return dict(enumerate(files, len(state.rows_per_day) - len(files)))

    def _training_file(self, state: PreparationState) -> RowFile | SpillFile:
        """Open the file of the training rows, which are stored in order or in buckets to be shuffled."""
        settings, work, schema = self._settings, self._work, self._layout.schema
        if settings.randomize == "none":
            return RowFile(work.part("train"), state.train_rows, state.train_crc32, schema)
        rows, extents = state.spill_rows, state.spill_extents
        return SpillFile(work.spill, self._buckets, settings.seed, rows=rows, extents=extents, schema=schema)

    def _seconds_to_checkpoint(self) -> float:
        """Return the time to the next checkpoint. Shorter phases write none, to save time."""
        return self._last_checkpoint + self._settings.checkpoint_seconds - time.monotonic()

    def _checkpoint(self, state: PreparationState) -> None:
        self._work.save(self._identity, state)
        self._last_checkpoint = time.monotonic()

    def _check_inputs(self) -> None:
        """Raise RunError if an input file changed while it was read: it may still be copied."""
        for path, facts in zip(self._plan.inputs, self._facts, strict=True):
            if FileFacts.of(path) != facts:
                raise RunError(f"{path}: changed while it was read; start again when it is complete")

    def _check_splits(self, state: PreparationState) -> None:
        """Raise RunError if all training rows, all test rows, or all rows of a file with bad rows were dropped."""
        settings = self._settings
        causes = [f"--data-sub-sample-rate={settings.sub_sample_rate}"] if settings.sub_sample_rate else []
        causes += ["--bad-rows=skip"] if state.bad else []
        causes += ["the split that --columns describes"] if self._layout.has_splits else []
        rows_of = self._layout.rows(state.rows_per_day)
        for split, rows in (("training", rows_of["train"]), ("test", rows_of["test"])):
            if rows == 0:
                raise RunError(
                    f"{settings.raw_data_file}: no rows are left for the {split} split by {' and '.join(causes)}"
                )
        if isinstance(self._plan.division, ByFile):
            for path, part in zip(self._plan.inputs, self._plan.division.part_of_file, strict=True):
                # Not a few bad rows, but another kind of file.
                if state.rows_per_day[part] == 0 and path.name in state.bad:
                    reasons = ", ".join(f"{count} {reason}" for reason, count in state.bad[path.name].items())
                    raise RunError(f"{path}: no rows are left of this file by {' and '.join(causes)}: {reasons}")
