"""Temporary files and folders with unique names beside the file that they become.

Their names contain the process id and random digits, so processes in different containers do not share them. The
process that writes one holds a lock (flock) on it, and the system releases the lock when the process ends: one
without a lock is left over, and is removed by the next process that writes to the same path. On NFS the lock holds
between clients, unless the file system is mounted with `nolock` or `local_lock`. Where locks are not supported,
left-over files stay.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mlperf.util.locking import is_file_at

_NAME_BYTES = 255  # if the file system does not state its limit
_RANDOM_PART = r"\.[0-9]+\.[0-9a-f]{8}\.part"


def hidden_name(path: Path, ending: str, folder: Path | None = None) -> Path:
    """Return a hidden path in `folder`, or beside `path`: `.NAME` and the ending, e.g. `.model.pt.lock`.

    If the file system does not allow a name of that length, the end of NAME is replaced by a hash of NAME.
    """
    folder = path.parent if folder is None else folder
    try:
        limit = os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError):
        limit = _NAME_BYTES
    name = path.name
    room = limit - len(f".{ending}")
    if len(os.fsencode(name)) > room:
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        while len(os.fsencode(name)) > room - len(digest):
            name = name[:-1]
        name += digest
    return folder / f".{name}{ending}"


def is_temporary(path: Path) -> bool:
    """Return whether a name is one of `new_temporary` or `new_temporary_folder`."""
    return re.fullmatch(rf"\..+{_RANDOM_PART}", path.name, re.DOTALL) is not None


@contextmanager
def new_temporary(path: Path, folder: Path | None = None) -> Iterator[tuple[Path, BinaryIO]]:
    """Create a file that is to become `path`, in `folder` or beside `path`; yield its path and the open file.

    If it still has its temporary name at the end of the `with` block, it is removed.
    """
    remove_left_over(path, folder)
    temporary, descriptor = _create(path, folder)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield temporary, file
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_temporary_folder(path: Path) -> Iterator[Path]:
    """Create a folder beside `path`; yield it. If it exists at the end of the `with` block, it is removed."""
    remove_left_over(path)
    folder, descriptor = _create(path, None, is_folder=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def remove_left_over(path: Path, folder: Path | None = None) -> None:
    """Remove temporary files and folders of dead processes that were to become `path`."""
    folder = path.parent if folder is None else folder
    pattern = _pattern(path, folder)
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        if pattern.fullmatch(name):
            with suppress(OSError):
                _remove_if_unlocked(folder / name)


def _create(path: Path, folder: Path | None, *, is_folder: bool = False) -> tuple[Path, int]:
    """Create and lock a file or folder; return its path and descriptor."""
    while True:
        temporary = hidden_name(path, f".{os.getpid():07}.{secrets.token_hex(4)}.part", folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            if is_folder:
                temporary.mkdir()
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, 0o666)
        except FileExistsError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = is_file_at(temporary, descriptor)
        except BlockingIOError:
            is_ours = False
        except OSError:
            is_ours = True  # a file system without locks
        if is_ours:
            return temporary, descriptor
        os.close(descriptor)  # another process took it for left over, between the two calls


def _pattern(path: Path, folder: Path) -> re.Pattern[str]:
    """Return the pattern of the temporary names of `path`, those of earlier versions included."""
    ending = ".0000000.00000000.part"
    beginnings = {hidden_name(path, ending, folder).name.removesuffix(ending), f".{path.name}"}
    return re.compile(f"({'|'.join(map(re.escape, beginnings))}){_RANDOM_PART}", re.DOTALL)


def _remove_if_unlocked(path: Path) -> None:
    """Remove a file or folder unless a process holds a lock on it. OSError if that cannot be found out."""
    is_folder = stat.S_ISDIR(os.lstat(path).st_mode)
    access = os.O_RDONLY | os.O_DIRECTORY if is_folder else os.O_RDWR
    descriptor = os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not is_file_at(path, descriptor):
            return
        if stat.S_ISREG(mode):
            path.unlink()
        elif stat.S_ISDIR(mode):
            shutil.rmtree(path)
    finally:
        os.close(descriptor)
