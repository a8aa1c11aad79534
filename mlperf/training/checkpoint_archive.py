"""The zip archive of a checkpoint: where its records are, and a digest of everything that is not a record.

`torch.save` stores records without compression. Every byte of an accepted archive belongs to a record or to the
structure of the archive, and all copies of a fact (sizes, names, CRC-32s) agree, so damage to the structure cannot
change what is read. Other archives are rejected: compressed, encrypted, with gaps, with duplicate names.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from mlperf.training.zip_headers import (
    CENTRAL,
    CENTRAL_SIGNATURE,
    END,
    END64,
    END64_SIGNATURE,
    END_SIGNATURE,
    LOCAL,
    LOCAL_SIGNATURE,
    LOCATOR,
    LOCATOR_SIGNATURE,
    MAX16,
    MAX32,
    ZIP64,
)
from mlperf.util.files import read_fully_at, write_fully_at
from mlperf.util.printable import shown_name

_MAX_DIRECTORY = 64 << 20  # bytes
_MAX_RECORDS = 100_000
_MAX_OFFSET = 1 << 62  # with the size of a record, it stays below 1 << 63, the limit of the system

_STREAMED = 0x8  # sizes and CRC-32 follow the contents
_UTF8 = 0x800

_DIGEST = b"mlperf checkpoint, sha256 of headers "


class DamagedArchive(Exception):
    """The file is not an intact zip archive. The message says what is wrong."""


class UnsupportedArchive(DamagedArchive):
    """The archive is compressed, encrypted or a TorchScript program."""


@dataclass(frozen=True)
class Record:
    """Contents of one file of the archive: `size` bytes at `offset`. crc32: None if the archive has none."""

    name: str
    offset: int
    size: int
    crc32: int | None


@dataclass(frozen=True)
class Archive:
    """An archive whose structure is intact.

    records: by name, in the order of their offsets, without the name of the folder that contains all of them.
    digest: SHA-256 of all bytes that are neither a record nor the comment, in hexadecimal.
    recorded_digest: the digest that `record_digest` wrote into the comment, None if there is none.
    """

    records: dict[str, Record]
    digest: str
    recorded_digest: str | None


@dataclass(frozen=True)
class _Entry:
    """One entry of the central directory. stored: size in the archive. start: of its local header."""

    name: bytes
    flags: int
    method: int
    crc32: int
    stored: int
    size: int
    start: int


@dataclass(frozen=True)
class _Directory:
    """The central directory. end: offset of the end record."""

    entries: list[_Entry]
    start: int
    end: int
    comment: bytes


def is_archive(descriptor: int) -> bool:
    """Return whether a file begins like a zip archive. OSError if it cannot be read."""
    return _bytes_at(descriptor, 0, 4, required=False) == LOCAL_SIGNATURE


def read_archive(descriptor: int) -> Archive:
    """Return the records of a zip archive, after checking its structure, but not the contents of the records.

    DamagedArchive if it is not intact, OSError if it cannot be read.
    """
    try:
        directory = _read_directory(descriptor)
        records, headers = _read_records(descriptor, directory)
    except (struct.error, UnicodeDecodeError):
        raise DamagedArchive("its directory is damaged") from None
    digest = hashlib.sha256()
    for start, end in (*headers, (directory.start, directory.end + END.size - 2)):
        digest.update(_bytes_at(descriptor, start, end - start))
    comment = directory.comment
    recorded = comment.removeprefix(_DIGEST).decode("ascii", "replace") if comment.startswith(_DIGEST) else None
    return Archive(_without_folder(records), digest.hexdigest(), recorded)


def record_digest(descriptor: int) -> None:
    """Write the digest of an archive without a comment into its comment, which readers of zip archives ignore.

    descriptor: of a file open for reading and writing. DamagedArchive if the archive is not intact.
    """
    comment = _DIGEST + read_archive(descriptor).digest.encode()
    size = os.fstat(descriptor).st_size
    write_fully_at(descriptor, memoryview(struct.pack("<H", len(comment)) + comment), size - 2)


def _bytes_at(descriptor: int, offset: int, size: int, *, required: bool = True) -> bytes:
    """Return `size` bytes of a file. DamagedArchive if they are `required` and the file is shorter."""
    if not 0 <= size <= _MAX_DIRECTORY or not 0 <= offset <= _MAX_OFFSET:
        raise DamagedArchive("its directory is damaged")
    content = bytearray(size)
    found = read_fully_at(descriptor, memoryview(content), offset)
    if required and found < size:
        raise DamagedArchive("it is truncated")
    return bytes(content[:found])


def _read_directory(descriptor: int) -> _Directory:
    """Return the central directory."""
    size = os.fstat(descriptor).st_size
    tail_start = max(0, size - END.size - MAX16)
    tail = _bytes_at(descriptor, tail_start, size - tail_start)
    position = tail.rfind(END_SIGNATURE)
    if position < 0 or len(tail) - position < END.size:
        raise DamagedArchive("it is truncated: the directory at its end is missing")
    _, disk, first_disk, here, count, length, start, comment_length = END.unpack_from(tail, position)
    comment, end = tail[position + END.size :], tail_start + position
    if len(comment) != comment_length:
        raise DamagedArchive("bytes are missing or were added at its end")
    directory_end = end
    locator = tail[position - LOCATOR.size : position] if position >= LOCATOR.size else b""
    if locator.startswith(LOCATOR_SIGNATURE):
        _, disk64, directory_end, disks = LOCATOR.unpack(locator)
        content = _bytes_at(descriptor, directory_end, END64.size)
        _, _, _, _, *disks64, here64, count64, length64, start64 = END64.unpack(content)
        rest = end - LOCATOR.size - directory_end - 12
        if content[:12] != END64_SIGNATURE + struct.pack("<Q", rest) or (disk64, disks, *disks64) != (0, 1, 0, 0):
            raise DamagedArchive("its directory is damaged")
        for value, limit, value64 in (
            *((here, MAX16, here64), (count, MAX16, count64)),
            *((length, MAX32, length64), (start, MAX32, start64)),
        ):
            if value not in (value64, limit):
                raise DamagedArchive("its directory is damaged")
        here, count, length, start = here64, count64, length64, start64
    if (disk, first_disk) != (0, 0) or here != count or start + length != directory_end:
        raise DamagedArchive("its directory is damaged, or bytes were added before or after the archive")
    if count > _MAX_RECORDS or length > _MAX_DIRECTORY:
        raise DamagedArchive(f"it has {count} records; up to {_MAX_RECORDS} are allowed")
    entries = list(_entries(_bytes_at(descriptor, start, length)))
    if len(entries) != count:
        raise DamagedArchive("its directory is damaged")
    _check_kind(entries)
    return _Directory(entries, start, end, comment)


def _check_kind(entries: list[_Entry]) -> None:
    """Raise UnsupportedArchive if entries are compressed, encrypted or those of a TorchScript program."""
    if any(entry.name.endswith(b"/constants.pkl") for entry in entries):
        raise UnsupportedArchive("a TorchScript program, not a checkpoint, which could execute code when loaded")
    for entry in entries:
        if entry.method != 0:
            raise UnsupportedArchive(f"{shown_name(entry.name)} is compressed, which torch.save does not do")
        if entry.flags & ~(_STREAMED | _UTF8):
            raise UnsupportedArchive(f"{shown_name(entry.name)} is encrypted, or its entry is damaged")
        if entry.stored != entry.size:
            raise DamagedArchive("its directory is damaged")


def _entries(directory: bytes) -> Iterator[_Entry]:
    """Return the entries of a central directory."""
    position = 0
    while position < len(directory):
        fields = CENTRAL.unpack_from(directory, position)
        signature, _, _, flags, method, _, _, crc32, stored, size = fields[:10]
        name_length, extra_length, comment_length, disk, _, _, start = fields[10:]
        name_start = position + CENTRAL.size
        extra_start = name_start + name_length
        name = directory[name_start:extra_start]
        position = extra_start + extra_length + comment_length
        if signature != CENTRAL_SIGNATURE or position > len(directory) or disk not in (0, MAX16):
            raise DamagedArchive("its directory is damaged")
        values = _with_zip64(directory[extra_start : extra_start + extra_length], size, stored, start)
        size, stored, start = values
        yield _Entry(name, flags, method, crc32, stored, size, start)


def _with_zip64(extra: bytes, *values: int) -> tuple[int, ...]:
    """Return 32-bit values with those replaced that are too large for 32 bits and follow in the extra field."""
    large: list[int] = []
    for kind, content in _extra_fields(extra):
        if kind == ZIP64:
            large += [number for (number,) in struct.iter_unpack("<Q", content[: len(content) // 8 * 8])]
    following = iter(large)
    result = tuple(next(following, -1) if value == MAX32 else value for value in values)
    if -1 in result:
        raise DamagedArchive("its directory is damaged")
    return result


def _extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Return type and content of each extra field."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        yield kind, extra[position + 4 : position + 4 + length]
        position += 4 + length


def _read_records(descriptor: int, directory: _Directory) -> tuple[list[Record], list[tuple[int, int]]]:
    """Return the records by offset, and the (start, end) of what is before, between and after them."""
    entries = sorted(directory.entries, key=lambda entry: entry.start)
    records, headers = [], []
    position = 0
    # torch.save after torch.serialization.set_crc32_options(False)
    has_no_crc32 = all(entry.crc32 == 0 for entry in entries)
    for number, entry in enumerate(entries):
        following = entries[number + 1].start if number + 1 < len(entries) else directory.start
        if (number == 0 and entry.start != 0) or following < entry.start + LOCAL.size:
            raise DamagedArchive("bytes were added before the archive, or its directory is damaged")
        offset = entry.start + _local_header_size(descriptor, entry)
        end = offset + entry.size
        _check_descriptor(descriptor, entry, end, following)
        records.append(Record(entry.name.decode(), offset, entry.size, None if has_no_crc32 else entry.crc32))
        headers.append((position, offset))
        position = end
    headers.append((position, directory.start))
    return records, headers


def _local_header_size(descriptor: int, entry: _Entry) -> int:
    """Return the size of the header before the contents of an entry. DamagedArchive if they contradict."""
    header = _bytes_at(descriptor, entry.start, LOCAL.size)
    signature, _, flags, method, _, _, crc32, stored, size, name_length, extra_length = LOCAL.unpack(header)
    rest = _bytes_at(descriptor, entry.start + LOCAL.size, name_length + extra_length)
    if stored == size == MAX32:
        size, stored = _with_zip64(rest[name_length:], size, stored)
    known = (crc32, stored, size)
    agree = known == (entry.crc32, entry.size, entry.size) or (flags & _STREAMED and known == (0, 0, 0))
    if signature != LOCAL_SIGNATURE or rest[:name_length] != entry.name or not agree:
        raise DamagedArchive(f"header and directory entry of {shown_name(entry.name)} differ")
    # Some writers mark ASCII names as UTF-8 in only one of the two places.
    if method != 0 or (flags ^ entry.flags) & ~_UTF8:
        raise DamagedArchive(f"header and directory entry of {shown_name(entry.name)} differ")
    return LOCAL.size + name_length + extra_length


def _check_descriptor(descriptor: int, entry: _Entry, end: int, following: int) -> None:
    """Check what is between the contents of an entry, which end at `end`, and the next header, at `following`."""
    found = _bytes_at(descriptor, end, following - end) if 0 <= following - end <= 24 else None
    expected = [b""]
    if entry.flags & _STREAMED:
        sizes = [struct.pack("<I2Q", entry.crc32, entry.size, entry.size)]
        if entry.size <= MAX32:
            sizes.append(struct.pack("<3I", entry.crc32, entry.size, entry.size))
        expected = [prefix + content for content in sizes for prefix in (b"", b"PK\7\x08")]
        if entry.size == 0:
            expected.append(b"")  # torch.save writes none
    if found not in expected:
        raise DamagedArchive(f"the end of {shown_name(entry.name)} is damaged, or bytes were added after it")


def _without_folder(records: list[Record]) -> dict[str, Record]:
    """Return the records by their names in the folder that contains all of them."""
    by_name: dict[str, Record] = {}
    if len({record.name.partition("/")[0] for record in records}) != 1:
        raise DamagedArchive("it does not consist of one folder")
    for record in records:
        name = record.name.partition("/")[2]
        if record.name.endswith("/") and record.size == 0:  # an entry for a folder
            continue
        if name in by_name:
            raise DamagedArchive(f"it contains {shown_name(record.name)} twice")
        by_name[name] = record
    if "data.pkl" not in by_name:
        raise DamagedArchive("it does not consist of one folder with a file data.pkl")
    return by_name
