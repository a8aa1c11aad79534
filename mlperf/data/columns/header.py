"""The first line of a text: the names of its columns, or their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlperf.data.columns.description import ColumnsDescription, LabelColumn
from mlperf.data.columns.plan import Column, all_columns
from mlperf.data.text.blocks import BLOCK_BYTES
from mlperf.data.text.compressed import COMPRESSIONS, DAMAGE_ERRORS, compression, open_text
from mlperf.util.errors import RunError
from mlperf.util.printable import shown

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SHOWN_NAMES = 10
# Beginnings of files that are not UTF-8 text or whose names lack an ending.
_OTHER_FILES = {
    b"\x1f\x8b": "gzip data; its name must end in .gz",
    b"\x28\xb5\x2f\xfd": "zstd data; its name must end in .zst",
    b"PAR1": "Parquet data; its name must end in .parquet",
    b"PK\x03\x04": "a ZIP archive; unpack it",
    b"\xff\xfe": "UTF-16 text; convert it to UTF-8",
    b"\xfe\xff": "UTF-16 text; convert it to UTF-8",
}


class MissingColumnError(RunError):
    """A text lacks a column of the description, or has it twice."""


@dataclass(frozen=True)
class LogLayout:
    """Where the columns of a file are.

    separator: character between fields. names: of the columns; None without a header. columns: their number.
    start: position of the first row, in bytes. positions: of each column in `all_columns`, from 0; None if the
    text lacks it.
    """

    separator: str
    names: tuple[str, ...] | None
    columns: int
    start: int
    positions: tuple[int | None, ...]

    @property
    def has_label(self) -> bool:
        """Whether the rows have labels."""
        return self.positions[0] is not None

    def name(self, position: int) -> str:
        """Return a column, from 0, as messages show it."""
        return f"column {position + 1}" + (f" ({shown(self.names[position])})" if self.names else "")


def separator_of(path: Path, description: ColumnsDescription) -> str:
    """Return the separator of a text: as described, or by the ending of its name."""
    name = path.with_suffix("") if path.suffix in COMPRESSIONS else path
    return description.separator or ("," if name.suffix == ".csv" else "\t")


def read_layout(path: Path, description: ColumnsDescription, *, label_optional: bool = False) -> LogLayout:
    """Read the first line of a text.

    label_optional: whether the column of the label may be missing.

    RunError if the text is empty, is no text, lacks a column or has it twice.
    """
    beginning = _read_line(path)
    for magic, what in _OTHER_FILES.items():
        if beginning.startswith(magic):
            raise RunError(f"{path}: contains {what}")
    start = len(_BYTE_ORDER_MARK) if beginning.startswith(_BYTE_ORDER_MARK) else 0
    line, newline, _ = beginning[start:].partition(b"\n")
    if not beginning[start:].strip():
        what = "a header with the names of the columns" if description.has_header else "rows of a click log"
        raise RunError(f"{path}: {'empty lines only' if beginning else 'empty file'}; expected {what}")
    if not newline and len(beginning) >= BLOCK_BYTES:
        raise RunError(f"{path}: the first line is longer than {BLOCK_BYTES >> 20} MB; expected a click log")
    for column in description.categorical:
        if column.ids > 1 and column.separator is None:
            name = shown(column.source)
            raise RunError(
                f"{path}: column {name} has ids = {column.ids} but no separator; --columns must give one"
            )
    separator = separator_of(path, description)
    if not description.has_header:
        columns = len(_split_line(line.decode("latin-1").removesuffix("\r"), separator)[0])
        positions, columns = _numbered(path, description, columns, label_optional=label_optional)
        return LogLayout(separator, None, columns, start, positions)
    try:
        names, fault = _split_line(line.decode().removesuffix("\r"), separator)
    except UnicodeDecodeError as error:
        raise RunError(
            f"{path}: the header is not UTF-8 text: byte {start + error.start + 1} is {line[error.start]:#x}"
        ) from None
    if fault:
        hint = "" if description.separator else _separator_hint(path, description)
        raise RunError(f"{path}: column {len(names) + 1} of the header has {fault}{hint}")
    positions = named_positions(path, description, names, label_optional=label_optional)
    return LogLayout(separator, tuple(names), len(names), start + len(line) + len(newline), positions)


def _read_line(path: Path) -> bytes:
    """Return the beginning of a file up to the end of its first line, or more."""
    content = b""
    try:
        with open_text(path) as file:
            while b"\n" not in content and len(content) < BLOCK_BYTES:
                part = file.read(1 << 16)
                if not part:
                    break
                content += part
    except DAMAGE_ERRORS as error:
        raise RunError(f"{path}: damaged {compression(path)} file: {error}") from None
    except OSError as error:
        error.filename = str(path)
        raise
    return content


def _split_line(line: str, separator: str) -> tuple[list[str], str | None]:
    """Return the fields of a line up to the first bad one, and what is wrong with that."""
    found: list[str] = []
    position = 0
    while True:
        parts: list[str] = []
        end = position
        while line.startswith('"', end):
            begin, end = end + 1, line.find('"', end + 1) + 1
            if end == 0:
                return found, "a quote without an end"
            parts.append(line[begin : end - 1])
        if not parts:
            end = line.find(separator, position)
            end = len(line) if end < 0 else end
            parts.append(line[position:end])
        elif end < len(line) and line[end] != separator:
            return found, "text after a quote"
        found.append('"'.join(parts))
        if end == len(line):
            return found, None
        position = end + 1


def _numbered(
    path: Path, description: ColumnsDescription, columns: int, *, label_optional: bool
) -> tuple[tuple[int | None, ...], int]:
    """Return the positions of the columns of a text without a header, and the number of its columns.

    columns: number of columns of the first row.
    """
    sources = [source for source, _ in all_columns(description) if isinstance(source, int)]
    label, expected = sources[0], description.width or max(sources)
    if label_optional and columns == expected - 1:
        return (None, *(source - 1 - (source > label) for source in sources[1:])), columns
    columns = description.width or columns
    if columns < max(sources):
        hint = _separator_hint(path, description) if columns == 1 else ""
        raise MissingColumnError(
            f"{path}: the first row has {columns} columns; there is no column {max(sources)}{hint}"
        )
    return tuple(source - 1 for source in sources), columns


def named_positions(
    path: Path, description: ColumnsDescription, names: Sequence[str], *, label_optional: bool
) -> tuple[int | None, ...]:
    """Return the position of each column in `all_columns`. RunError if one is not there, or is used twice."""
    found: list[int | None] = []
    for source, column in all_columns(description):
        if isinstance(source, int):
            if source > len(names):
                raise MissingColumnError(f"{path}: has {len(names)} columns; there is no column {source}")
            found.append(source - 1)
        elif source in names or not (label_optional and isinstance(column, LabelColumn)):
            if names.count(source) != 1:
                advice = _advice(column, names, path, description)
                raise MissingColumnError(f"{path}: {_wrong_name(source, names)}{advice}")
            found.append(names.index(source))
        else:
            found.append(None)
    used = [position for position in found if position is not None]
    twice = next((position for position in used if used.count(position) > 1), None)
    if twice is not None:
        raise RunError(
            f"{path}: column {twice + 1} ({shown(names[twice])}) is used twice, by name and by position"
        )
    return tuple(found)


def _advice(column: Column, names: Sequence[str], path: Path, description: ColumnsDescription) -> str:
    """Return what may have been meant by a text that lacks a column."""
    if isinstance(column, LabelColumn) and len(names) > 1 and column.source not in names:
        return "; rows without labels cannot be prepared, dlrm-train --score-text predicts them"
    if len(names) == 1 and path.suffix != ".parquet":
        return _separator_hint(path, description)
    return ""


def _separator_hint(path: Path, description: ColumnsDescription) -> str:
    return f"; the separator is {separator_of(path, description)!r}; [text] of --columns can set another"


def _wrong_name(name: str, names: Sequence[str]) -> str:
    if name in names:
        return f"{names.count(name)} columns have the name {shown(name)}; use their positions"
    known = ", ".join(map(shown, names[:_SHOWN_NAMES])) + (", ..." if len(names) > _SHOWN_NAMES else "")
    return f"there is no column {shown(name)}; the columns are {known}"
