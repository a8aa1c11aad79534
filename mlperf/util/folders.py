"""Replace a folder as a whole."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mlperf.util.files import sync
from mlperf.util.temporary import hidden_name

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


def exchange_names(first: Path, second: Path) -> None:
    """Exchange the names of two files or folders in one step (renameat2 of Linux).

    OSError with EINVAL or ENOSYS if the file system (such as NFS) or the system does not support that.
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(first)) from None
    if rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(second))


def replaced_name(path: Path) -> Path:
    """Return the name of the older folder while a newer one takes its place, where names cannot be exchanged."""
    return hidden_name(path, ".replaced")


def replace_folder(source: Path, target: Path, exchange: Callable[[Path, Path], None] = exchange_names) -> None:
    """Rename the folder `source`, whose files are on disk, to `target` beside it, and remove an older `target`.

    A folder that is whole has the name `target` at any time. Only on file systems that cannot exchange two names,
    a kill between two renames leaves the older one under its `replaced_name`, from where `restore_folder` brings
    it back.
    """
    sync(source)
    if not os.path.lexists(target):
        os.rename(source, target)
        sync(target.parent)
        return
    shutil.copymode(target, source)
    older = source
    try:
        exchange(source, target)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        older = replaced_name(target)
        shutil.rmtree(older, ignore_errors=True)
        os.rename(target, older)
        os.rename(source, target)
    sync(target.parent)
    shutil.rmtree(older, ignore_errors=True)


def restore_folder(path: Path) -> None:
    """Bring back the older folder if `replace_folder` was killed between its two renames; remove its rest.

    To be called only while no other process replaces `path`. OSError if it cannot be renamed.
    """
    older = replaced_name(path)
    if not os.path.isdir(older) or os.path.islink(older):
        return
    if os.path.lexists(path):
        with suppress(OSError):
            shutil.rmtree(older)
        return
    os.rename(older, path)
    sync(path.parent)
