"""Folders of compiled code that no other user can write: numba and Triton run what they find in their caches."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[1]
_MAX_CANDIDATES = 100

_log = logging.getLogger(__name__)


def choose_numba_cache() -> None:
    """Set NUMBA_CACHE_DIR if the folder that numba would use cannot be written, or others can write it.

    Must be called before numba is imported. Numba uses NUMBA_CACHE_DIR or, if it is not set, a folder beside the
    sources or in the cache of the user.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if os.environ.get("NUMBA_CACHE_DIR") or not _are_sources_writable():
        _choose("NUMBA_CACHE_DIR", caches / "numba")


def choose_triton_cache() -> None:
    """Set TRITON_CACHE_DIR if the folder that Triton would use cannot be written, or others can write it.

    Must be called before a kernel is compiled.
    """
    _choose(
        "TRITON_CACHE_DIR", Path(os.environ.get("TRITON_HOME") or os.path.expanduser("~")) / ".triton" / "cache"
    )


def _choose(variable: str, default: Path) -> None:
    """Set a variable to a folder in the temporary folder, unless the requested or the default one is usable."""
    requested = os.environ.get(variable, "")
    if _is_usable(Path(requested) if requested else default):
        return
    folder = _persistent_folder() or _folder_of_this_process()
    if requested:
        _log.warning(
            "%s=%s: cannot be written, or other users can write it; compiled code is stored in %s",
            *(variable, requested, folder),
        )
    os.environ[variable] = str(folder)


def _are_sources_writable() -> bool:
    """Return whether numba can write beside all sources.

    Other users who can write there do not matter: they could change the sources as well.
    """
    folders = [
        Path(folder) for folder, _, files in os.walk(SOURCES) if any(name.endswith(".py") for name in files)
    ]
    caches = [folder / "__pycache__" for folder in folders]
    return all(_is_writable(cache if os.path.lexists(cache) else cache.parent) for cache in caches)


def _is_writable(folder: Path) -> bool:
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


def _is_usable(folder: Path) -> bool:
    """Create a folder if it is missing; return whether this user, and no other one but root, can write it."""
    try:
        for path in (*reversed(folder.absolute().parents), folder):
            if not os.path.lexists(path):
                os.mkdir(path, 0o700)
        folder = Path(os.path.realpath(folder))  # of a link, the folder to which it leads counts
        is_private = _owner_and_sharing(folder) == (os.getuid(), False)
        return is_private and _is_writable(folder) and all(map(_protects_entries, folder.parents))
    except OSError:
        return False


def _owner_and_sharing(folder: Path) -> tuple[int, bool]:
    """Return the user who owns a folder, and whether others can write it."""
    status = os.lstat(folder)
    return status.st_uid, bool(status.st_mode & 0o022)


def _protects_entries(folder: Path) -> bool:
    """Return whether only this user and root can rename or remove what this user has in a folder."""
    owner, is_shared = _owner_and_sharing(folder)
    is_sticky = bool(os.lstat(folder).st_mode & stat.S_ISVTX)
    return owner in (0, os.getuid()) and (is_sticky or not is_shared)


def _persistent_folder() -> Path | None:
    """Return a folder in the temporary folder that is the same in every run; None if no name is left for it."""
    temporary = Path(os.path.realpath(tempfile.gettempdir()))
    if not all(map(_protects_entries, (temporary, *temporary.parents))):
        return None
    folders = (folder for folder in _candidates(temporary) if not folder.is_symlink())
    return next(filter(_is_usable, folders), None)


def _candidates(temporary: Path) -> Iterator[Path]:
    """Yield the folders to try: another user may have taken some of the names."""
    name = f"dlrm-compiled-{os.getuid()}"
    yield temporary / name
    yield from (temporary / f"{name}-{number}" for number in range(2, _MAX_CANDIDATES))


def _folder_of_this_process() -> Path:
    """Return a new folder, which is removed when this process ends."""
    folder, process = tempfile.mkdtemp(prefix="dlrm-compiled-"), os.getpid()

    def remove() -> None:
        if os.getpid() == process:  # not a fork of it
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return Path(folder)
