"""What a manifest records of a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileFacts:
    """Name, size in bytes and modification time of a file and, for a prepared file, the CRC-32 of its bytes."""

    name: str
    size: int
    mtime_ns: int
    crc32: int | None = None

    @classmethod
    def of(cls, path: Path, crc32: int | None = None) -> FileFacts:
        """Return the facts of a file. OSError if it does not exist."""
        status = path.stat()
        return cls(path.name, status.st_size, status.st_mtime_ns, crc32)
