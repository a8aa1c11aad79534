"""Damaged checkpoint files are rejected, files of other programs read rightly or rejected, always in one line."""

from __future__ import annotations

import os
import random
import socket
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import (
    compressed,
    flipped,
    is_same,
    members,
    packed,
    saved_bytes,
    small_contents,
    with_pickle,
    write,
)
from program import GOLDEN, golden_flags, run_program

from mlperf.training.checkpoint_file import is_checkpoint, open_checkpoint, read_checkpoint, write_checkpoint
from mlperf.util.errors import RunError

SAVED = saved_bytes(small_contents())
LEGACY = saved_bytes(small_contents(), legacy=True)


@pytest.fixture
def own(tmp_path: Path) -> bytes:
    """Return a checkpoint as the program writes it."""
    write_checkpoint(tmp_path / "own.pt", small_contents())
    return (tmp_path / "own.pt").read_bytes()


def refusal(path: Path) -> str:
    """Return the error for a file, which must be one line that begins with its path."""
    with pytest.raises(RunError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return message


def read_or_refusal(path: Path) -> dict[str, Any] | str:
    """Return the contents of a file, or the error for it."""
    try:
        return read_checkpoint(path)
    except RunError as error:
        return str(error)


def random_bits(content: bytes, count: int) -> list[int]:
    """Return bits of a file: of all its parts, and more of its end, where the directory is."""
    draw = random.Random(len(content))
    bits = [draw.randrange(8 * len(content)) for _ in range(count)]
    return [*bits, *(8 * len(content) - 1 - draw.randrange(8 * 800) for _ in range(count))]


def test_every_flipped_bit_of_our_own_file_is_noticed(own: bytes, tmp_path: Path) -> None:
    for bit in random_bits(own, 300):
        refusal(write(tmp_path, flipped(own, bit)))


@pytest.mark.parametrize("offset", [1 << 62, 1 << 63, (1 << 64) - 1])
def test_offset_far_beyond_the_file_is_damage(offset: int, own: bytes, tmp_path: Path) -> None:
    locator = own.index(b"PK\6\7")
    path = write(tmp_path, own[: locator + 8] + offset.to_bytes(8, "little") + own[locator + 16 :])
    assert "damaged" in refusal(path)
    assert not is_checkpoint(path)


def test_flipped_bit_of_a_foreign_file_is_noticed_or_without_effect(tmp_path: Path) -> None:
    refused = 0
    for bit in random_bits(SAVED, 300):
        found = read_or_refusal(write(tmp_path, flipped(SAVED, bit)))
        refused += isinstance(found, str)
        assert found.isprintable() if isinstance(found, str) else is_same(found, small_contents())
    assert refused > 300


def test_damage_of_the_older_format_ends_in_one_line(tmp_path: Path) -> None:
    pickled = LEGACY.index(b"half")
    draw = random.Random(3)
    for _ in range(300):
        found = read_or_refusal(write(tmp_path, flipped(LEGACY, draw.randrange(8 * pickled))))
        assert not isinstance(found, str) or found.isprintable()


@pytest.mark.parametrize("legacy", [False, True])
def test_missing_and_added_bytes_are_noticed(legacy: bool, own: bytes, tmp_path: Path) -> None:
    content = LEGACY if legacy else own
    for removed in (1, 2, 7, 30, 100, len(content) // 2):
        refusal(write(tmp_path, content[:-removed]))
    for added in (b"\0", b"more", bytes(5000)):
        refusal(write(tmp_path, content + added))


def test_evaluation_of_a_checkpoint_with_a_flipped_bit_fails_in_one_line(terabyte: Path, tmp_path: Path) -> None:
    content = (GOLDEN / "terabyte" / "sgd.pt").read_bytes()
    write(tmp_path, flipped(content, 8 * (len(content) // 2) + 6))
    run = run_program(*golden_flags("sgd_inference", terabyte), "--load-model=model.pt", cwd=tmp_path)
    assert run.status == 1
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    assert "model.pt: damaged, or not a PyTorch checkpoint: the contents of sgd/data/" in line


def test_own_files_are_read_by_torch_load(own: bytes, tmp_path: Path) -> None:
    path = write(tmp_path, own)
    assert is_same(torch.load(path, weights_only=False), small_contents())
    del (contents := small_contents())["train_loss"]  # torch.load allows no NumPy scalars
    write_checkpoint(path, contents)
    assert is_same(torch.load(path, weights_only=True), contents)
    assert is_same(torch.load(path, weights_only=True, mmap=True), contents)


def test_contents_are_those_that_were_written(own: bytes, tmp_path: Path) -> None:
    for content in (own, SAVED, LEGACY):
        assert is_same(read_checkpoint(write(tmp_path, content)), small_contents())


def test_own_file_whose_digest_was_removed_is_rejected(own: bytes, tmp_path: Path) -> None:
    comment = own.index(b"mlperf checkpoint, sha256")
    assert "digest is missing" in refusal(write(tmp_path, own[: comment - 2] + b"\0\0"))
    assert "digest is missing" in refusal(write(tmp_path, packed(members(own))))
    other = own[:comment] + own[comment:].replace(b"mlperf", b"MLPERF")
    assert "digest is missing" in refusal(write(tmp_path, other))


def test_own_file_that_another_program_changed_and_saved_is_read(own: bytes, tmp_path: Path) -> None:
    contents = torch.load(write(tmp_path, own), weights_only=False)
    contents["epoch"] = 5
    torch.save(contents, tmp_path / "changed.pt")
    assert read_checkpoint(tmp_path / "changed.pt")["epoch"] == 5


@pytest.fixture
def no_crc32() -> Iterator[None]:
    """Let torch.save write no CRC-32s."""
    torch.serialization.set_crc32_options(False)
    yield
    torch.serialization.set_crc32_options(True)


def test_archive_without_crc32s_is_read_and_our_own_files_have_them(no_crc32: None, tmp_path: Path) -> None:
    torch.save(small_contents(), tmp_path / "other.pt")
    write_checkpoint(tmp_path / "own.pt", small_contents())
    for name in ("other.pt", "own.pt"):
        assert is_same(read_checkpoint(tmp_path / name), small_contents())
        with zipfile.ZipFile(tmp_path / name) as archive:
            assert any(record.CRC for record in archive.infolist()) == (name == "own.pt")
    assert not torch.serialization.get_crc32_options()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("zip64", [False, True])
def test_archives_of_other_programs_are_read(streamed: bool, zip64: bool, tmp_path: Path) -> None:
    files = members(SAVED)
    for order in (files, files[::-1], [("archive/", b""), ("archive/data/", b""), *files]):
        path = write(tmp_path, packed(order, streamed=streamed, zip64=zip64))
        assert is_same(read_checkpoint(path), small_contents())


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (compressed, "refused: archive/data.pkl is compressed"),
        (lambda files: b"prefix" + packed(files), "neither of the two formats"),
        (lambda files: packed(files) + b"suffix", "added at its end"),
        (lambda files: packed([*files, files[4]]), "contains archive/data/0 twice"),
        (lambda files: packed([*files, ("other/data.pkl", files[0][1])]), "one folder"),
        (lambda files: packed([("data.pkl", files[0][1])]), "one folder"),
        (
            lambda files: packed([(name, content) for name, content in files if "data/0" not in name]),
            "storage '0'",
        ),
        (lambda files: packed([("archive/byteorder", b"big"), files[0]]), "big-endian"),
        (lambda files: packed([]), "not"),
    ],
)
def test_other_archives_are_rejected(
    change: Callable[[list[tuple[str, bytes]]], bytes], words: str, tmp_path: Path
) -> None:
    assert words in refusal(write(tmp_path, change(members(SAVED))))


def shared_lists(levels: int) -> bytes:
    """Return operations for lists that each contain the one before ten times."""
    first = b"]q\x00"
    return first + b"".join(b"](" + bytes([0x68, n]) * 10 + b"eq" + bytes([n + 1]) for n in range(levels))


TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuJ%stQ%s\x89ccollections\nOrderedDict\n)RtR"
)


@pytest.mark.parametrize(
    ("operations", "words"),
    [
        (b"](" + b"}" * 3_000_000 + b"e", "more than 1000000 operations"),
        (b"](" + b"}q\x00" + b"h\x00" * 3_000_000 + b"e", "more than 1000000 operations"),
        (b"]" * 100_000 + b"a" * 99_999, "nested more than"),
        (b"]" + b"\x85" * 100_000, "nested more than"),
        (b"]q\x00h\x00a", "contains itself"),
        (b"](" + shared_lists(8) + b"e", "more than 1000000 values"),
        (b"X\xff\xff\xff\xff", "truncated"),
        (b"c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R", "refused: it references __builtin__.bytearray"),
        (b"ctorch\nzeros\nJ\xff\xff\xff\x7f\x85R", "refused: it references torch.zeros"),
        (b"cos\nsys\x1b[2Jtem\n", r"refused: it references os.sys\x1b[2Jtem"),
        (b"c" + b"x" * 300, "a name does not end"),
        (b"}K\x01\x85K\x02s", "a key of a dictionary is of type tuple"),
        (b"}(K\x01u", "its pickle is damaged"),
        (TENSOR % (b"\xff\xff\xff\x7f", b"K\x00K\x04\x85K\x01\x85"), "storage '0' does not have 2147483647"),
        (TENSOR % (b"\xff\xff\xff\xff", b"K\x00K\x04\x85K\x01\x85"), "storage '0' does not have -1"),
        (TENSOR % (b"\4\0\0\0", b"K\x01K\x04\x85K\x01\x85"), "a tensor of shape [4] has 4 elements"),
        (TENSOR % (b"\4\0\0\0", b"K\x00J\xff\xff\xff\x7f\x85K\x00\x85"), "a tensor of shape [2147483647]"),
        (TENSOR % (b"\4\0\0\0", b"K\x00J\xff\xff\xff\xff\x85K\x01\x85"), "the shape of a tensor is damaged"),
        (TENSOR % (b"\4\0\0\0", b"K\x00G" + bytes(8) + b"\x85K\x01\x85"), "the shape of a tensor is damaged"),
        (TENSOR % (b"\4\0\0\0", b"K\x00(" + b"K\x01" * 9 + b"t(" + b"K\x01" * 9 + b"t"), "the shape of a tensor"),
        (b"ctorch._utils\n_rebuild_sparse_tensor\n", "it contains a sparse tensor"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_pickles_that_need_more_than_a_checkpoint_are_rejected(
    operations: bytes, words: str, tmp_path: Path
) -> None:
    assert words in refusal(write(tmp_path, with_pickle(operations, **{"0": bytes(16)})))


def test_handwritten_tensor_is_read(tmp_path: Path) -> None:
    tensor = TENSOR % (b"\4\0\0\0", b"K\x00K\x04\x85K\x01\x85")
    operations = b"}X\n\x00\x00\x00state_dict}X\x01\x00\x00\x00w" + tensor + b"ss"
    path = write(tmp_path, with_pickle(operations, **{"0": bytes(16)}))
    assert torch.equal(read_checkpoint(path)["state_dict"]["w"], torch.zeros(4))


def test_compressed_pickle_of_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    files = [("archive/data.pkl", bytes(200_000_000))]
    path = write(tmp_path, compressed(files))
    assert path.stat().st_size < 1_000_000
    assert "is compressed" in refusal(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "not a regular file"),
        (os.mkdir, "Is a directory"),
        (make_socket, "not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.symlink_to("/" + "x" * 300), "File name too long"),
        (lambda path: path.symlink_to(path.parent / "none"), "No such file"),
        (lambda path: path.symlink_to("/etc/passwd/none"), "Not a directory"),
        (lambda path: path.touch(), "empty file"),
    ],
)
def test_error_states_why_a_path_cannot_be_read(
    make: Callable[[Path], object], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    make(Path("model.pt"))
    message = refusal(Path("model.pt"))
    assert words in message
    assert "truncated" not in message
    assert "damaged" not in message
    if words != "empty file":
        with pytest.raises(OSError, match=words):
            is_checkpoint(Path("model.pt"))


def test_unreadable_file_is_not_called_damaged(tmp_path: Path) -> None:
    path = write(tmp_path, SAVED)
    path.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        message = refusal(path)
        with pytest.raises(PermissionError):
            is_checkpoint(path)
    finally:
        if root:
            os.seteuid(0)
    assert message == f"{path}: the checkpoint cannot be read: Permission denied"


_opened: list[str] = []


def _note_opened(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and str(arguments[0]).endswith("opened-once.pt"):
        _opened.append(str(arguments[0]))


def test_path_is_opened_once(tmp_path: Path) -> None:
    sys.addaudithook(_note_opened)
    for content in (SAVED, LEGACY):
        (tmp_path / "opened-once.pt").write_bytes(content)
        for read in (read_checkpoint, is_checkpoint):
            _opened.clear()
            read(tmp_path / "opened-once.pt")
            assert len(_opened) == 1


def test_reader_keeps_the_file_that_it_opened(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    write_checkpoint(path, {"state_dict": {"a": torch.zeros(1000)}})
    with open_checkpoint(path) as file:
        write_checkpoint(path, {"state_dict": {"a": torch.ones(1000)}})
        target = torch.empty(1000)
        file.fill([(target, file.contents["state_dict"]["a"])])
        file.verify()
    assert torch.equal(target, torch.zeros(1000))


def test_tensors_are_filled_from_all_parts_of_a_file(tmp_path: Path) -> None:
    shared = torch.randn(3_000_000)  # several blocks
    sources = {
        **{"small": torch.randn(3), "first": shared[:10], "middle": shared[10:2_000_000].view(-1, 5)},
        **{"last": shared[1_999_999:], "transposed": torch.randn(5, 7).T, "empty": torch.empty(0, 3)},
        **{"half": torch.randn(9).bfloat16(), "scalar": torch.tensor(4.0)},
    }
    path = tmp_path / "model.pt"
    write_checkpoint(path, {"state_dict": sources})
    targets = {name: torch.full(source.shape, 7, dtype=source.dtype) for name, source in sources.items()}
    targets["first"] = torch.full((10, 2), 7.0)[:, 0]  # not contiguous
    with open_checkpoint(path) as file:
        file.fill((targets[name], file.contents["state_dict"][name]) for name in targets)
        file.verify()
    assert is_same({**targets, "first": targets["first"].clone()}, sources)


@pytest.mark.parametrize("place", [0.01, 0.5, 0.99])
def test_damage_in_a_large_record_is_noticed_while_it_is_copied(place: float, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    write_checkpoint(path, {"state_dict": {"a": torch.zeros(3_000_000)}})
    content = path.read_bytes()
    write(tmp_path, flipped(content, int(place * 8 * len(content))))
    with open_checkpoint(path) as file, pytest.raises(RunError, match="do not have their CRC-32"):
        file.fill([(torch.empty(3_000_000), file.contents["state_dict"]["a"])])


def test_file_that_is_truncated_while_it_is_read_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    write_checkpoint(path, {"state_dict": {"a": torch.zeros(3_000_000)}})
    with open_checkpoint(path) as file:
        os.truncate(path, 1_000_000)
        with pytest.raises(RunError, match="truncated while it was read"):
            file.fill([(torch.empty(3_000_000), file.contents["state_dict"]["a"])])


def test_only_files_of_torch_save_are_replaced(own: bytes, tmp_path: Path) -> None:
    for content in (own, SAVED, LEGACY):
        assert is_checkpoint(write(tmp_path, content))
    for content in (b"", b"\x80\x02]q\x00.", b"text", b"PK\3\4", compressed([("a/data.pkl", b"x")]), own[:-1]):
        assert not is_checkpoint(write(tmp_path, content))
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("notes/text.txt", "kept")
    assert not is_checkpoint(tmp_path / "model.pt")
