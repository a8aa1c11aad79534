"""What maps the ids of a block to rows of the embedding tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from mlperf.data.schema import Rows
from mlperf.util.threads import Threads


class Mapper(Protocol):
    """IdMapper for the ids of Criteo's columns, which are in the rows; KeyMapper for 64-bit keys beside them.

    KnownIds for either, with the numbering of an earlier preparation. grows: whether new ids are numbered.
    """

    grows: bool

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of distinct ids of each table so far."""
        ...

    def map(self, rows: Rows, tables: Sequence[int], keys: Any = None) -> None:
        """Write the numbers of the ids of `tables` to `rows`. keys: uint64 [N, ids per row], None for IdMapper."""
        ...

    def new_ids(self, first: Sequence[int], pool: Threads) -> Sequence[Any]:
        """Return the ids of each table from index `first[table]` on, unsigned, in order."""
        ...

    def ids(self, table: int, start: int = 0) -> Any:
        """Return the ids of a table from index `start` on, unsigned, in order of their numbers."""
        ...

    def restore(self, ids: Sequence[Sequence[Any]], pool: Threads) -> None:
        """Replace the mapping by saved ids: for each table, the parts that `new_ids` returned, in order."""
        ...
