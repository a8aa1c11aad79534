"""A file of text that is scored with the numbering of prepared data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mlperf.benchmarks.data_sets import DataSetTraits
from mlperf.data.columns.log_file import open_log
from mlperf.data.prepare.criteo_file import CriteoFile
from mlperf.data.prepare.text_format import ParsedRows
from mlperf.data.prepared.dataset import PreparedData
from mlperf.util.errors import RunError


class RowParser(Protocol):
    """Parses the blocks of a file, one at a time."""

    def parse(self, block: Any, /) -> ParsedRows:
        """Return the rows of a block."""
        ...


class ScoredFile(Protocol):
    """A file of rows. has_label: whether they have labels."""

    has_label: bool

    def blocks(self) -> Iterator[Any]:
        """Yield the rows in blocks."""
        ...

    def parser(self) -> RowParser:
        """Return a parser for a thread."""
        ...

    def fault_error(self, rows_before: int, block: Any, fault: npt.NDArray[np.int64], /) -> RunError:
        """Return the error for a row of `Faults`. rows_before: number of rows before the block."""
        ...


def open_scored_file(path: Path, prepared: PreparedData, traits: DataSetTraits) -> ScoredFile:
    """Return a file whose rows have the columns of prepared data, with or without the label.

    RunError if it is empty or damaged or lacks a column, OSError if it cannot be read.
    """
    if traits.has_columns_file:
        return open_log(path, replace(prepared.columns, split=None), label_optional=True)
    assert prepared.max_ind_range is not None
    return CriteoFile(path, traits, prepared.max_ind_range)
