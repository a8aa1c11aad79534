"""Folders of compiled code: written by this user alone, the same in every run, and none left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from program import ROOT

from mlperf.util import compiler_cache
from mlperf.util.compiler_cache import choose_numba_cache, choose_triton_cache

VARIABLES = ("NUMBA_CACHE_DIR", "TRITON_CACHE_DIR", "TRITON_HOME", "XDG_CACHE_HOME")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use sources that cannot be written, a temporary folder as on a shared machine, and return a home."""
    shared, sources, home = tmp_path / "shared", tmp_path / "sources", tmp_path / "home"
    for folder in (shared, sources, home):
        folder.mkdir(mode=0o755)
    shared.chmod(0o1777)
    (sources / "module.py").touch()
    (sources / "__pycache__").touch()  # a file, which even root cannot write to as a folder
    monkeypatch.setattr("tempfile.tempdir", str(shared))
    monkeypatch.setattr(compiler_cache, "SOURCES", sources)
    monkeypatch.setenv("HOME", str(home))
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that monkeypatch undoes what is set later
        monkeypatch.delenv(name)
    return home


def chosen() -> Path | None:
    """Return the folder to which the variable is set, None if numba's own choice is left."""
    choose_numba_cache()
    folder = os.environ.pop("NUMBA_CACHE_DIR", None)
    return None if folder is None else Path(folder)


def break_home(home: Path) -> Path:
    """Make the cache in the home a file; return the temporary folder."""
    (home / ".cache").touch()
    return home.parent / "shared"


def test_private_home_is_left_to_numba(home: Path) -> None:
    assert [chosen(), chosen()] == [None, None]
    assert (home / ".cache" / "numba").stat().st_mode & 0o777 == 0o700


def test_nothing_is_set_if_the_sources_are_writable(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = break_home(home)
    (home.parent / "sources" / "__pycache__").unlink()
    assert chosen() is None
    assert not list(shared.iterdir())


def test_cache_is_a_private_temporary_folder_and_the_same_in_every_run(home: Path) -> None:
    shared = break_home(home)
    cache = chosen()
    assert cache == shared / f"dlrm-compiled-{os.getuid()}"
    assert cache.stat().st_mode & 0o777 == 0o700
    assert [chosen(), chosen()] == [cache, cache]
    assert list(shared.iterdir()) == [cache]


@pytest.mark.parametrize("attack", ["link", "link to nothing", "file", "writable", "of another user"])
def test_name_that_another_user_has_taken_is_not_used_and_the_next_run_takes_the_same_one(
    attack: str, home: Path
) -> None:
    shared = break_home(home)
    taken = shared / f"dlrm-compiled-{os.getuid()}"
    if attack in ("link", "link to nothing"):
        other = home.parent / "other"
        if attack == "link":
            other.mkdir()
            other.chmod(0o777)
        taken.symlink_to(other)
    elif attack == "file":
        taken.touch()
    else:
        taken.mkdir()
        if attack == "writable":
            taken.chmod(0o777)
        elif os.getuid() == 0:
            os.chown(taken, 12345, 12345)
        else:
            pytest.skip("only root can give a folder to another user")
    assert [chosen(), chosen()] == [shared / f"{taken.name}-2"] * 2
    assert len(list(shared.iterdir())) == 2
    if attack == "link":
        assert not list(other.iterdir())


@pytest.mark.parametrize("folder", ["shared", "open", "open/own", "file", "file/x"])
def test_requested_folder_that_others_can_write_is_replaced_with_a_warning(
    folder: str, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (home / "open").mkdir()
    (home / "open").chmod(0o777)
    (home / "open" / "own").mkdir(mode=0o700)  # another user could replace it
    (home / "file").touch()
    requested = home.parent / "shared" if folder == "shared" else home / folder
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(requested))
    assert chosen() == home.parent / "shared" / f"dlrm-compiled-{os.getuid()}"
    assert f"NUMBA_CACHE_DIR={requested}: cannot be written, or other users can write it" in caplog.text


def test_requested_folder_is_created_for_this_user_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requested = home.parent / "shared" / "a" / "b"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(requested))
    assert chosen() == requested
    assert [path.stat().st_mode & 0o777 for path in (requested, requested.parent)] == [0o700, 0o700]


@pytest.mark.parametrize("place", ["shared", "open", "of another user", "nothing"])
def test_cache_of_the_user_in_a_folder_of_others_is_not_used(
    place: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = home / "caches"
    caches.mkdir()
    if place == "open":
        caches.chmod(0o777)
    elif place == "of another user":
        if os.getuid() != 0:
            pytest.skip("only root can give a folder to another user")
        os.chown(caches, 12345, 12345)
    elif place == "shared":
        caches = home.parent / "shared"
        (caches / "numba").mkdir()
        (caches / "numba").chmod(0o777)
    else:
        caches = Path("/proc/no/such/folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(caches))
    assert chosen() == home.parent / "shared" / f"dlrm-compiled-{os.getuid()}"


def test_inaccessible_home_counts_as_unusable(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs as another user than the owner of the home."""
    lstat = os.lstat

    def refuse(path: object, *arguments: object, **more: object) -> os.stat_result:
        if "/home" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return lstat(path, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "lstat", refuse)
    assert chosen() == home.parent / "shared" / f"dlrm-compiled-{os.getuid()}"


def test_triton_gets_a_private_folder_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose_triton_cache()
    assert "TRITON_CACHE_DIR" not in os.environ
    (home / "file").touch()
    monkeypatch.setenv("TRITON_HOME", str(home / "file"))
    choose_triton_cache()
    assert os.environ["TRITON_CACHE_DIR"] == str(home.parent / "shared" / f"dlrm-compiled-{os.getuid()}")


def test_folder_for_one_process_is_removed_at_its_end(home: Path) -> None:
    shared = break_home(home)
    shared.chmod(0o777)  # without the sticky bit, any user can replace the folder of another
    program = (
        "from pathlib import Path; import os, sys, mlperf.util.compiler_cache as c; c.SOURCES = Path(sys.argv[1]);"
        "os.environ.pop('NUMBA_CACHE_DIR', None); c.choose_numba_cache(); print(os.environ['NUMBA_CACHE_DIR']);"
        "assert os.path.isdir(os.environ['NUMBA_CACHE_DIR'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(home.parent / "sources")],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(shared)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"{shared}/dlrm-compiled-")
    assert not list(shared.iterdir())
