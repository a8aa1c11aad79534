"""Atomic writes, and reads and writes that the system splits into several transfers."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import numpy as np
import pytest
from odd_files import ODD_FILES

from mlperf.util.files import (
    atomic_file,
    open_regular,
    read_fully,
    read_fully_at,
    read_regular,
    write_atomically,
    write_fully,
    write_fully_at,
)


@pytest.mark.parametrize("content", ["ä line\n", b"\x00\xff"])
def test_written_file_replaces_the_older_one_and_leaves_nothing_else(content: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("older")
    write_atomically(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(tmp_path.iterdir()) == [path]


def test_written_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "x", "new")
    (tmp_path / "y").write_text("new")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "y").stat().st_mode


def test_failure_while_writing_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("older")

    def write_half() -> None:
        with atomic_file(path) as file:
            file.write(b"newer")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_half()
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_pipe_or_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(FileExistsError, match="a device or pipe, which is not replaced by a file"):
        write_atomically(path, "content")
    assert path.is_fifo()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_failure_at_the_end_leaves_the_older_file_and_nothing_else(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "x"
    path.write_text("older")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left on device"):
        write_atomically(path, "newer")
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_file_is_on_the_disk_before_it_is_renamed_and_the_rename_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor: int) -> None:
        calls.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def recorded_replace(source: Path, target: Path) -> None:
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    write_atomically(tmp_path / "x", "new")
    assert calls == ["file", "rename", "folder"]


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with atomic_file(path) as first:
        first.write(b"first")
        write_atomically(path, "second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_temporary_file_is_in_the_requested_folder(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    with atomic_file(tmp_path / "x", tmp_path / "work"):
        assert len(list((tmp_path / "work").iterdir())) == 1
        assert [path.name for path in tmp_path.iterdir()] == ["work"]
    assert not list((tmp_path / "work").iterdir())


def test_transfers_in_pieces_are_repeated_until_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preadv, write, pwrite = os.preadv, os.write, os.pwrite
    monkeypatch.setattr(os, "preadv", lambda file, buffers, offset: preadv(file, [buffers[0][:7]], offset))
    monkeypatch.setattr(os, "write", lambda file, content: write(file, content[:5]))
    monkeypatch.setattr(os, "pwrite", lambda file, content, offset: pwrite(file, content[:3], offset))
    numbers = np.arange(12, dtype=np.int32).reshape(3, 4)
    descriptor = os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)
    try:
        write_fully(descriptor, numbers.data)
        write_fully(descriptor, np.empty((0, 4), np.int32).data)
        write_fully_at(descriptor, numbers[:1].data, numbers.nbytes)
        found = np.empty((4, 4), np.int32)
        assert read_fully_at(descriptor, found.data, 0) == found.nbytes
        assert found.tolist() == [*numbers.tolist(), [0, 1, 2, 3]]
        assert read_fully_at(descriptor, found.data, 40) == found.nbytes - 40
    finally:
        os.close(descriptor)


def test_stream_is_read_until_the_buffer_is_full_or_the_stream_ends() -> None:
    file = gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(b"abcde") + gzip.compress(b"fgh")))
    buffer = bytearray(6)
    assert read_fully(file, memoryview(buffer)) == 6
    assert bytes(buffer) == b"abcdef"
    assert read_fully(file, memoryview(buffer)) == 2
    assert bytes(buffer[:2]) == b"gh"


@pytest.mark.parametrize("kind", ODD_FILES)
def test_what_is_not_a_file_is_not_opened(kind: str, tmp_path: Path) -> None:
    ODD_FILES[kind](tmp_path / "x")
    with pytest.raises(OSError, match=r"regular file|Is a directory|No such file|symbolic links") as caught:
        open_regular(tmp_path / "x")
    assert caught.value.filename in (tmp_path / "x", str(tmp_path / "x"))


def test_file_is_read_whole_unless_it_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("x")
    assert read_regular(tmp_path / "link", max_bytes=5) == b"12345"
    with pytest.raises(OSError, match="has 5 bytes; at most 4 are expected"):
        read_regular(tmp_path / "x", max_bytes=4)


def test_pipes_of_a_shell_are_read_only_where_they_are_allowed(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"content")
    os.close(writing)
    pipe, named_pipe = Path(f"/dev/fd/{reading}"), tmp_path / "pipe"
    os.mkfifo(named_pipe)
    try:
        with pytest.raises(OSError, match="not a regular file"):
            read_regular(pipe)
        with pytest.raises(OSError, match="not a regular file"):
            read_regular(named_pipe, allow_pipes=True)
        assert read_regular(pipe, 7, allow_pipes=True) == b"content"
    finally:
        os.close(reading)


def test_pipe_is_read_up_to_the_limit() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"content")
    try:
        with pytest.raises(OSError, match="has more than 6 bytes"):
            read_regular(Path(f"/dev/fd/{reading}"), 6, allow_pipes=True)
    finally:
        os.close(reading)
        os.close(writing)
