"""Text compressed by zstd, read with the package zstandard."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from mlperf.util.errors import UsageError

_PACKED_BYTES = 1 << 14  # which unpack to at most 512 MB
_SKIPPED_BYTES = 1 << 20


class DamagedZstdError(Exception):
    """A zstd file is damaged, cut off, or needs more memory than a decompressor is allowed to use."""


class ZstdFile(io.RawIOBase):
    """The unpacked contents of a zstd file of one or several frames.

    Checksums of frames are compared. A file that ends within a frame raises DamagedZstdError.
    """

    def __init__(self, path: Path) -> None:
        """Open a file. UsageError if zstandard is not installed."""
        try:
            import zstandard
        except ImportError:
            raise UsageError(f"{path}: .zst requires the package zstandard (pip install zstandard)") from None
        self._zstandard: Any = zstandard
        self._file = path.open("rb")
        self._position = 0
        self._unpacked = memoryview(b"")
        self._packed = b""
        self._frame: Any = None  # the decompressor of a frame whose end is not yet read

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return whether `seek` is possible: it reads up to a position further on."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Read up to a later position, from the beginning of the file; return the position reached."""
        if whence != io.SEEK_SET or offset < self._position:
            raise io.UnsupportedOperation("only a later position from the beginning of a zstd file can be sought")
        buffer = memoryview(bytearray(_SKIPPED_BYTES))
        while self._position < offset and self.readinto(buffer[: offset - self._position]):
            pass
        return self._position

    def tell(self) -> int:
        """Return the position in the unpacked contents."""
        return self._position

    def packed_bytes(self) -> int:
        """Return the number of bytes of the file that have been read."""
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        """Fill the beginning of `buffer`; return the number of bytes, 0 at the end."""
        target = memoryview(buffer).cast("B")
        while not self._unpacked and self._unpack():
            pass
        count = min(len(target), len(self._unpacked))
        target[:count] = self._unpacked[:count]
        self._unpacked = self._unpacked[count:]
        self._position += count
        return count

    def _unpack(self) -> bool:
        """Unpack the next part; return whether there is more."""
        packed = self._packed or self._file.read(_PACKED_BYTES)
        self._packed = b""
        if not packed:
            if self._frame is not None:
                raise DamagedZstdError("it ends within a frame")
            return False
        if self._frame is None:
            self._frame = self._zstandard.ZstdDecompressor().decompressobj()
        try:
            self._unpacked = memoryview(self._frame.decompress(packed))
        except self._zstandard.ZstdError as error:
            raise DamagedZstdError(str(error)) from None
        if self._frame.eof:
            self._packed, self._frame = self._frame.unused_data, None
        return True
