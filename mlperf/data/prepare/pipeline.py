"""Prepare raw Criteo text: binary files of the splits and their manifest. Does not import torch.

Its phases are: read the text ("text"), shuffle the training rows ("permute"), divide the last day into test and
validation rows ("split"), and move the files into place ("publish"). An interrupted preparation continues from its
last checkpoint, and the result is the same.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from mlperf.data.criteo.days import split_rows
from mlperf.data.prepare.open_prepared import open_other_program
from mlperf.data.prepare.outputs import require_other_names, require_writable_files
from mlperf.data.prepare.plan import disk_needed, find_inputs, make_plan
from mlperf.data.prepare.preparation import Preparation
from mlperf.data.prepare.publish import add_archive, publish
from mlperf.data.prepare.row_file import open_truncated
from mlperf.data.prepare.shuffle import BucketPermuter, bucket_counts
from mlperf.data.prepare.state import PreparationState
from mlperf.data.prepare.text_format import CriteoText
from mlperf.data.prepare.work_folder import WorkFolder, locked
from mlperf.data.prepared.dataset import PreparedData, describe
from mlperf.data.prepared.file_facts import FileFacts
from mlperf.data.prepared.manifest import Manifest
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.data.prepared.raw_files import gzipped, raw_files, text_name
from mlperf.data.schema import CRITEO
from mlperf.settings.dataset import PreparationSettings
from mlperf.util.crc32 import file_crc32
from mlperf.util.errors import RunError
from mlperf.util.failures import continued_by, system_failures
from mlperf.util.parallel import Portions

_log = logging.getLogger(__name__)


def prepare(settings: PreparationSettings) -> PreparedData:
    """Prepare the data, or return data prepared earlier with the same flags from the same inputs.

    An interrupted preparation continues where possible. Raises RunError, with file, row and column, if the text is
    invalid; then no prepared data is left. Raises UsageError if a name is that of a folder.
    """
    paths = DatasetPaths.from_name(settings.processed_data_file)
    with system_failures(paths.prefix, "the data cannot be prepared"):
        raw_files(settings.raw_data_file, settings.data_set)
        require_other_names(paths, settings.raw_data_file)
        foreign = open_other_program(paths, settings.raw_data_file)
        if foreign is not None:  # never overwrite it: preparing it may have taken days
            return foreign
        if (manifest := _finished_without_inputs(settings, paths)) is not None:
            return describe(paths, manifest)
        inputs = find_inputs(settings)
        facts = [FileFacts.of(path) for path in inputs]
        # Try without the lock: finished data may be in a read-only folder.
        manifest = None if paths.work_folder.exists() else _finished(settings, paths, facts)
        if manifest is None or _lacks_archive(settings, paths):
            require_writable_files(paths, archive=settings.write_npz)
            paths.prefix.parent.mkdir(parents=True, exist_ok=True)
            with locked(paths):
                manifest = _finished(settings, paths, facts)
                if manifest is None:
                    _check_archive(settings, paths)
                    _log_replacement(settings, paths, facts)
                    with continued_by("the same command continues the preparation"):
                        manifest = _BinaryPreparation(settings, paths, inputs, facts).run()
                elif _lacks_archive(settings, paths):
                    add_archive(paths, manifest, WorkFolder(paths))
                WorkFolder(paths).remove()
        return describe(paths, manifest)


def _finished(settings: PreparationSettings, paths: DatasetPaths, facts: list[FileFacts]) -> Manifest | None:
    """Return the manifest if the data is already prepared with these settings, else None. RunError if damaged."""
    manifest = Manifest.read(paths.manifest)
    if manifest is None or not manifest.files_complete(paths):
        return None
    if (manifest.flags, manifest.inputs) != (settings.flags(), facts):
        return None
    problem = manifest.find_problem(paths)
    # If the work folder exists, a preparation was killed while it moved its files into place.
    if problem is not None and not paths.work_folder.exists():
        raise RunError(problem)
    return manifest if problem is None else None


def _finished_without_inputs(settings: PreparationSettings, paths: DatasetPaths) -> Manifest | None:
    """Return the manifest of data prepared with these settings if its raw text was removed, otherwise None."""
    names = raw_files(settings.raw_data_file, settings.data_set)
    manifest = None if paths.work_folder.exists() else Manifest.read(paths.manifest)
    if manifest is None or manifest.flags != settings.flags() or not manifest.files_complete(paths):
        return None
    recorded = [text_name(facts.name) for facts in manifest.inputs]
    requested = [text_name(path.name) for path in names]
    removed = not any(path.exists() or gzipped(path).exists() for path in names)
    if not removed or recorded != requested or _lacks_archive(settings, paths):
        return None
    if problem := manifest.find_problem(paths):
        raise RunError(problem)
    _log.warning("%s: no such file any more; using the data prepared from it", settings.raw_data_file)
    return manifest


def _log_replacement(settings: PreparationSettings, paths: DatasetPaths, facts: list[FileFacts]) -> None:
    """Log why data that is already prepared is replaced."""
    manifest = Manifest.read(paths.manifest)
    if manifest is None or not manifest.files_complete(paths):
        return
    flags, reasons = settings.flags(), []
    if changed := [name for name in flags if manifest.flags.get(name) != flags[name]]:
        reasons.append(", ".join(f"--{name.replace('_', '-')}={manifest.flags.get(name)}" for name in changed))
    if manifest.inputs != facts:
        known = {fact.name: fact for fact in manifest.inputs}
        changed_files = [fact.name for fact in facts if known.get(fact.name, fact) != fact]
        reasons.append(f"another {changed_files[0]}" if changed_files else f"other raw data ({next(iter(known))})")
    if reasons:
        _log.warning("%s: was prepared with %s; preparing it again", paths.split("train"), " and ".join(reasons))


def _lacks_archive(settings: PreparationSettings, paths: DatasetPaths) -> bool:
    return settings.write_npz and not paths.archive.is_file()


def _check_archive(settings: PreparationSettings, paths: DatasetPaths) -> None:
    """Raise RunError if X.npz is to be written but one of another tool exists."""
    manifest = Manifest.read(paths.manifest)
    if settings.write_npz and paths.archive.exists() and (manifest is None or manifest.archive is None):
        raise RunError(
            f"{paths.archive}: was not written by this program and is not overwritten; move it, or pass "
            "--mlperf-bin-loader to write no archive"
        )


class _BinaryPreparation(Preparation[Manifest]):
    """A preparation of the binary files of the splits."""

    def __init__(
        self, settings: PreparationSettings, paths: DatasetPaths, inputs: list[Path], facts: list[FileFacts]
    ) -> None:
        self._paths = paths
        plan = make_plan(settings, inputs)
        training = list(plan.row_bytes[:-1])
        buckets = bucket_counts([sum(training)] if settings.randomize == "total" else training)
        super().__init__(settings, plan, facts, WorkFolder(paths), buckets, CriteoText(settings))

    def _disk_needed(self) -> int:
        return disk_needed(self._plan, self._settings)

    def _phase_after_text(self) -> str:
        return "split" if self._settings.randomize == "none" else "permute"

    def _finish(self, state: PreparationState) -> Manifest:
        """Shuffle the training rows, divide the last day, and move the files into place."""
        if state.phase == "permute":
            self._permute(state)
        if state.phase == "split":
            self._split(state)
        return publish(self._settings, self._paths, self._facts, self._work, state)

    def _permute(self, state: PreparationState) -> None:
        work, settings = self._work, self._settings
        permuter = BucketPermuter(work.spill, work.part("train"), self._buckets, settings.seed, state.buckets)
        try:
            buckets = Portions(permuter.remaining())
            while not buckets.exhausted:
                permuter.write(buckets.portion(self._seconds_to_checkpoint()), self._threads)
                state.buckets = permuter.checksums
                if not buckets.exhausted:
                    self._checkpoint(state)
            state.train_crc32 = permuter.checksum()
            state.train_rows = permuter.rows
        finally:
            permuter.close()
        state.phase, state.buckets = "split", None
        self._checkpoint(state)  # this state does not need the temporary files
        work.remove_temporary()

    def _split(self, state: PreparationState) -> None:
        """Copy the second half of the last day to val. `publish` truncates the test file later."""
        last_day = self._work.part("test")
        cut = split_rows(state.rows_per_day)["test"] * CRITEO.row_bytes
        with last_day.open("rb") as source, os.fdopen(open_truncated(self._work.part("val"), 0), "wb") as target:
            source.seek(cut)
            shutil.copyfileobj(source, target, 1 << 22)
        state.checksums = {
            "train": state.train_crc32,
            "test": file_crc32(last_day, 0, cut),
            "val": file_crc32(last_day, cut),
        }
        state.phase = "publish"
        self._checkpoint(state)
