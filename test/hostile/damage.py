"""Damage to the bytes of a file: what disks, transfers, editors and archivers do to it."""

from __future__ import annotations

import io
import random
import warnings
import zipfile
from collections.abc import Callable

# The bytes of a file, another file of the same kind, and random numbers, to the damaged bytes.
Damage = Callable[[bytes, bytes, random.Random], bytes]

_BLOCKS = (16, 64, 512, 4096, 65536)


def flipped_bit(content: bytes, other: bytes, draw: random.Random) -> bytes:
    return _replaced(content, at := draw.randrange(len(content)), bytes([content[at] ^ 1 << draw.randrange(8)]))


def flipped_bit_near_an_end(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """The headers of most formats are at the start or at the end."""
    near = draw.randrange(min(4096, len(content)))
    at = draw.choice([near, len(content) - 1 - near])
    return _replaced(content, at, bytes([content[at] ^ 1 << draw.randrange(8)]))


def random_bytes(content: bytes, other: bytes, draw: random.Random) -> bytes:
    at, size = _block(content, draw)
    return _replaced(content, at, draw.randbytes(size))


def zeroed_block(content: bytes, other: bytes, draw: random.Random) -> bytes:
    at, size = _block(content, draw)
    return _replaced(content, at, bytes(size))


def truncated(content: bytes, other: bytes, draw: random.Random) -> bytes:
    rest = draw.choice([draw.randrange(len(content)), draw.randrange(min(300, len(content)))])
    return content[: len(content) - 1 - rest]


def without_start(content: bytes, other: bytes, draw: random.Random) -> bytes:
    return content[1 + draw.choice([draw.randrange(len(content)), draw.randrange(min(300, len(content)))]) :]


def duplicated_block(content: bytes, other: bytes, draw: random.Random) -> bytes:
    at, size = _block(content, draw)
    return content[: at + size] + content[at:]


def removed_block(content: bytes, other: bytes, draw: random.Random) -> bytes:
    at, size = _block(content, draw)
    return content[:at] + content[at + size :]


def swapped_blocks(content: bytes, other: bytes, draw: random.Random) -> bytes:
    size = draw.choice(_BLOCKS[:-1])
    first, second = (size * draw.randrange(max(1, len(content) // size)) for _ in range(2))
    blocks = content[first : first + size], content[second : second + size]
    return _replaced(_replaced(content, first, blocks[1]), second, blocks[0])[: len(content)]


def appended_bytes(content: bytes, other: bytes, draw: random.Random) -> bytes:
    extra = draw.choice([b"\n", b"\r\n", bytes(512), draw.randbytes(draw.randint(1, 70_000)), content])
    return content + extra


def end_of_another(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Two versions of a file, of which the second was written only in part, or over the first."""
    at = draw.randrange(len(content))
    return draw.choice([content[:at] + other[at:], other[:at] + content[at:]])


def block_of_another(content: bytes, other: bytes, draw: random.Random) -> bytes:
    at, size = _block(content, draw)
    return _replaced(content, at, other[at : at + size])


def converted_as_text(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """A transfer in text mode."""
    changes = [(b"\n", b"\r\n"), (b"\r\n", b"\n"), (b"\x00", b""), (b"\x1a", b""), (content[:1], b"")]
    old, new = draw.choice([change for change in changes if change[0] in content])
    return content.replace(old, new)


def seven_bits(content: bytes, other: bytes, draw: random.Random) -> bytes:
    return bytes(byte & 127 for byte in content)


EVERY_FORMAT: tuple[Damage, ...] = (
    *(flipped_bit, flipped_bit_near_an_end, random_bytes, zeroed_block, truncated, without_start),
    *(duplicated_block, removed_block, swapped_blocks, appended_bytes, end_of_another, block_of_another),
    *(converted_as_text, seven_bits),
)


_NAME = 0  # size of a field that is a name

# Signatures of the headers of a zip archive, with the offsets and sizes of their fields.
_HEADERS = (
    (b"PK\x03\x04", ((4, 2), (6, 2), (8, 2), (10, 4), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2), (30, _NAME))),
    (
        b"PK\x01\x02",
        ((8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (42, 4), (46, _NAME)),
    ),
    (b"PK\x05\x06", ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2))),
    (b"PK\x06\x06", ((4, 8), (12, 2), (16, 4), (24, 8), (32, 8), (40, 8), (48, 8))),
    (b"PK\x06\x07", ((4, 4), (8, 8), (16, 4))),
    (b"\x01\x00\x10\x00", ((0, 2), (2, 2), (4, 8), (12, 8))),  # 64-bit sizes before a record
    (b"\x01\x00\x18\x00", ((0, 2), (2, 2), (4, 8), (12, 8), (20, 8))),  # and in the directory
)


def header_field(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Change one field of a zip archive's local headers, central directory or end record."""
    signature, fields = draw.choice([header for header in _HEADERS if header[0] in content])
    places = _occurrences(content, signature)
    offset, size = draw.choice(fields)
    at = draw.choice(places) + offset
    old = content[at : at + size]
    if size == _NAME:
        index = draw.randrange(8)
        return _replaced(content, at + index, draw.choice([b"\x00", b"/", b"\xff", b"0", b"7", b"\x1b"]))
    number = int.from_bytes(old, "little")
    limit = 256**size
    another = int.from_bytes(content[draw.choice(places) + offset :][:size], "little")
    values = (0, 1, 8, limit - 1, limit // 2, number + 1, number - 1, 2 * number, number ^ 1, number ^ 8, another)
    return _replaced(content, at, (draw.choice(values) % limit).to_bytes(size, "little"))


def compressed(content: bytes, other: bytes, draw: random.Random) -> bytes:
    method = draw.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    return _archive(_records(content), method)


def stored_again(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Unpacked and packed again without compression, which loses the alignment and may change the order."""
    records = _records(content)
    draw.shuffle(records)
    return _archive(records)


def record_removed(content: bytes, other: bytes, draw: random.Random) -> bytes:
    records = _records(content)
    del records[draw.randrange(len(records))]
    return _archive(records)


def record_repeated(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Two records of one name, the second with other content."""
    records = _records(content)
    name, data = draw.choice(records)
    return _archive([*records, (name, bytes(len(data)))])


def record_added(content: bytes, other: bytes, draw: random.Random) -> bytes:
    records = _records(content)
    folder = records[0][0].partition("/")[0]
    extra = draw.choice([f"{folder}/data/99999", f"{folder}/constants.pkl", "../outside", "/tmp/outside", "x/y"])
    return _archive([*records, (extra, draw.randbytes(100))])


def record_shortened(content: bytes, other: bytes, draw: random.Random) -> bytes:
    records = _records(content)
    index = draw.randrange(len(records))
    name, data = records[index]
    records[index] = (name, draw.choice([data[: len(data) // 2], data[:-1], data + b"\x00", b""]))
    return _archive(records)


# They write valid checksums: what is read is what the file says, or the file is refused.
REPACKED: tuple[Damage, ...] = (
    *(compressed, stored_again, record_removed, record_repeated, record_added, record_shortened),
)


def records_swapped(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """The contents of two records of equal size exchanged."""
    records = _records(content)
    sizes = [len(data) for _, data in records]
    pairs = [(i, j) for i in range(len(records)) for j in range(i) if sizes[i] == sizes[j]]
    first, second = draw.choice(pairs)
    names = records[first][0], records[second][0]
    records[first], records[second] = (names[0], records[second][1]), (names[1], records[first][1])
    return _archive(records)


def record_of_another(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """A record exchanged for that of another checkpoint of the same run."""
    records, others = _records(content), dict(_bare(_records(other)))
    index = draw.randrange(len(records))
    name = records[index][0]
    records[index] = (name, others.get(name.partition("/")[2], b""))
    return _archive(records)


# Only a digest of the whole file can tell these.
RECORDS_EXCHANGED: tuple[Damage, ...] = (records_swapped, record_of_another)


def _records(content: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def _bare(records: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Return records without the folder in their names."""
    return [(name.partition("/")[2], data) for name, data in records]


def _archive(records: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")  # two records of one name
        for name, data in records:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            archive.writestr(info, data)
    return file.getvalue()


def _occurrences(content: bytes, signature: bytes) -> list[int]:
    places, at = [], content.find(signature)
    while at >= 0:
        places.append(at)
        at = content.find(signature, at + 1)
    return places


def _block(content: bytes, draw: random.Random) -> tuple[int, int]:
    """Return the offset and size of a block, often aligned as on a disk."""
    size = min(draw.choice(_BLOCKS), len(content))
    at = draw.randrange(len(content) - size + 1)
    return (at - at % size if draw.random() < 0.5 else at), size


def _replaced(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]
