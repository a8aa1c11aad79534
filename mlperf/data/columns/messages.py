"""What is wrong with a row, and what is allowed."""

from __future__ import annotations

import re

from mlperf.data.columns.description import CategoricalColumn, ColumnsDescription, DenseColumn
from mlperf.data.columns.header import LogLayout
from mlperf.data.columns.plan import Column, all_columns
from mlperf.data.text.blocks import BLOCK_BYTES, TextBlock
from mlperf.data.text.faults import (
    AFTER_QUOTE,
    LONG_ID,
    LONG_INTEGER,
    LONG_LINE,
    NO_LABEL,
    NOT_DECIMAL,
    NOT_HEX,
    NOT_INTEGER,
    OPEN_QUOTE,
    TOO_FEW,
    TOO_MANY,
)

_SHOWN_BYTES = 40
_QUOTED = re.compile(rb'"(?:[^"]|"")*"')

_MESSAGES = {
    NOT_HEX: "not a hexadecimal id; allowed are up to 16 digits",
    LONG_ID: "not a hexadecimal id; allowed are up to 16 digits",
    NOT_DECIMAL: 'not a decimal; allowed are numbers such as -12.5 or 1e-3, and the texts in "missing"',
    LONG_INTEGER: "the id does not fit in 64 bits; allowed is -2^63 to 2^64 - 1",
    LONG_LINE: f"line longer than {BLOCK_BYTES >> 20} MB; expected a click log",
    OPEN_QUOTE: "the quoted field does not end in its line; a line break within quotes is not supported",
    AFTER_QUOTE: "there is text after the quoted field; a quote within quotes must be doubled",
}


def fault_message(reason: int, description: ColumnsDescription, layout: LogLayout, column: int) -> str:
    """Return what is wrong in a column, from 0, of a text, and what is allowed."""
    if reason in (TOO_FEW, TOO_MANY):
        return f"too {'few' if reason == TOO_FEW else 'many'} columns; expected {layout.columns}"
    if reason == NO_LABEL:
        zero, one = description.label.values
        return f'not a label; allowed are {zero} and {one}, and "values" of [label] sets others'
    positions = list(layout.positions)
    used = [each for _, each in all_columns(description)][positions.index(column)] if column in positions else None
    return _MESSAGES.get(reason) or _number_message(reason, used)


def _number_message(reason: int, column: Column | None) -> str:
    if reason == NOT_INTEGER and isinstance(column, CategoricalColumn):
        return 'not a whole number; type = "word" allows any text'
    if reason == NOT_INTEGER:
        return 'not a whole number; type = "decimal" allows others, and "missing" lists other texts'
    if isinstance(column, DenseColumn) and column.is_integer:
        return 'the number is not in -2147483648 to 2147483647; type = "decimal" allows others'
    return "the number does not fit in a float of 32 bits; allowed is up to 3.4e38"


def shown_field(block: TextBlock, position: int, separator: str) -> str:
    """Return the text of a field, shortened, for a message."""
    field = block.text[position : min(block.length, position + _SHOWN_BYTES + 1)].tobytes().partition(b"\n")[0]
    quoted = _QUOTED.match(field)
    if not field.startswith(b'"'):
        field = field.partition(separator.encode())[0]
    elif quoted is not None and field[quoted.end() : quoted.end() + 1] in (separator.encode(), b""):
        field = quoted[0]
    return f"{field[:_SHOWN_BYTES]!r}{'...' if len(field) > _SHOWN_BYTES else ''}"[1:]
