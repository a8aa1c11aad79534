"""Location of the numba cache if the sources and the home folder are read-only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlperf.util.numba_cache import choose_numba_cache


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make sources and home read-only, and return the temporary folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")  # so that monkeypatch undoes what is set later
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    return tmp_path


def chosen() -> Path:
    choose_numba_cache()
    return Path(os.environ.pop("NUMBA_CACHE_DIR"))


def test_cache_is_a_private_temporary_folder(read_only: Path) -> None:
    cache = chosen()
    assert cache.parent == read_only
    assert cache.stat().st_mode & 0o777 == 0o700
    assert chosen() == cache


def test_symlink_of_another_user_is_not_followed(read_only: Path) -> None:
    cache = chosen()
    cache.rmdir()
    cache.symlink_to("/etc")
    assert chosen() != cache


def test_folder_writable_by_others_is_not_used(read_only: Path) -> None:
    cache = chosen()
    cache.chmod(0o777)
    assert chosen() != cache


def test_nothing_is_set_if_the_sources_are_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    choose_numba_cache()
    assert "NUMBA_CACHE_DIR" not in os.environ


def test_inaccessible_home_counts_as_read_only(read_only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs as another user than the owner of the home."""
    stat = os.stat

    def refuse(path: object, *arguments: object, **more: object) -> os.stat_result:
        if "/home/.cache" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", refuse)
    monkeypatch.setenv("XDG_CACHE_HOME", str(read_only / "home" / ".cache"))
    assert chosen().parent == read_only
