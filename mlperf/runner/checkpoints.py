"""The checkpoints of a run: the one that it loads, and the one that it saves.

Engine torchrec saves sharded checkpoints, which are folders, and loads only those. The other engines save files,
and load both.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from mlperf.distributed.agreement import decided_by_first
from mlperf.engines.choose import uses_torchrec
from mlperf.runner.output_folder import last_checkpoint
from mlperf.settings.settings import Settings
from mlperf.training.checkpoint_place import has_been_saved, named_place, reserved
from mlperf.training.initial_weights import is_archive_of_arrays
from mlperf.training.sharded_index import INDEX_NAME
from mlperf.util.errors import RunError, UsageError
from mlperf.util.failures import system_failures
from mlperf.util.folders import replaced_name
from mlperf.util.output_files import (
    NamedFile,
    is_same_path,
    named,
    require_replaceable_folder,
    require_writable_file,
)


def _outputs(settings: Settings) -> list[tuple[str, Path]]:
    """Return the checkpoints that the run saves, each with the flag in messages about it."""
    best, last = settings.save_model, last_checkpoint(settings)
    outputs = [] if best is None else [("--save-model", best)]
    return outputs if last is None else [*outputs, ("the newest checkpoint", last)]


def resumes_in_place(settings: Settings) -> bool:
    """Return whether the checkpoint that is loaded is replaced by those that are saved."""
    return any(_is_loaded(settings, path) for _, path in _outputs(settings))


def _is_loaded(settings: Settings, path: Path) -> bool:
    return settings.load_model is not None and is_same_path(settings.load_model, path)


def replaces_another(settings: Settings) -> bool:
    """Return whether the run replaces a checkpoint from which it does not resume."""
    path = settings.save_model
    if path is None or settings.run.resume:  # which continues the run that saved it
        return False
    return not resumes_in_place(settings) and has_been_saved(path)


def saved_files(settings: Settings) -> list[NamedFile]:
    """Return the checkpoints that the run saves, and their locks."""
    is_folder = uses_torchrec(settings)
    return [file for flag, path in _outputs(settings) for file in named_place(flag, path, is_folder=is_folder)]


def require_writable_checkpoints(settings: Settings) -> None:
    """Raise UsageError if a checkpoint of the run cannot be created or replaced."""
    for flag, path in _outputs(settings):
        shown = named(flag, path)[0].name
        if uses_torchrec(settings):
            if path.is_file():
                raise UsageError(
                    f"{shown} is a file; engine torchrec saves a folder (tools/convert_checkpoint.py converts it "
                    "to a file)"
                )
            require_replaceable_folder(flag, path)
        elif path.is_dir() and not path.is_symlink():
            raise UsageError(f"{shown} is a folder; must be a file name: only engine torchrec saves folders")
        else:
            require_writable_file(flag, path)


@contextmanager
def checkpoints_reserved(settings: Settings) -> Iterator[None]:
    """Keep other runs from saving to the same files or folders while this one does.

    The first process does that for all. Errors as of `reserved`.
    """
    with ExitStack() as stack:
        for flag, path in _outputs(settings):
            # What a run finds in its own folder is a checkpoint, if perhaps a damaged one.
            place = reserved(flag, path, is_loaded=_is_loaded(settings, path) or settings.run.resume)
            decided_by_first(partial(stack.enter_context, place))
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
