"""What a preparation must know of its input files: how blocks of them are read and parsed, and ids are mapped."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mlperf.data.columns.description import CRITEO_COLUMNS, ColumnsDescription
from mlperf.data.columns.source import Block
from mlperf.data.prepare.id_mapping import IdMapper
from mlperf.data.prepare.layout import CRITEO_LAYOUT, Layout
from mlperf.data.prepare.mapper import Mapper
from mlperf.data.prepare.parse import BlockParser, fault_error
from mlperf.data.prepared.id_numbering import IdNumbering
from mlperf.data.prepared.known_ids import KnownIds
from mlperf.data.schema import Rows
from mlperf.data.text.blocks import TextBlock, count_lines, text_blocks
from mlperf.data.text.compressed import COMPRESSIONS, compression, open_text, unpacked_size
from mlperf.data.text.faults import REASON_NAMES
from mlperf.settings.dataset import PreparationSettings
from mlperf.util.errors import RunError
from mlperf.util.failures import damage

_SAMPLE_BYTES = 1 << 16  # of text, from which the number of its rows is estimated


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


Parse = Callable[[int, Any], ParsedRows]  # of a block of an input file; the next call may overwrite the rows


class TextFormat(ABC):
    """columns: their description. layout: what the parsed rows become.

    reasons: the reasons for which rows are bad, for the manifest.
    standardized: columns of the rows whose mean and standard deviation are computed.
    inputs: the input files. numbering: that of the ids, if it is given; otherwise they are numbered anew.
    """

    columns: ColumnsDescription = CRITEO_COLUMNS
    layout: Layout = CRITEO_LAYOUT
    reasons: Mapping[int, str] = REASON_NAMES
    standardized: Sequence[int] = ()

    def __init__(
        self, inputs: Sequence[Path], settings: PreparationSettings, numbering: IdNumbering | None
    ) -> None:
        self._inputs = inputs
        self._settings = settings
        self._numbering = numbering

    @abstractmethod
    def blocks(self, file: int, start: int) -> Iterator[Block]:
        """Yield the blocks of an input file from a position on, the end of a block or 0."""

    @abstractmethod
    def parser(self) -> Parse:
        """Return the function with which a thread parses the blocks of an input file."""

    @abstractmethod
    def new_mapper(self) -> Mapper:
        """Return a mapping of no ids."""

    @abstractmethod
    def error(self, file: int, lines: int, block: Any, fault: npt.NDArray[np.int64]) -> RunError:
        """Return the error for a row of `faults`. lines: number of rows of the input file before the block."""

    @abstractmethod
    def size(self, file: int) -> tuple[int, int]:
        """Return the bytes of an input file, unpacked, and those of its rows in the binary file, estimated."""

    @abstractmethod
    def count_rows(self, file: int) -> int:
        """Return the number of rows, good and bad, of an input file."""

    def mapper(self) -> Mapper:
        """Return a mapping of the ids, of none yet or with a given numbering."""
        if self._numbering is not None:
            return KnownIds(self._numbering, self.columns, self._settings.traits)
        return self.new_mapper()


class CriteoText(TextFormat):
    """Criteo's click logs."""

    def blocks(self, file: int, start: int) -> Iterator[TextBlock]:
        """See TextFormat."""
        return text_blocks(self._inputs[file], start)

    def parser(self) -> Parse:
        """See TextFormat."""
        settings = self._settings
        parser = BlockParser(settings.max_ind_range, keep_negative=settings.traits.keeps_negative)
        return lambda file, block: parser.parse(block)

    def new_mapper(self) -> IdMapper:
        """See TextFormat."""
        return IdMapper(self._settings.traits.first_index)

    def error(self, file: int, lines: int, block: TextBlock, fault: npt.NDArray[np.int64]) -> RunError:
        """See TextFormat."""
        return fault_error(self._inputs[file], lines + 1, block, fault)

    def size(self, file: int) -> tuple[int, int]:
        """See TextFormat."""
        path = self._inputs[file]
        with damage(path, f"damaged {compression(path)} file") if path.suffix in COMPRESSIONS else nullcontext():
            with open_text(path) as opened:
                head = opened.read(_SAMPLE_BYTES) or b""
            text_bytes = unpacked_size(path)
        ratio = max(1, head.count(b"\n")) * self.layout.schema.row_bytes / max(1, len(head))
        return text_bytes, int(text_bytes * ratio)

    def count_rows(self, file: int) -> int:
        """See TextFormat."""
        return count_lines(self._inputs[file])
