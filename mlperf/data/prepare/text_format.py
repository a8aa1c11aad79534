"""What a preparation must know of its input files: how blocks of them are read and parsed, and ids are mapped."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mlperf.data.columns.description import CRITEO_COLUMNS, ColumnsDescription
from mlperf.data.prepare.id_mapping import IdMapper
from mlperf.data.prepare.layout import CRITEO_LAYOUT, Layout
from mlperf.data.prepare.mapper import Mapper
from mlperf.data.prepare.parse import BlockParser, fault_error
from mlperf.data.prepared.id_numbering import IdNumbering
from mlperf.data.prepared.known_ids import KnownIds
from mlperf.data.schema import Rows
from mlperf.data.text.blocks import TextBlock, count_lines, text_blocks
from mlperf.data.text.faults import REASON_NAMES
from mlperf.settings.dataset import PreparationSettings
from mlperf.util.errors import RunError


class Block(Protocol):
    """Whole rows of an input file.

    length: bytes, for the progress report. end: position in the file, unzipped, at which the block ends.
    """

    @property
    def length(self) -> int: ...
    @property
    def end(self) -> int: ...


class ParsedRows(Protocol):
    """What a block contains. Ids are either in the rows, as Criteo's, or there are keys.

    rows: the good rows, int32 [N, columns]. keys: uint64 [N, ids per row]; where the id in `rows` is 0, it is the
        empty id and has no key.
    splits: uint8 [N], the split of each row if a column decides: 0 train, 1 test, 2 val.
    cut: number of fields of each categorical column, int64 [tables], that have more ids than are kept.
    lines: number of lines. faults: the lines that are no good rows: line in the block, reason, column, position.
    """

    @property
    def rows(self) -> Rows: ...
    @property
    def keys(self) -> npt.NDArray[np.uint64] | None: ...
    @property
    def splits(self) -> npt.NDArray[np.uint8] | None: ...
    @property
    def cut(self) -> npt.NDArray[np.int64] | None: ...
    @property
    def lines(self) -> int: ...
    @property
    def faults(self) -> npt.NDArray[np.int64]: ...


class Parser(Protocol):
    """Parses the blocks that a thread gets."""

    def parse(self, block: Any) -> ParsedRows:
        """Return the good rows and the faults of a block; the next call may overwrite them."""
        ...


class TextFormat(ABC):
    """columns: their description. layout: what the parsed rows become.

    reasons: the reasons for which rows are bad, for the manifest.

    first_line: number of lines before the rows, such as a header.
    standardized: columns of the rows whose mean and standard deviation are computed.
    """

    columns: ColumnsDescription = CRITEO_COLUMNS
    layout: Layout = CRITEO_LAYOUT
    reasons: Mapping[int, str]
    first_line: int = 0
    standardized: Sequence[int] = ()

    @abstractmethod
    def blocks(self, path: Path, start: int) -> Iterator[Block]:
        """Yield the blocks of a file from a position on, the end of a block or 0."""

    @abstractmethod
    def parser(self) -> Parser:
        """Return a parser for a thread."""

    @abstractmethod
    def mapper(self) -> Mapper:
        """Return a mapping of the ids, of none yet or with a given numbering."""

    @abstractmethod
    def error(self, path: Path, first_line: int, block: Any, fault: npt.NDArray[Any]) -> RunError:
        """Return the error for a row of `faults`. first_line: number of the first line of the block, from 1."""

    @abstractmethod
    def count_lines(self, path: Path) -> int:
        """Return the number of lines, without the header."""


class CriteoText(TextFormat):
    """Criteo's click logs."""

    reasons = REASON_NAMES

    def __init__(self, settings: PreparationSettings, numbering: IdNumbering | None = None) -> None:
        self._settings = settings
        self._numbering = numbering

    def blocks(self, path: Path, start: int) -> Iterator[TextBlock]:
        """See TextFormat."""
        return text_blocks(path, start)

    def parser(self) -> BlockParser:
        """See TextFormat."""
        return BlockParser(self._settings.max_ind_range, keep_negative=self._settings.traits.keeps_negative)

    def mapper(self) -> Mapper:
        """See TextFormat."""
        traits = self._settings.traits
        if self._numbering is not None:
            return KnownIds(self._numbering, self.columns, traits)
        return IdMapper(traits.first_index)

    def error(self, path: Path, first_line: int, block: TextBlock, fault: npt.NDArray[Any]) -> RunError:
        """See TextFormat."""
        return fault_error(path, first_line, block, fault)

    def count_lines(self, path: Path) -> int:
        """See TextFormat."""
        return count_lines(path)
