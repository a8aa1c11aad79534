"""Map ids to the rows that they have in the tables of an earlier preparation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from mlperf.benchmarks.data_sets import DataSetTraits
from mlperf.data.columns.description import ColumnsDescription
from mlperf.data.prepared.id_numbering import IdNumbering
from mlperf.data.prepared.key_table import KeyTable
from mlperf.data.schema import Keys, Rows
from mlperf.util.threads import Threads

_EMPTY_KEY = np.uint64(0)  # of an empty id in Criteo's text, which is no other than the id 0


class KnownIds:
    """The numbering in a file X.ids. An id that it lacks gets the row of the empty id.

    unknown: number of ids of each table so far that the numbering lacks.
    without_empty_row: tables, of Criteo's data sets, without a row of the empty id. Row 0 is used instead.
    """

    grows = False

    def __init__(self, numbering: IdNumbering, columns: ColumnsDescription, traits: DataSetTraits) -> None:
        schema = columns.schema
        self.numbering = numbering
        self.unknown = [0] * schema.tables
        self.without_empty_row: tuple[int, ...] = ()
        self._ids = schema.ids_per_table
        self._starts = [0, *accumulate(self._ids)]
        self._first_id = schema.first_id
        self._has_keys = traits.has_columns_file
        self._reserves_rows = traits.first_index > 0  # then row 0 is that of the empty id, and of unknown ones
        self._tables: list[KeyTable] = []
        self._empty_rows = [0] * schema.tables

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of distinct ids of each table."""
        return tuple(column.count for column in self.numbering.columns)

    def load(self, pool: Threads) -> None:
        """Read the ids. RunError if the file is damaged."""

        def read(table: int) -> KeyTable:
            keys = KeyTable()
            keys.insert(self.numbering.keys(table))
            return keys

        self._tables = list(pool.map(read, range(len(self._ids))))
        if not self._reserves_rows:
            found = [table.number(_EMPTY_KEY) for table in self._tables]
            self.without_empty_row = tuple(table for table, number in enumerate(found) if number is None)
            self._empty_rows = [number or 0 for number in found]

    def map(self, rows: Rows, tables: Sequence[int], keys: Keys | None = None) -> None:
        """Write the numbers of the ids of `tables` to `rows`, int32 [N, columns], as a Mapper does."""
        for table in tables:
            start, ids = self._starts[table], self._ids[table]
            column, first = self._first_id + start, start
            keys_of_table = keys
            if not self._has_keys:
                keys_of_table, first = _keys_in(rows, column), 0
            assert keys_of_table is not None
            shift, empty_row = self.numbering.columns[table].first_index, self._empty_rows[table]
            missing = self._tables[table].find(rows, column, keys_of_table, first, ids, shift, empty_row)
            self.unknown[table] += missing

    def ids(self, table: int, start: int = 0) -> Keys:
        """Return the keys of a table from index `start` on, uint64, in order of their numbers."""
        return self.numbering.keys(table)[start:]

    def new_ids(self, first: Sequence[int], pool: Threads) -> list[Keys]:
        """Return no ids: none are added."""
        return [np.empty(0, np.uint64) for _ in self._ids]

    def restore(self, ids: Sequence[Sequence[Any]], pool: Threads) -> None:
        """Do nothing: the numbering is in its file."""


def _keys_in(rows: Rows, column: int) -> Keys:
    """Return the ids of a column as keys, uint64 [N, 1], and mark all of them as ids."""
    keys = rows[:, column : column + 1].view(np.uint32).astype(np.uint64)
    rows[:, column] = 1
    return keys
