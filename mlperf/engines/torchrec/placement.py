"""Where the tables are stored, as text and in bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from mlperf.engines.torchrec.allowed import CACHED

_MB = 10**6


@dataclass(frozen=True)
class TableMemory:
    """Bytes that a process can use for tables and their optimizer state.

    device: of the GPU; 0 on a CPU. host: of its share of host memory.
    """

    device: int
    host: int


@dataclass(frozen=True)
class TablePlacement:
    """Where one table is stored.

    number, rows: of the table. kind: of --sharding. kernel: as in `allowed.py`. parts: the rank and the bytes of
    each part, of the rows and of the optimizer's state.
    """

    number: int
    rows: int
    kind: str
    kernel: str
    parts: Sequence[tuple[int, int]]

    @property
    def ranks(self) -> list[int]:
        """The processes that have a part, in ascending order."""
        return sorted({rank for rank, _ in self.parts})

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(size for _, size in self.parts)


def bytes_by_rank(placements: Sequence[TablePlacement], processes: int, kernel: str | None = None) -> list[int]:
    """Return the bytes that each process stores; with `kernel`, only those of tables with it."""
    sizes = [0] * processes
    for placement in placements:
        if kernel in (None, placement.kernel):
            for rank, size in placement.parts:
                sizes[rank] += size
    return sizes


def describe_placements(placements: Sequence[TablePlacement], processes: int) -> Iterator[str]:
    """Yield the plan as lines: one for each table, the MB of each process, and what is in host memory."""
    sizes = bytes_by_rank(placements, processes)
    digits = 1 if sum(sizes) > 100 * _MB else 3
    table = [("table", "rows", "sharding", "ranks", "MB")]
    for placement in placements:
        kind = placement.kind if placement.kernel != CACHED else f"{placement.kind}, cached"
        ranks, size = shown_ranks(placement.ranks), f"{placement.size / _MB:,.{digits}f}"
        table.append((str(placement.number), f"{placement.rows:,}", kind, ranks, size))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for number, rows, kind, ranks, size in table:
        yield (
            f"{number:>{widths[0]}}  {rows:>{widths[1]}}  {kind:<{widths[2]}}  {ranks:<{widths[3]}}  "
            f"{size:>{widths[4]}}"
        )
    imbalance = max(sizes) * processes / sum(sizes)
    shown = " ".join(f"{size / _MB:,.{digits}f}" for size in sizes)
    yield f"tables and their optimizer state, MB of each rank: {shown}; largest / mean: {imbalance:.2f}"
    cached = [placement for placement in placements if placement.kernel == CACHED]
    if cached:
        numbers = ", ".join(str(placement.number) for placement in cached)
        megabytes = sum(placement.size for placement in cached) / _MB
        yield f"tables {numbers} ({megabytes:,.1f} MB) are in host memory with a cache on the GPU, which is slower"


def shown_ranks(ranks: Sequence[int]) -> str:
    """Return ascending numbers with ranges: "0-3,6"."""
    parts = []
    for _, run in groupby(enumerate(ranks), key=lambda pair: pair[1] - pair[0]):
        numbers = [rank for _, rank in run]
        parts.append(str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}")
    return ",".join(parts)
