"""From raw Criteo text to the binary files: train, test and val, and their manifest. Knows no torch."""

from __future__ import annotations

import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mlperf.data.criteo.prepare import gzip_text
from mlperf.data.criteo.prepare.id_mapping import IdMapper
from mlperf.data.criteo.prepare.ingest import Ingest, RowFile
from mlperf.data.criteo.prepare.plan import PreparationSettings, disk_needed, find_inputs, make_plan
from mlperf.data.criteo.prepare.publish import add_archive, publish
from mlperf.data.criteo.prepare.shuffle import Permuter, Spill, bucket_counts
from mlperf.data.criteo.prepare.work_folder import State, WorkFolder, locked
from mlperf.data.criteo.prepared.dataset import PreparedData, described, open_other_programs
from mlperf.data.criteo.prepared.manifest import FileFacts, Manifest
from mlperf.data.criteo.prepared.paths import DatasetPaths
from mlperf.data.schema import ROW_BYTES
from mlperf.util.crc32 import file_crc32
from mlperf.util.errors import RunError
from mlperf.util.failures import system_failures
from mlperf.util.parallel import Portions, cores


def prepare(settings: PreparationSettings) -> PreparedData:
    """Prepare the data, or return what was prepared before with the same flags from the same inputs.

    An interrupted preparation goes on where it can; the result is the same. RunError names file, row and column
    of what is wrong in the text; nothing that looks finished is left then.
    """
    place = DatasetPaths.named(settings.processed_data_file)
    with system_failures(place.prefix, "the data cannot be prepared"):
        place.prefix.parent.mkdir(parents=True, exist_ok=True)
        foreign = open_other_programs(place, settings.raw_data_file)
        if foreign is not None:  # another program's work, which is days of it: used, and never overwritten
            return foreign
        inputs = find_inputs(settings)
        facts = [FileFacts.of(path) for path in inputs]
        # What is finished may stand where nothing can be written, not even a lock.
        manifest = None if place.preparation.exists() else _finished(settings, place, facts)
        if manifest is None or _lacks_archive(settings, place):
            with locked(place):
                manifest = _finished(settings, place, facts)
                if manifest is None:
                    _spare_archive(settings, place)
                    manifest = _Preparation(settings, place, inputs, facts).run()
                elif _lacks_archive(settings, place):
                    add_archive(place, manifest, WorkFolder(place))
                WorkFolder(place).remove()
        return described(place, manifest)


def _finished(settings: PreparationSettings, place: DatasetPaths, facts: list[FileFacts]) -> Manifest | None:
    """Return the manifest if what is asked for is at the place. RunError if that is damaged."""
    manifest = Manifest.read(place.manifest)
    if manifest is None or not manifest.is_finished(place):
        return None
    if (manifest.flags, manifest.inputs) != (settings.flags(), facts):
        return None
    problem = manifest.problem(place)
    if problem is not None and not place.preparation.exists():  # else one was killed among its last moves
        raise RunError(problem)
    return manifest if problem is None else None


def _lacks_archive(settings: PreparationSettings, place: DatasetPaths) -> bool:
    return settings.write_npz and not place.archive.is_file()


def _spare_archive(settings: PreparationSettings, place: DatasetPaths) -> None:
    """RunError if another program's X.npz stands where one is to be written."""
    manifest = Manifest.read(place.manifest)
    if settings.write_npz and place.archive.exists() and (manifest is None or manifest.archive is None):
        raise RunError(
            f"{place.archive}: not of this program, and not overwritten: move it away, or ask for none with "
            "--mlperf-bin-loader"
        )


class _Preparation:
    """One preparation, from wherever the last process that worked on it was stopped."""

    def __init__(
        self, settings: PreparationSettings, place: DatasetPaths, inputs: list[Path], facts: list[FileFacts]
    ) -> None:
        self._settings = settings
        self._place = place
        self._facts = facts
        self._work = WorkFolder(place)
        self._threads = cores()
        self._plan = make_plan(settings, inputs)
        self._buckets = bucket_counts(self._group_bytes())
        self._identity: dict[str, Any] = {
            "flags": settings.flags(),
            "inputs": [[fact.name, fact.size, fact.mtime_ns] for fact in facts],
            "buckets": self._buckets,
        }
        self._saved = time.monotonic()

    def run(self) -> Manifest:
        """Do what is left of the four phases, one after the other."""
        state = self._work.load(self._identity)
        if state is None:
            self._check_disk()
            if self._work.has_state():
                print(f"{self._work.path}: of another preparation, or damaged; begun anew", file=sys.stderr)
            unpacked = [path.name for path in self._plan.inputs if path.with_name(f"{path.name}.gz").is_file()]
            if unpacked:
                print(f"both there, read as unpacked and not the .gz: {', '.join(unpacked)}", file=sys.stderr)
            zipped = [path.name for path in self._plan.inputs if path.suffix == ".gz"]
            if zipped and (advice := gzip_text.advice()):
                print(f"{', '.join(zipped)}: {advice}", file=sys.stderr)
            self._work.clear()
            state = State(rows_per_day=[0] * self._plan.days)
        else:
            print(f"going on with the preparation in {self._work.path}", file=sys.stderr)
        try:
            if state.phase == "text":
                self._read_text(state)
            if state.phase == "permute":
                self._permute(state)
            if state.phase == "split":
                self._split(state)
            return publish(self._settings, self._place, self._facts, self._work, state)
        except RunError:  # not a matter of trying again
            self._work.remove()
            raise

    def _group_bytes(self) -> list[int]:
        """Return the size of each group of rows that is permuted in itself."""
        training = self._plan.row_bytes[:-1]
        return [sum(training)] if self._settings.randomize == "total" else list(training)

    def _check_disk(self) -> None:
        needed = disk_needed(self._plan, self._settings)
        old = sum(file.stat().st_size for file in self._work.path.rglob("*")) if self._work.path.exists() else 0
        free = shutil.disk_usage(self._place.prefix.parent).free + old
        if needed > free and not self._settings.force:
            raise RunError(
                f"{self._place.prefix.parent}: about {needed / 1e9:,.3g} GB are needed to prepare the data and "
                f"{free / 1e9:,.3g} GB are free; tools/prepare_criteo.py --force begins all the same"
            )

    def _read_text(self, state: State) -> None:
        settings, work = self._settings, self._work
        numbering = IdMapper()
        train: RowFile | Spill
        with ThreadPoolExecutor(self._threads) as pool:
            work.restore_ids(numbering, state, pool)
            evaluation = RowFile(work.part("test"), state.evaluation_rows)
            if settings.randomize == "none":
                train = RowFile(work.part("train"), state.train_rows, state.train_crc32)
            else:
                rows, extents = state.spill_rows, state.spill_extents
                train = Spill(work.spill, self._buckets, settings.seed, rows=rows, extents=extents)
            ingest = Ingest(settings, self._plan, state, numbering, train, evaluation)
            try:
                while not ingest.finished:
                    ingest.run(self._seconds_left(), self._threads)
                    if isinstance(train, Spill):
                        train.flush()
                    state.evaluation_rows = evaluation.rows
                    if isinstance(train, Spill):
                        state.spill_rows, state.spill_extents = train.rows, train.extents
                    else:
                        state.train_rows, state.train_crc32 = train.rows, train.checksum
                    if not ingest.finished:
                        work.save_ids(numbering, state, pool)
                        self._save(state)
            finally:
                ingest.close()
                train.close()
                evaluation.close()
        self._check_inputs()
        self._check_splits(state)
        state.ids = [list(numbering.counts)]
        state.phase = "split" if settings.randomize == "none" else "permute"

    def _seconds_left(self) -> float:
        """Return the time to the next checkpoint. In a phase that ends before, none is made: it costs more."""
        return self._saved + self._settings.checkpoint_seconds - time.monotonic()

    def _save(self, state: State) -> None:
        self._work.save(self._identity, state)
        self._saved = time.monotonic()

    def _check_inputs(self) -> None:
        """What is still being copied or unpacked grows while it is read."""
        for path, facts in zip(self._plan.inputs, self._facts, strict=True):
            if FileFacts.of(path) != facts:
                raise RunError(f"{path}: changed while it was read; begin again when it is complete")

    def _check_splits(self, state: State) -> None:
        settings = self._settings
        causes = [f"--data-sub-sample-rate={settings.sub_sample_rate}"] if settings.sub_sample_rate else []
        causes += ["--bad-rows=skip"] if state.bad else []
        for split, rows in (("training", sum(state.rows_per_day[:-1])), ("test", state.rows_per_day[-1])):
            if rows == 0:
                raise RunError(
                    f"{settings.raw_data_file}: no rows are left for the {split} split by {' and '.join(causes)}"
                )

    def _permute(self, state: State) -> None:
        work, settings = self._work, self._settings
        permuter = Permuter(work.spill, work.part("train"), self._buckets, settings.seed, state.buckets)
        try:
            left = Portions(permuter.left())
            while not left.ended:
                permuter.write(left.portion(self._seconds_left()), self._threads)
                state.buckets = permuter.checksums
                if not left.ended:
                    self._save(state)
            state.train_crc32 = permuter.checksum()
            state.train_rows = sum(permuter.rows_of(bucket) for bucket in range(len(permuter.checksums)))
        finally:
            permuter.close()
        state.phase, state.buckets = "split", None
        self._save(state)  # from here on nothing needs what is removed
        work.remove_spill()

    def _split(self, state: State) -> None:
        """Give the second half of the evaluation day to val; until that is on the disk, test keeps it too."""
        work = self._work
        day, rows = work.part("test"), state.rows_per_day[-1]
        cut = (rows + 1) // 2 * ROW_BYTES
        with day.open("rb") as source, work.part("val").open("wb") as target:
            source.seek(cut)
            shutil.copyfileobj(source, target, 1 << 22)
        checksums = {"train": state.train_crc32, "test": file_crc32(day, 0, cut), "val": file_crc32(day, cut)}
        state.checksums = checksums
        state.phase = "publish"
        self._save(state)
