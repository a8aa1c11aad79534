"""The checkpoints of a run: the one that it loads, and the one that it saves.

Engine torchrec saves sharded checkpoints, which are folders, and loads only those. The other engines save files,
and load both.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from mlperf.distributed.agreement import decided_by_first
from mlperf.engines.choose import uses_torchrec
from mlperf.settings.settings import Settings
from mlperf.training.checkpoint_place import has_been_saved, named_place, reserved
from mlperf.training.initial_weights import is_archive_of_arrays
from mlperf.training.sharded_index import INDEX_NAME
from mlperf.util.errors import RunError, UsageError
from mlperf.util.failures import system_failures
from mlperf.util.folders import replaced_name
from mlperf.util.output_files import NamedFile, is_same_path, require_replaceable_folder, require_writable_file

_log = logging.getLogger(__name__)


def with_latest(settings: Settings) -> Settings:
    """Return the settings with the checkpoint of --save-model in place of --load-model=latest.

    Without --load-model if there is none yet. The first process decides for all.
    """
    path = settings.save_model
    if not settings.loads_latest or path is None:
        return settings
    exists = decided_by_first(lambda: _can_be_loaded(path))
    if not exists:
        _log.info("--load-model=latest: --save-model=%s does not exist yet: starting from initial weights", path)
    return replace(settings, load_model=path if exists else None)


def _can_be_loaded(path: Path) -> bool:
    with system_failures(path, "the checkpoint cannot be read"):
        return has_been_saved(path) or replaced_name(path).is_dir()


def resumes_in_place(settings: Settings) -> bool:
    """Return whether the checkpoint that is loaded is replaced by those that are saved."""
    load, save = settings.load_model, settings.save_model
    return load is not None and save is not None and is_same_path(load, save)


def replaces_another(settings: Settings) -> bool:
    """Return whether the run replaces a checkpoint from which it does not resume."""
    path = settings.save_model
    return path is not None and not resumes_in_place(settings) and has_been_saved(path)


def saved_files(settings: Settings) -> list[NamedFile]:
    """Return the checkpoint that the run saves, and its lock."""
    path = settings.save_model
    return [] if path is None else named_place("--save-model", path, is_folder=uses_torchrec(settings))


def require_writable_checkpoint(settings: Settings) -> None:
    """Raise UsageError if the checkpoint of --save-model cannot be created or replaced."""
    path = settings.save_model
    if path is None:
        return
    if uses_torchrec(settings):
        if path.is_file():
            raise UsageError(
                f"--save-model={path} is a file; engine torchrec saves a folder (tools/convert_checkpoint.py "
                "converts it to a file)"
            )
        require_replaceable_folder("--save-model", path)
    elif path.is_dir() and not path.is_symlink():
        raise UsageError(
            f"--save-model={path} is a folder; must be a file name: only engine torchrec saves folders"
        )
    else:
        require_writable_file("--save-model", path)


@contextmanager
def checkpoint_reserved(settings: Settings) -> Iterator[None]:
    """Keep other runs from saving to the same file or folder while this one does (--save-model).

    The first process does that for all. Errors as of `reserved`.
    """
    path = settings.save_model
    if path is None:
        yield
        return
    place = reserved("--save-model", path, is_loaded=resumes_in_place(settings))
    with ExitStack() as stack:
        decided_by_first(lambda: stack.enter_context(place))
        yield


def check_loaded_checkpoints(settings: Settings) -> None:
    """Raise RunError or UsageError if --load-model or --load-weights names nothing that this engine loads."""
    if settings.load_model is not None:
        _check_loaded(settings, "--load-model", settings.load_model)
    if settings.load_weights is not None:
        _check_loaded(settings, "--load-weights", settings.load_weights)


def _check_loaded(settings: Settings, flag: str, path: Path) -> None:
    with system_failures(path, "the checkpoint cannot be read"):
        is_folder, is_file = path.is_dir(), path.is_file()
        has_index = is_folder and (path / INDEX_NAME).is_file()
        is_replaced = not os.path.lexists(path) and replaced_name(path).is_dir()
        is_checkpoint = is_file and not (flag == "--load-weights" and is_archive_of_arrays(path))
    if is_replaced:
        if flag == "--load-model" and resumes_in_place(settings):  # which brings it back first
            return
        raise RunError(
            f"{flag}={path}: a run was killed while it replaced this folder; rename {replaced_name(path)} to it"
        )
    if is_folder and not has_index:
        raise UsageError(
            f"{flag}={path} is a folder without {INDEX_NAME}; must be a sharded checkpoint, or a checkpoint in a "
            f"file, such as {path / 'model.pt'}"
        )
    if not is_folder and not is_file:
        raise RunError(f"{flag}={path}: no such file")
    if is_checkpoint and uses_torchrec(settings):
        raise UsageError(
            f"{flag}={path} is a file; engine torchrec loads sharded checkpoints: convert it with "
            f"tools/convert_checkpoint.py {path} FOLDER"
        )
