"""The folder of a run (--output-dir): which files are in it, and that no two runs share it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from mlperf.distributed.agreement import decided_by_first
from mlperf.distributed.processes import current
from mlperf.engines.choose import uses_torchrec
from mlperf.settings.config_file import settings_text
from mlperf.settings.predictions import PREDICTIONS_FILE
from mlperf.settings.run import BEST_MODEL, LAST_MODEL, LOG_FILE, METRICS_FILE, SETTINGS_FILE, TENSOR_BOARD_FOLDER
from mlperf.settings.settings import Settings
from mlperf.training.checkpoint_place import lock_of
from mlperf.util.errors import UsageError
from mlperf.util.failures import system_failures
from mlperf.util.files import write_atomically
from mlperf.util.locking import exclusive
from mlperf.util.output_files import NamedFile, require_writable_file, require_writable_folder


def in_output_folder(settings: Settings) -> Settings:
    """Return the settings with files in the folder of the run, if flags do not name other ones."""
    folder = settings.run.output_dir
    if folder is None:
        return settings
    report, compliance, save_model = settings.report, settings.compliance, settings.save_model
    if report.metrics_file is None and not settings.inference_only:
        report = replace(report, metrics_file=folder / METRICS_FILE)
    if report.tensor_board_folder == TENSOR_BOARD_FOLDER:
        report = replace(report, tensor_board_folder=folder / TENSOR_BOARD_FOLDER)
    if "mlperf_log_file" not in settings.given and not settings.inference_only:
        compliance = replace(compliance, log_file=folder / LOG_FILE)
    predictions = settings.predictions
    if predictions.file == PREDICTIONS_FILE:
        predictions = replace(predictions, file=folder / PREDICTIONS_FILE)
    if settings.keeps_best_model:
        save_model = folder / checkpoint_name(settings, BEST_MODEL)
    return replace(settings, report=report, compliance=compliance, save_model=save_model, predictions=predictions)


def checkpoint_name(settings: Settings, name: Path) -> Path:
    """Return the name of a checkpoint in the folder: engine torchrec saves folders, which have no suffix."""
    return name.with_suffix("") if uses_torchrec(settings) else name


def last_checkpoint(settings: Settings) -> Path | None:
    """Return the checkpoint of the newest weights, None if they are not saved (--checkpoint-every)."""
    folder = settings.run.output_dir
    if folder is None or settings.run.checkpoint_minutes is None:
        return None
    return folder / checkpoint_name(settings, LAST_MODEL)


def named_settings(settings: Settings) -> list[NamedFile]:
    """Return the file with the settings, and the lock of the folder."""
    folder = settings.run.output_dir
    if folder is None:
        return []
    path = folder / SETTINGS_FILE
    name = f"{path} of --output-dir={folder}"
    return [NamedFile(path, name), NamedFile(lock_of(path), f"the lock of {name}")]


@contextmanager
def output_folder_reserved(settings: Settings) -> Iterator[None]:
    """Create the folder of --output-dir, and keep other runs from writing to it. The first process does that.

    Folders that are still empty at the end are removed, if they were created. UsageError if it cannot be created,
    or has the files of another run or of another program. RunError if another run is writing to it.
    """
    folder = settings.run.output_dir
    if folder is None:
        yield
        return
    with ExitStack() as stack:
        decided_by_first(lambda: stack.enter_context(_reserved(settings, folder)))
        yield


@contextmanager
def _reserved(settings: Settings, folder: Path) -> Iterator[None]:
    require_writable_folder("--output-dir", folder)
    if folder.is_dir():
        require_writable_file(
            "--output-dir", folder / SETTINGS_FILE, shown=f"{SETTINGS_FILE} of --output-dir={folder}"
        )
    settings_text(settings)  # UsageError if it cannot be written
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    with system_failures(folder, "--output-dir: the folder cannot be created"):
        folder.mkdir(parents=True, exist_ok=True)
    lock = exclusive(
        lock_of(folder / SETTINGS_FILE), "another run writes to this folder", subject=f"--output-dir={folder}"
    )
    try:
        with lock:
            _require_own(settings, folder)
            yield
    finally:
        with suppress(OSError):  # one is not empty
            for each in new:
                each.rmdir()


def _require_own(settings: Settings, folder: Path) -> None:
    """Raise UsageError if the folder has files of another run, or of no run."""
    with system_failures(folder, "--output-dir: the folder cannot be read"):
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    has_settings = str(SETTINGS_FILE) in names
    others = [name for name in names if name != str(SETTINGS_FILE)]
    if not others or (settings.run.resume and has_settings):  # with the settings alone, no run has started
        return
    if has_settings:
        raise UsageError(
            f"--output-dir={folder}: has the files of another run; pass --resume to continue it, or name a new "
            "folder"
        )
    raise UsageError(
        f"--output-dir={folder}: contains {others[0]} and no {SETTINGS_FILE}, so it is not the folder of a run; "
        "name a new folder"
    )


def keep_settings(settings: Settings) -> None:
    """Write the settings, as they were given, to the folder of the run. The first process does that."""
    folder = settings.run.output_dir
    if folder is not None and current().is_first:
        with system_failures(folder / SETTINGS_FILE, "the settings cannot be written"):
            write_atomically(folder / SETTINGS_FILE, settings_text(settings))
