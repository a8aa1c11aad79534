"""Prepare raw text: binary files of the splits and their manifest. Does not import torch.

Its phases are: read the text ("text"), shuffle the training rows ("permute"), divide the last day into test and
validation rows ("split"), and move the files into place ("publish"). An interrupted preparation continues from its
last checkpoint, and the result is the same.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from mlperf.data.prepare.agreement import require_agreement
from mlperf.data.prepare.mapper import Mapper
from mlperf.data.prepare.open_prepared import open_other_program
from mlperf.data.prepare.outputs import require_other_names, require_writable_files
from mlperf.data.prepare.plan import disk_needed, find_inputs, make_plan
from mlperf.data.prepare.preparation import Preparation
from mlperf.data.prepare.publish import add_archive, publish
from mlperf.data.prepare.request import Request
from mlperf.data.prepare.row_file import open_truncated
from mlperf.data.prepare.shuffle import BucketPermuter, bucket_counts
from mlperf.data.prepare.state import PreparationState
from mlperf.data.prepare.work_folder import WorkFolder, locked
from mlperf.data.prepared.dataset import PreparedData, describe
from mlperf.data.prepared.file_facts import FileFacts
from mlperf.data.prepared.id_numbering import IdsWriter, is_numbering
from mlperf.data.prepared.manifest import Manifest, find_difference
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.data.prepared.raw_files import existing_text, text_name
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
        request = Request.of(settings)
        require_other_names(paths, settings.raw_data_file, request.input_files())
        foreign = open_other_program(paths, settings.raw_data_file)
        if foreign is not None:  # never overwrite it: preparing it may have taken days
            require_agreement(foreign, settings)
            return foreign
        if (manifest := _finished_without_inputs(request, paths)) is not None:
            return describe(paths, manifest)
        inputs = find_inputs(request)
        facts = [FileFacts.of(path) for path in inputs]
        # Try without the lock: finished data may be in a read-only folder.
        manifest = None if paths.work_folder.exists() else _finished(request, paths, facts)
        if manifest is None or _lacks_archive(settings, paths):
            require_writable_files(paths, archive=settings.write_npz)
            paths.prefix.parent.mkdir(parents=True, exist_ok=True)
            with locked(paths):
                manifest = _finished(request, paths, facts)
                if manifest is None:
                    _check_replaced(settings, paths)
                    _log_replacement(request, paths, facts)
                    with continued_by("the same command continues the preparation"):
                        manifest = _BinaryPreparation(request, paths, inputs, facts).run()
                elif _lacks_archive(settings, paths):
                    add_archive(paths, manifest, WorkFolder(paths))
                WorkFolder(paths).remove()
        return describe(paths, manifest)


def _finished(request: Request, paths: DatasetPaths, facts: list[FileFacts]) -> Manifest | None:
    """Return the manifest if the data is already prepared as requested, else None. RunError if damaged."""
    manifest = Manifest.read(paths.manifest)
    if manifest is None or not manifest.files_complete(paths):
        return None
    if request.differences(manifest) or manifest.inputs != facts:
        return None
    problem = manifest.find_problem(paths)
    if problem is None and manifest.ids is not None:
        problem = find_difference(paths.ids, manifest.ids, paths.manifest)
    # If the work folder exists, a preparation was killed while it moved its files into place.
    if problem is not None and not paths.work_folder.exists():
        raise RunError(problem)
    return manifest if problem is None else None


def _finished_without_inputs(request: Request, paths: DatasetPaths) -> Manifest | None:
    """Return the manifest of data prepared as requested if its raw text was removed, otherwise None."""
    settings, names = request.settings, request.raw_files()
    manifest = None if paths.work_folder.exists() else Manifest.read(paths.manifest)
    if manifest is None or request.differences(manifest) or not manifest.files_complete(paths):
        return None
    recorded = [text_name(facts.name) for facts in manifest.inputs]
    requested = [text_name(path.name) for path in names]
    removed = not any(existing_text(path) for path in names)
    if not removed or recorded != requested or _lacks_archive(settings, paths):
        return None
    if problem := manifest.find_problem(paths):
        raise RunError(problem)
    _log.warning("%s: no such file any more; using the data prepared from it", settings.raw_data_file)
    return manifest


def _log_replacement(request: Request, paths: DatasetPaths, facts: list[FileFacts]) -> None:
    """Log why data that is already prepared is replaced."""
    manifest = Manifest.read(paths.manifest)
    if manifest is None or not manifest.files_complete(paths):
        return
    changed = ", ".join(request.differences(manifest))
    reasons = [changed] if changed else []
    if manifest.inputs != facts and manifest.flags.get("days") == request.settings.flags().get("days"):
        known = {fact.name: fact for fact in manifest.inputs}
        changed_files = [fact.name for fact in facts if known.get(fact.name, fact) != fact]
        reasons.append(f"another {changed_files[0]}" if changed_files else f"other raw data ({next(iter(known))})")
    if reasons:
        _log.warning("%s: was prepared with %s; preparing it again", paths.split("train"), " and ".join(reasons))


def _lacks_archive(settings: PreparationSettings, paths: DatasetPaths) -> bool:
    return settings.write_npz and not paths.archive.is_file()


def _check_replaced(settings: PreparationSettings, paths: DatasetPaths) -> None:
    """Raise RunError if X.npz or X.ids is to be written but one of another program exists."""
    manifest = Manifest.read(paths.manifest)
    if settings.write_npz and paths.archive.exists() and (manifest is None or manifest.archive is None):
        raise RunError(
            f"{paths.archive}: was not written by this program and is not overwritten; move it, or pass "
            "--mlperf-bin-loader to write no archive"
        )
    if (manifest is None or manifest.ids is None) and paths.ids.exists() and not is_numbering(paths.ids):
        raise RunError(f"{paths.ids}: was not written by this program and is not overwritten; move it")


class _BinaryPreparation(Preparation[Manifest]):
    """A preparation of the binary files of the splits."""

    def __init__(self, request: Request, paths: DatasetPaths, inputs: list[Path], facts: list[FileFacts]) -> None:
        self._paths = paths
        self._request = request
        text = request.text_format(inputs)
        plan = make_plan(request, inputs, text)
        training = text.layout.training_bytes(plan.row_bytes)
        by_part = request.settings.randomize == "day"
        buckets = bucket_counts(training if by_part else [sum(training)])
        super().__init__(request, plan, facts, WorkFolder(paths, text.layout), buckets, text)

    def _disk_needed(self) -> int:
        return disk_needed(self._plan, self._request, self._layout)

    def _phase_after_text(self) -> str:
        return "split" if self._settings.randomize == "none" else "permute"

    def _keep_ids(self, mapper: Mapper) -> None:
        """Write the file that becomes X.ids."""
        columns, first_index = self._text.columns.categorical, self._settings.traits.first_index
        with os.fdopen(open_truncated(self._work.part_ids(), 0), "wb") as file:
            writer = IdsWriter(file, len(columns))
            for table, column in enumerate(columns):
                writer.write(column.kind, first_index, mapper.ids(table))
            writer.finish()

    def _finish(self, state: PreparationState) -> Manifest:
        """Shuffle the training rows, divide the last day, and move the files into place."""
        if state.phase == "permute":
            self._permute(state)
        if state.phase == "split":
            self._split(state)
        return publish(self._request, self._paths, self._facts, self._work, state)

    def _permute(self, state: PreparationState) -> None:
        work, settings = self._work, self._settings
        schema = self._layout.schema
        permuter = BucketPermuter(
            work.spill, work.part("train"), self._buckets, settings.seed, state.buckets, schema
        )
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
        """Copy the second half of the last day to val, which `publish` cuts off the test file later."""
        held_out = self._work.part("test")
        if self._layout.has_splits:
            ends: dict[str, tuple[Path, int, int | None]] = {
                "test": (held_out, 0, None),
                "val": (self._work.part("val"), 0, None),
            }
        else:
            cut = self._layout.rows(state.rows_per_day)["test"] * self._layout.schema.row_bytes
            with (
                held_out.open("rb") as source,
                os.fdopen(open_truncated(self._work.part("val"), 0), "wb") as target,
            ):
                source.seek(cut)
                shutil.copyfileobj(source, target, 1 << 22)
            ends = {"test": (held_out, 0, cut), "val": (held_out, cut, None)}
        state.checksums = {split: file_crc32(*end) for split, end in ends.items()}
        state.checksums |= {"train": state.train_crc32, "ids": file_crc32(self._work.part_ids())}
        state.phase = "publish"
        self._checkpoint(state)
