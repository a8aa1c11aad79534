"""Checks of the files that a program reads and writes, before it opens, creates or replaces any of them.

`require_writable_file` and `require_writable_folder` check one output. `require_distinct` compares all of them:
an output must not be an input or another output, whatever path or link names it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mlperf.util.errors import UsageError
from mlperf.util.temporary import new_temporary

_STANDARD_STREAMS = ((1, "the file of standard output"), (2, "the file of standard error"))


@dataclass(frozen=True)
class NamedFile:
    """A file that a program reads or writes. name: as in messages, such as "--save-model=model.pt".

    is_folder: an output is a folder, and may contain other outputs. is_private: nothing else may be in it.
    """

    path: Path
    name: str
    is_folder: bool = False
    is_private: bool = False


def named(flag: str, path: Path | None, **kind: bool) -> list[NamedFile]:
    """Return the file that a flag or argument names, or an empty list if the flag has no value."""
    return [] if path is None else [NamedFile(path, _shown(flag, path), **kind)]


def _shown(flag: str, path: Path) -> str:
    return f"{flag}={path}" if flag.startswith("-") else f"{flag} {path}"


def require_distinct(reads: Iterable[NamedFile], writes: Iterable[NamedFile]) -> None:
    """Raise UsageError if an output is the same file as an input or as another output, or is inside it.

    Paths are compared after links are resolved, and existing files also by device and inode, so that other
    names of the same file are recognized. Files to which standard output and standard error were redirected are
    outputs, too.
    """
    known: dict[Hashable, NamedFile] = {}
    private: dict[Hashable, NamedFile] = {}
    inputs, outputs = list(reads), list(writes)
    for file in outputs:
        if file.is_private:
            private.update(dict.fromkeys(_identities(file.path), file))
    for file in inputs:
        known.update({key: file for key in _identities(file.path) if key not in known})
        _require_outside(file, private)
    for descriptor, name in _STANDARD_STREAMS:
        known.update(dict.fromkeys(_stream_identity(descriptor), NamedFile(Path(f"/dev/fd/{descriptor}"), name)))
    for file in outputs:
        identities = _identities(file.path)
        for key in identities:
            if key in known:
                raise UsageError(f"{file.name} is the same file as {known[key].name}; name another file")
        _require_outside(file, private)
        known.update(dict.fromkeys(identities, file))
    # A folder in place of a file is left to require_writable_file, whose message says so.
    files = {key: file for key, file in known.items() if not file.is_folder and not os.path.isdir(file.path)}
    for file in outputs:
        _require_outside(file, files)


def require_writable_file(flag: str, path: Path, *, shown: str | None = None, allow_streams: bool = False) -> None:
    """Raise UsageError if a file cannot be created, or replaced, at `path`. Nothing is created.

    Links, folders, devices and pipes are never replaced. allow_streams: the file is not replaced but opened, so a
    character device or pipe is accepted, also through a link such as /dev/stdout, and an existing file may be in a
    folder that is write-protected. shown: name of the file in messages; if None, the flag and the path.
    """
    _require_plain_name(flag, path)
    shown = shown or _shown(flag, path)
    try:
        _require_folder_of(shown, path, is_replaced=not (allow_streams and os.path.isfile(path)))
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            if allow_streams and _is_stream(path):
                return
            target = os.readlink(path)
            raise UsageError(f"{shown} is a link to {target}; links are not replaced: name the file itself")
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"{shown}: cannot be written: {error.strerror}") from None
    if stat.S_ISDIR(status.st_mode):
        raise UsageError(f"{shown} is a folder; must be a file name")
    if not stat.S_ISREG(status.st_mode):
        if allow_streams and _is_stream(path):
            return
        raise UsageError(f"{shown} is a device or pipe; must be a file name")
    if not os.access(path, os.W_OK, effective_ids=True):
        raise UsageError(f"{shown}: cannot be written: the file is write-protected")
    if allow_streams:
        return
    if _is_mount_point(path):
        raise UsageError(f"{shown}: cannot be replaced: it is a mount point; mount its folder instead")
    _require_own(shown, path, status)


def require_replaceable_folder(flag: str, path: Path) -> None:
    """Raise UsageError if a folder cannot be created, or replaced as a whole, at `path`. Nothing is created."""
    _require_plain_name(flag, path)
    shown = _shown(flag, path)
    try:
        _require_folder_of(shown, path, is_replaced=True)
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            raise UsageError(
                f"{shown} is a link to {os.readlink(path)}; links are not replaced: name the folder itself"
            )
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"{shown}: cannot be written: {error.strerror}") from None
    if not stat.S_ISDIR(status.st_mode):
        raise UsageError(f"{shown} is not a folder; must be the name of a folder")
    if _is_mount_point(path):
        raise UsageError(f"{shown}: cannot be replaced: it is a mount point; name a folder in it")
    _require_own(shown, path, status)


def require_writable_folder(flag: str, path: Path, *, named_by: Path | None = None) -> None:
    """Raise UsageError if `path` is not a folder, and cannot be created as one. A link to a folder is one.

    named_by: value of the flag, if that is not the folder but something in it.
    """
    _require_plain_name(flag, named_by or path)
    shown = _shown(flag, named_by or path)
    existing = path
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    try:
        if not os.path.exists(existing):
            raise UsageError(f"{shown}: {existing} is a link to nothing; must be a folder")
        if not os.path.isdir(existing):
            kind = " is a file; must be a folder" if existing == (named_by or path) else f": {existing} is a file"
            raise UsageError(f"{shown}{kind}")
        _require_access(shown, existing)
        for part in path.relative_to(existing).parts:
            if os.path.lexists(existing / part):
                break
            _require_possible_name(existing / part)
    except OSError as error:
        raise UsageError(f"{shown}: cannot be written: {error.strerror}") from None


def try_to_write(flag: str, path: Path) -> None:
    """Create and remove the temporary file that becomes `path`. UsageError if that is not possible.

    Finds what no status tells, such as a full disk, a quota or a folder that must not change. Temporary files that
    dead processes left over are removed.
    """
    try:
        with new_temporary(path):
            pass
    except OSError as error:
        raise UsageError(f"{_shown(flag, path)}: cannot be written: {error.strerror}") from None


def _require_plain_name(flag: str, path: Path) -> None:
    if any(ord(character) < 32 or ord(character) == 127 for character in str(path)):
        raise UsageError(f"{_shown(flag, path)}: the name of an output must not contain control characters")


def _require_possible_name(path: Path) -> None:
    """Raise OSError for a name that no file can have, such as a name that is too long."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return


def _require_folder_of(shown: str, path: Path, *, is_replaced: bool) -> None:
    """Raise UsageError if the folder of a file does not exist or, if it must be, is not writable."""
    folder = path.parent
    try:
        mode = os.stat(folder).st_mode
    except FileNotFoundError:
        raise UsageError(f"{shown}: folder {folder} does not exist") from None
    if not stat.S_ISDIR(mode):
        raise UsageError(f"{shown}: {folder} is not a folder")
    if is_replaced and not _is_stream(path):
        _require_access(shown, folder)


def _require_access(shown: str, folder: Path) -> None:
    if os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        return
    read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
    reason = os.strerror(errno.EROFS if read_only else errno.EACCES)
    raise UsageError(f"{shown}: cannot be written: folder {folder}: {reason}")


def _require_own(shown: str, path: Path, status: os.stat_result) -> None:
    """Raise UsageError if only its owner may replace a file or folder, as in /tmp, and that is another user."""
    folder = os.stat(path.parent)
    if folder.st_mode & stat.S_ISVTX and os.geteuid() not in (0, status.st_uid, folder.st_uid):
        raise UsageError(f"{shown}: cannot be replaced: it belongs to another user")


def _is_mount_point(path: Path) -> bool:
    """Return whether a file alone is mounted, as by `docker run --volume`: the system does not rename over it."""
    return _mount(path) != _mount(path.parent)


def _mount(path: Path) -> str | None:
    """Return the number of the mount that a path is in, None if the system does not tell."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            facts = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
        finally:
            os.close(descriptor)
    except OSError:
        return None
    return next((line for line in facts.splitlines() if line.startswith("mnt_id:")), None)


def _is_stream(path: Path) -> bool:
    """Return whether `path` is a character device or a pipe, or a link to one."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def _require_outside(file: NamedFile, others: dict[Hashable, NamedFile]) -> None:
    """Raise UsageError if `file` is in one of the others."""
    for folder in Path(_resolved(file.path)).parents:
        for key in _resolved_identities(str(folder)):
            if key in others and others[key] != file:
                raise UsageError(f"{file.name} is inside {others[key].name}; name another file")


def is_same_path(first: Path, second: Path) -> bool:
    """Return whether two paths name the same file, after links are resolved. It may not exist."""
    return _resolved(first) == _resolved(second)


def _resolved(path: Path) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # ValueError: a null character
        return os.path.abspath(path)


def _identities(path: Path) -> list[Hashable]:
    """Return what identifies a file: its resolved path and, if they exist, its inode and that of its folder."""
    return [*_inode(path), *_resolved_identities(_resolved(path))]


def _resolved_identities(path: str) -> list[Hashable]:
    folder, name = os.path.split(path)
    return [path, *_inode(path), *((*key, name) for key in _inode(folder))]


def _inode(path: Path | str) -> Iterator[tuple[Hashable, ...]]:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return
    if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
        yield status.st_dev, status.st_ino


def _stream_identity(descriptor: int) -> list[Hashable]:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return []
    return [(status.st_dev, status.st_ino)] if stat.S_ISREG(status.st_mode) else []
