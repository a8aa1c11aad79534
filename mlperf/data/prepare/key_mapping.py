"""Map 64-bit keys to rows of the embedding tables, for columns that a description gives."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from mlperf.data.prepared.key_table import KeyTable
from mlperf.data.schema import MAX_TABLE_ROWS, Keys, Rows, RowSchema
from mlperf.util.errors import RunError
from mlperf.util.threads import Threads


class KeyMapper:
    """Numbers the keys of each table from `first_index` on, in order of first appearance; the empty id has row 0.

    max_rows: rows that a table may have at most.
    """

    grows = True

    def __init__(self, schema: RowSchema, first_index: int, *, max_rows: int = MAX_TABLE_ROWS) -> None:
        self._ids = schema.ids_per_table
        self._starts = [0, *accumulate(self._ids)]
        self._first_id = schema.first_id
        self._first_index = first_index
        self._max_keys = max_rows - first_index
        self._tables = [KeyTable() for _ in self._ids]

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of distinct keys of each table so far."""
        return tuple(table.count for table in self._tables)

    def map(self, rows: Rows, tables: Sequence[int], keys: Keys | None = None) -> None:
        """Write the numbers of the keys of `tables` to `rows`, int32 [N, columns], where these are not 0.

        keys: uint64 [N, ids per row]. Different threads may map different tables at the same time. RunError if a
        table would have too many rows.
        """
        assert keys is not None
        for table in tables:
            start, ids = self._starts[table], self._ids[table]
            fits = self._tables[table].map(
                rows, self._first_id + start, keys, start, ids, self._first_index, self._max_keys
            )
            if not fits:
                raise RunError(
                    f"categorical column {table + 1}: more than {self._max_keys} distinct ids do not fit the "
                    "int32 of the binary file"
                )

    def new_ids(self, first: Sequence[int], pool: Threads) -> list[Keys]:
        """Return the keys of each table from index `first[table]` on, uint64, in order."""
        return list(pool.map(lambda table: self.ids(table, first[table]), range(len(self._tables))))

    def ids(self, table: int, start: int = 0) -> Keys:
        """Return the keys of a table from index `start` on, uint64, in order of their numbers."""
        return self._tables[table].keys(start)

    def restore(self, ids: Sequence[Sequence[Keys]], pool: Threads) -> None:
        """Replace the mapping by saved keys: for each table, the parts that `new_ids` returned, in order."""

        def insert(table: int) -> None:
            self._tables[table] = KeyTable()
            for part in ids[table]:
                self._tables[table].insert(part)

        list(pool.map(insert, range(len(self._tables))))
