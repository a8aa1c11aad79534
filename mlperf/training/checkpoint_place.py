"""The file or folder to which checkpoints are saved: reserved for one program, and never anything else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mlperf.training.checkpoint_file import is_checkpoint
from mlperf.training.sharded_index import foreign_files, is_sharded
from mlperf.util.errors import UsageError
from mlperf.util.failures import system_failures
from mlperf.util.files import has_content
from mlperf.util.folders import restore_folder
from mlperf.util.locking import exclusive
from mlperf.util.output_files import NamedFile, named, try_to_write
from mlperf.util.temporary import hidden_name


def lock_of(path: Path) -> Path:
    """Return the lock of the program that saves to `path`."""
    return hidden_name(path, ".lock")


def named_place(flag: str, path: Path, *, is_folder: bool) -> list[NamedFile]:
    """Return the checkpoint that a flag names, in which nothing else may be, and its lock."""
    place = named(flag, path, is_folder=is_folder, is_private=is_folder)
    return [*place, NamedFile(lock_of(path), f"the lock of {place[0].name}")]


def has_been_saved(path: Path) -> bool:
    """Return whether there is something that would be lost: a file or folder that is not empty."""
    return any(path.iterdir()) if path.is_dir() else has_content(path)


@contextmanager
def reserved(flag: str, path: Path, *, is_loaded: bool = False) -> Iterator[None]:
    """Keep other programs from saving to `path`, the value of `flag`. What a killed one left there is cleared up.

    is_loaded: whether the program loads the checkpoint at `path`, and finds out itself whether it is one.

    RunError if another program is saving to it. UsageError if it is not a checkpoint, because it would be lost, or
    if it cannot be written.
    """
    shown = named(flag, path)[0].name
    with ExitStack() as stack:
        with system_failures(path, "the checkpoint cannot be written"):
            if not is_loaded:
                _require_checkpoint(shown, path)
            lock = exclusive(lock_of(path), "another run saves to this file", subject=shown)
            stack.enter_context(lock)
            restore_folder(path)
            _require_nothing_else(shown, path)
        try_to_write(flag, path)
        yield


def _require_checkpoint(shown: str, path: Path) -> None:
    """Raise UsageError unless there is a checkpoint at `path`, or nothing."""
    is_folder = path.is_dir()
    if has_been_saved(path) and not (is_sharded(path) if is_folder else is_checkpoint(path)):
        raise UsageError(
            f"{shown}: exists and is not a checkpoint; name another {'folder' if is_folder else 'file'}"
        )


def _require_nothing_else(shown: str, path: Path) -> None:
    """Raise UsageError if a folder has files that are not those of a checkpoint."""
    foreign = foreign_files(path) if path.is_dir() else []
    if foreign:
        raise UsageError(f"{shown}: contains {foreign[0]}, which is not part of a checkpoint and would be lost")
