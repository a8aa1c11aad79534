"""Records of a checkpoint: each is read once, into its tensors, and compared with its CRC-32 meanwhile."""

from __future__ import annotations

import bisect
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from mlperf.training.checkpoint_archive import DamagedArchive, Record
from mlperf.util.crc32 import bytes_crc32, combine_crc32
from mlperf.util.files import read_fully_at
from mlperf.util.parallel import Stages, run_in_order
from mlperf.util.printable import shown_name
from mlperf.util.tensors import BLOCK_BYTES, flattened, pieces, staging_buffer
from mlperf.util.threads import available_cores

_READ_AHEAD = 8 * BLOCK_BYTES
_MAX_THREADS = 16


@dataclass(frozen=True)
class _Block:
    """A part of a record that is read at once."""

    record: Record
    offset: int
    size: int


@dataclass(frozen=True)
class _Part:
    """Bytes of the file from `start` to `end`, elements of type `dtype`, that belong to `target` [elements]."""

    start: int
    end: int
    dtype: torch.dtype
    target: torch.Tensor

    def section(self, start: int, end: int) -> torch.Tensor:
        """Return the elements of the target that are between two offsets of the file."""
        size = self.dtype.itemsize
        return self.target[(start - self.start) // size : (end - self.start) // size]

    def contains(self, block: _Block) -> bool:
        """Return whether a block can be read into the memory of the target."""
        is_inside = self.start <= block.offset and block.offset + block.size <= self.end
        return is_inside and self.target.device.type == "cpu" and self.target.dtype == self.dtype


class Records:
    """Records of an open file, which is mapped at address `base`. Each record is compared with its CRC-32 once."""

    def __init__(self, descriptor: int, records: Iterable[Record], base: int) -> None:
        self._descriptor = descriptor
        self._records = sorted(records, key=lambda record: record.offset)
        self._offsets = [record.offset for record in self._records]
        self._base = base
        self._verified: set[str] = set()

    def fill(self, pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Copy the second tensor of each pair to the first, of the same shape, and verify the records they need.

        Elements are converted if the first tensor has another dtype, rounded to the nearest value. Any device is
        filled through small blocks of host memory. The second tensors are views of the mapped file. DamagedArchive
        if a record has another CRC-32, OSError if the file cannot be read.
        """
        parts: list[_Part] = []
        others: list[tuple[torch.Tensor, torch.Tensor]] = []
        records: dict[str, Record] = {}
        for target, source in pairs:
            record = self._record_of(source)
            if record is not None and record.name not in self._verified and _same_order(target, source):
                start = source.data_ptr() - self._base
                parts.append(_Part(start, start + source.nbytes, source.dtype, flattened(target.detach())))
            else:
                others.append((target, source))
            if record is not None:
                records[record.name] = record
        self._read(list(records.values()), parts)
        for target, source in others:
            elements = BLOCK_BYTES // max(target.element_size(), source.element_size())
            for into, piece in zip(pieces(target.detach(), elements), pieces(source, elements), strict=True):
                into.copy_(piece)

    def verify(self, records: Sequence[Record] | None = None) -> None:
        """Verify the records that were not verified yet, all or some. Errors as for `fill`."""
        self._read(self._records if records is None else records, [])

    def _record_of(self, source: torch.Tensor) -> Record | None:
        """Return the record that a tensor is a view of, None if it has no elements or is not from the file."""
        place = bisect.bisect_right(self._offsets, source.data_ptr() - self._base) - 1
        # Empty records have the offset of what follows.
        record = self._records[place] if place >= 0 else None
        inside = record is not None and source.data_ptr() - self._base < record.offset + record.size
        return record if inside and source.numel() else None

    def _read(self, records: Sequence[Record], parts: list[_Part]) -> None:
        """Read the records that are not verified yet, into `parts`, and compare their CRC-32s."""
        records = sorted(
            (record for record in records if record.name not in self._verified), key=lambda record: record.offset
        )
        parts = sorted(parts, key=lambda part: part.start)
        found: dict[tuple[str, int], int] = {}
        blocks = [block for record in records for block in _blocks(record)]

        def make_worker(gate: Stages) -> Callable[[int, _Block], None]:
            size = min(BLOCK_BYTES, max(block.size for block in blocks))
            scratch = staging_buffer(size, [part.target.device for part in parts])

            def read(number: int, block: _Block) -> None:
                found[block.record.name, block.offset] = self._read_block(block, parts, scratch)

            return read

        threads = min(available_cores(), _MAX_THREADS, len(blocks))
        run_in_order(iter(blocks), make_worker, threads=threads, stages=0)
        for record in records:
            total = 0
            for block in _blocks(record):
                total = combine_crc32(total, found[record.name, block.offset], block.size)
            if record.crc32 not in (None, total):
                raise DamagedArchive(f"the contents of {shown_name(record.name)} do not have their CRC-32")
            self._verified.add(record.name)

    def _read_block(self, block: _Block, parts: list[_Part], scratch: torch.Tensor) -> int:
        """Read a block into the parts that overlap it, and return its CRC-32."""
        start, end = block.offset, block.offset + block.size
        first = bisect.bisect_right(parts, start, key=lambda part: part.end)
        overlapping = []
        for part in parts[first:]:
            if part.start >= end:
                break
            overlapping.append(part)
        is_direct = len(overlapping) == 1 and overlapping[0].contains(block)
        buffer = scratch[: block.size]
        if is_direct:
            buffer = overlapping[0].section(start, end).view(torch.uint8)
        content = buffer.numpy().data
        # Several threads read, which the system does not recognize as reading in order.
        os.posix_fadvise(self._descriptor, start + _READ_AHEAD, BLOCK_BYTES, os.POSIX_FADV_WILLNEED)
        if read_fully_at(self._descriptor, content, start) < block.size:
            raise DamagedArchive("it was truncated while it was read")
        found = bytes_crc32(content)
        for part in [] if is_direct else overlapping:
            low, high = max(start, part.start), min(end, part.end)
            part.section(low, high).copy_(buffer[low - start : high - start].view(part.dtype))
        return found


def _blocks(record: Record) -> Iterator[_Block]:
    """Return the blocks of a record; one, without content, if it is empty."""
    for done in range(0, max(record.size, 1), BLOCK_BYTES):
        yield _Block(record, record.offset + done, min(BLOCK_BYTES, record.size - done))


def _same_order(target: torch.Tensor, source: torch.Tensor) -> bool:
    """Return whether consecutive bytes of `source` become consecutive elements of `target`."""
    is_real = not target.is_complex() and not source.is_complex()
    return is_real and target.shape == source.shape and target.is_contiguous() and source.is_contiguous()
