"""The MLPerf recommendation benchmark: DLRM."""

import os
import tempfile
from pathlib import Path

__version__ = "0.1.0"


def _find_room_for_compiled_parts() -> None:
    """Name numba a cache of our own where it could keep none: beside the sources, nor in the user's home.

    The temporary folder is everybody's: what is loaded from it must be in a folder that only this user can write.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    homes = [Path(__file__).parent, next(path for path in (caches, *caches.parents) if os.path.exists(path))]
    if "NUMBA_CACHE_DIR" in os.environ or any(os.access(path, os.W_OK) for path in homes):
        return
    folder = Path(tempfile.gettempdir()) / f"dlrm-compiled-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    ours = folder.is_dir() and not folder.is_symlink() and status.st_uid == os.getuid()
    if not ours or status.st_mode & 0o022:
        folder = Path(tempfile.mkdtemp(prefix="dlrm-compiled-"))
    os.environ["NUMBA_CACHE_DIR"] = str(folder)


_find_room_for_compiled_parts()
