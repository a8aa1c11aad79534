"""Text whose rows are scored: they get the numbers of an earlier preparation, and may have no labels."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from mlperf.data.prepare.scored_file import ParsedRows, ScoredFile
from mlperf.data.prepared.known_ids import KnownIds
from mlperf.data.schema import Rows
from mlperf.data.source import read_ahead
from mlperf.util.errors import RunError
from mlperf.util.failures import system_failures


class ScoredText:
    """The rows of a file of text.

    path: of the file. ids: the numbers of its ids.
    cut_fields: number of fields of each table so far, int64 [tables], with more ids than are kept.
    """

    def __init__(self, path: Path, file: ScoredFile, ids: KnownIds) -> None:
        self.path = path
        self._file = file
        self._tables = range(len(ids.unknown))
        self.ids = ids
        self._mapping = threading.Lock()
        self.cut_fields = np.zeros(len(ids.unknown), np.int64)

    @property
    def has_labels(self) -> bool:
        """Whether each row has a label; otherwise, it is 0 in all rows."""
        return self._file.has_label

    def rows(self, threads: int) -> Iterator[Rows]:
        """Yield the rows in the order of the text, int32 [n, columns], parsed by threads that read ahead.

        RunError if the text has no rows or a bad one, is damaged or cannot be read.
        """
        rows_before = 0
        with (
            system_failures(self.path, "cannot be read"),
            closing(read_ahead(self._read, self._file.blocks(), threads)) as found,
        ):
            for block, parsed in found:
                if len(parsed.faults):
                    raise self._file.fault_error(rows_before, block, parsed.faults[0])
                rows_before += parsed.lines
                if parsed.cut is not None:
                    self.cut_fields += parsed.cut
                yield parsed.rows
        if rows_before == 0:
            raise RunError(f"{self.path}: has no rows")

    def _read(self, block: Any) -> tuple[Any, ParsedRows]:
        """Parse a block, into memory of its own, and number its ids."""
        parsed = self._file.parser().parse(block)
        if not len(parsed.faults):
            with self._mapping:  # it counts unknown ids
                self.ids.map(parsed.rows, self._tables, parsed.keys)
        if not self.has_labels:
            parsed.rows[:, 0] = 0
        return block, parsed


def in_whole_batches(parts: Iterator[Rows], batch_size: int, rows_at_a_time: int) -> Iterator[Rows]:
    """Yield the same rows in parts of whole batches, so that batches are those of one long array.

    rows_at_a_time: each part but the last has at least this number of rows.
    """
    waiting: list[Rows] = []
    count, wanted = 0, -(-rows_at_a_time // batch_size) * batch_size
    for part in parts:
        waiting.append(part)
        count += len(part)
        if count >= wanted:
            rows = np.concatenate(waiting)
            whole = count // batch_size * batch_size
            yield rows[:whole]
            waiting, count = [rows[whole:]], count - whole
    if count:
        yield np.concatenate(waiting)
