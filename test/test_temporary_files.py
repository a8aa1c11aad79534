"""Temporary files and locks: unique names, removal of what dead processes left, and nothing else."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from odd_files import ODD_FILES
from program import ROOT

from mlperf.util.errors import RunError
from mlperf.util.files import atomic_file, write_atomically
from mlperf.util.locking import exclusive
from mlperf.util.new_file import first_free, open_new
from mlperf.util.temporary import hidden_name, new_temporary, new_temporary_folder

LEFT_OVER = ".model.pt.0000123.0123abcd.part"


def test_two_containers_with_the_same_process_id_have_different_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    path = tmp_path / "model.pt"
    with atomic_file(path) as first, atomic_file(path) as second:
        first.write(b"first")
        second.write(b"second")
        assert len(list(tmp_path.iterdir())) == 2
    assert path.read_bytes() == b"first"  # the outer block ends last
    assert list(tmp_path.iterdir()) == [path]


def test_killed_writer_leaves_a_file_that_the_next_writer_removes(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from mlperf.util.files import atomic_file\n"
        "with atomic_file(Path(sys.argv[1])) as file: file.write(b'half'); file.flush(); os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "model.pt"
    path.write_text("older")
    done = subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert len(list(tmp_path.glob(".model.pt.*.part"))) == 1
    assert path.read_text() == "older"
    write_atomically(path, "newer")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", [LEFT_OVER, ".model.pt.123.0123abcd.part"])
def test_left_over_file_or_folder_is_removed_and_one_in_use_is_not(name: str, tmp_path: Path) -> None:
    used = tmp_path / ".model.pt.0000124.0123abcd.part"
    used.write_text("being written")
    (tmp_path / name).mkdir()
    (tmp_path / name / "weights").write_text("of a killed export")
    with used.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_atomically(tmp_path / "model.pt", "new")
        assert sorted(path.name for path in tmp_path.iterdir()) == [used.name, "model.pt"]
    (tmp_path / name).write_text("of a killed save")
    write_atomically(tmp_path / "model.pt", "newer")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("kind", sorted(set(ODD_FILES) - {"folder"}))
def test_link_or_device_under_a_temporary_name_stays(kind: str, tmp_path: Path) -> None:
    ODD_FILES[kind](tmp_path / LEFT_OVER)
    (tmp_path / ".model.pt.part").write_text("not ours")
    (tmp_path / ".other.pt.0000123.0123abcd.part").write_text("of another file")
    names = sorted(path.name for path in tmp_path.iterdir())
    write_atomically(tmp_path / "model.pt", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == [*names, "model.pt"]


def test_link_of_a_left_over_name_keeps_its_target(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / LEFT_OVER).symlink_to("precious")
    write_atomically(tmp_path / "model.pt", "new")
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("name", ["x" * 255, "ä" * 127, "x" * 240])
def test_file_with_the_longest_possible_name_is_written_and_its_left_over_removed(
    name: str, tmp_path: Path
) -> None:
    with new_temporary(tmp_path / name) as (temporary, _):
        left_over = temporary.name
    (tmp_path / left_over).write_text("left over")
    write_atomically(tmp_path / name, "new")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert hidden_name(tmp_path / name, ".lock") != hidden_name(tmp_path / f"{name[:-1]}y", ".lock")


def test_temporary_folder_is_removed_and_unique(tmp_path: Path) -> None:
    with new_temporary_folder(tmp_path / "x") as first, new_temporary_folder(tmp_path / "x") as second:
        (first / "file").write_text("content")
        assert first != second
        assert first.is_dir()
        assert second.is_dir()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o604])
def test_permissions_of_the_older_file_are_kept(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("older")
    path.chmod(mode)
    write_atomically(path, "newer")
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize("target", ["file", "nothing", "folder"])
def test_link_is_not_replaced_by_a_file(target: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(FileExistsError, match="a link, which is not replaced by a file"):
        write_atomically(tmp_path / "link", "content")
    assert os.readlink(tmp_path / "link") == target
    assert (tmp_path / "file").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "link"]


@pytest.mark.parametrize("kind", [*ODD_FILES, "link to a file", "file with content"])
def test_lock_is_not_something_else_than_an_empty_file(kind: str, tmp_path: Path) -> None:
    precious, lock = tmp_path / "precious", tmp_path / "x.lock"
    precious.write_text("precious")
    if kind in ODD_FILES:
        ODD_FILES[kind](lock)
    elif kind == "link to a file":
        lock.symlink_to("precious")
    else:
        os.link(precious, lock)
    before = lock.lstat()
    with pytest.raises(RunError, match=r"x\.lock: is not an empty file, so it is not a lock of this program"):
        exclusive(lock, "in use").__enter__()
    assert (lock.lstat().st_ino, lock.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert precious.read_text() == "precious"


def test_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "x.lock").touch()
    with exclusive(tmp_path / "x.lock", "in use"):
        with pytest.raises(RunError, match=r"x\.lock: in use"):
            exclusive(tmp_path / "x.lock", "in use").__enter__()
        assert (tmp_path / "x.lock").exists()
    assert not list(tmp_path.iterdir())


def test_lock_does_not_remove_the_file_of_another_that_has_taken_its_name(tmp_path: Path) -> None:
    with exclusive(tmp_path / "x.lock", "in use"):
        (tmp_path / "x.lock").unlink()
        (tmp_path / "x.lock").write_text("of another")
    assert (tmp_path / "x.lock").read_text() == "of another"


def test_discarded_file_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name in ("empty", "new"):
        file = open_new(tmp_path / name)
        file.write("content")
        file.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    assert (tmp_path / "empty").read_bytes() == b""


@pytest.mark.parametrize("kind", sorted(set(ODD_FILES) - {"device", "folder"}))
def test_new_file_neither_follows_a_link_nor_waits_for_a_reader(kind: str, tmp_path: Path) -> None:
    ODD_FILES[kind](tmp_path / "odd")
    names = list(tmp_path.iterdir())
    with pytest.raises(OSError, match=r"No such file|symbolic links|no process reads"):
        open_new(tmp_path / "odd")
    assert list(tmp_path.iterdir()) == names


def test_new_file_may_be_a_device_or_a_pipe_with_a_reader(tmp_path: Path) -> None:
    ODD_FILES["device"](tmp_path / "device")
    with open_new(tmp_path / "device") as file:
        file.write("content")
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with open_new(tmp_path / "pipe") as file:
            file.write("content")
        assert os.read(reader, 100) == b"content"
    finally:
        os.close(reader)


def test_first_free_name_is_one_that_no_file_or_link_has(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text("older")
    (tmp_path / "x_2.log").symlink_to("nowhere")
    assert first_free(tmp_path / "x.log") == tmp_path / "x_3.log"
    (tmp_path / "x_3.log").touch()
    assert first_free(tmp_path / "x.log") == tmp_path / "x_3.log"
