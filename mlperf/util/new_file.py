"""Files that never replace an older one: the log of a run must survive later runs and runs beside it."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


def numbered(path: Path) -> Iterator[Path]:
    """Yield `path`, then the same name with _2, _3, ... before its suffix."""
    yield path
    for number in itertools.count(2):
        yield path.with_stem(f"{path.stem}_{number}")


def open_new(path: Path) -> TextIO:
    """Create a text file (UTF-8) for writing. FileExistsError if it has content, or another process writes it.

    An existing empty file is used, and devices and pipes are opened; OSError for a pipe that no program reads. The
    open file is locked, so that of several processes only one gets it.
    """
    try:
        file = path.open("x", encoding="utf-8")
        is_ours = True
    except FileExistsError:
        if path.exists() and not path.is_file():
            return _open_special(path)
        file = path.open("a", encoding="utf-8")
        is_ours = False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = is_ours or os.fstat(file.fileno()).st_size == 0
    except BlockingIOError:
        is_ours = False
    except OSError:
        pass  # a file system without locks: the file is ours only if this process created it
    if not is_ours:
        file.close()
        raise FileExistsError(f"{path} exists")
    return file


def _open_special(path: Path) -> TextIO:
    """Open a device or a pipe. Opening a pipe that no program reads would wait for a reader."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        raise OSError(errno.ENXIO, "a pipe or socket that no program reads", str(path)) from None
    os.set_blocking(descriptor, True)
    return open(path, "w", encoding="utf-8", opener=lambda name, flags: descriptor)
