"""Folder of numba's compilation cache."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[1]


def choose_numba_cache() -> None:
    """Set NUMBA_CACHE_DIR if numba can write neither beside the sources nor in the user's home.

    Must be called before numba is imported. The temporary folder is shared by all users, so compiled code is
    loaded only from a folder that no other user can write.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    existing = next(path for path in (caches, *caches.parents) if os.path.exists(path))
    if "NUMBA_CACHE_DIR" in os.environ or any(os.access(path, os.W_OK) for path in (SOURCES, existing)):
        return
    folder = Path(tempfile.gettempdir()) / f"dlrm-compiled-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    is_own = folder.is_dir() and not folder.is_symlink() and status.st_uid == os.getuid()
    if not is_own or status.st_mode & 0o022:
        folder = Path(tempfile.mkdtemp(prefix="dlrm-compiled-"))
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
