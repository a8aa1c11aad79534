"""Headers of zip archives (PKWARE's APPNOTE, sections 4.3 and 4.5.3): their layout, and those of a new archive."""

from __future__ import annotations

import struct
from collections.abc import Sequence

# Numbers are little-endian. Names and extra fields follow LOCAL and CENTRAL, a comment follows END.
LOCAL = struct.Struct("<4s5H3I2H")  # before the contents of a record
CENTRAL = struct.Struct("<4s6H3I5H2I")  # an entry of the directory
END64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR = struct.Struct("<4sIQI")  # of END64
END = struct.Struct("<4s4H2IH")

# The first four bytes of each.
LOCAL_SIGNATURE, CENTRAL_SIGNATURE, END_SIGNATURE = b"PK\3\4", b"PK\1\2", b"PK\5\6"
END64_SIGNATURE, LOCATOR_SIGNATURE = b"PK\6\6", b"PK\6\7"

MAX16, MAX32 = 0xFFFF, 0xFFFFFFFF  # in place of a number that is in a field of 64 bits

_ALIGNMENT = 64  # of the contents of a record, as torch.save aligns them
_PADDING = 0x4246  # type of the extra field with which torch.save aligns them
ZIP64 = 1  # type of the extra field with numbers of 64 bits
_VERSION = 45  # the first that has them
_DATE = 1 << 5 | 1  # 1980-01-01, so that equal contents give equal files


class NewRecord:
    """A record of an archive that is written: `size` bytes at `offset`, with the header before them, at `start`.

    crc32: to be set before the headers are written. end: where the next header may begin.
    """

    def __init__(self, name: str, size: int, start: int) -> None:
        self.size, self.start, self.crc32 = size, start, 0
        self._name = name.encode()
        self._sizes = _numbers(size, size)
        unpadded = start + LOCAL.size + len(self._name) + len(self._sizes) + 4
        self._padding = -unpadded % _ALIGNMENT
        self.offset = unpadded + self._padding
        self.end = self.offset + size

    def header(self) -> bytes:
        """Return the header before the contents."""
        extra = self._sizes + struct.pack("<2H", _PADDING, self._padding) + bytes(self._padding)
        lengths = (len(self._name), len(extra))
        fields = LOCAL.pack(LOCAL_SIGNATURE, _VERSION, 0, 0, 0, _DATE, self.crc32, MAX32, MAX32, *lengths)
        return fields + self._name + extra

    def entry(self) -> bytes:
        """Return the entry of the directory."""
        extra = _numbers(self.size, self.size, self.start)
        before = (_VERSION, _VERSION, 0, 0, 0, _DATE, self.crc32)
        lengths = (len(self._name), len(extra), 0)
        return (
            CENTRAL.pack(CENTRAL_SIGNATURE, *before, MAX32, MAX32, *lengths, 0, 0, 0, MAX32) + self._name + extra
        )


def _numbers(*numbers: int) -> bytes:
    """Return an extra field with numbers of 64 bits."""
    return struct.pack(f"<2H{len(numbers)}Q", ZIP64, 8 * len(numbers), *numbers)


def directory(records: Sequence[NewRecord]) -> bytes:
    """Return the directory of an archive and the end of the file, which follow the last record."""
    entries = b"".join(record.entry() for record in records)
    count, start = len(records), records[-1].end
    sizes = (count, count, len(entries), start)
    end64 = END64.pack(END64_SIGNATURE, END64.size - 12, _VERSION, _VERSION, 0, 0, *sizes)
    locator = LOCATOR.pack(LOCATOR_SIGNATURE, 0, start + len(entries), 1)
    return entries + end64 + locator + END.pack(END_SIGNATURE, 0, 0, MAX16, MAX16, MAX32, MAX32, 0)
