"""A simple parser of click logs with any columns, one line at a time, to compare with the compiled one."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mlperf.data.columns.description import (
    CategoricalColumn,
    ColumnsDescription,
    DenseColumn,
    IdKind,
    SplitByValue,
)
from mlperf.data.columns.source import LogFile

_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"-?[0-9]+")
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]{1,16}")
_ALL = 2**64 - 1
_PRIMES = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)


class BadRowError(ValueError):
    """A row is not as described."""


@dataclass
class PlainRows:
    """What `ParsedColumns` has, in lists. bad: numbers of the bad lines, from 0."""

    rows: list[list[int]] = field(default_factory=list)
    keys: list[list[int]] = field(default_factory=list)
    splits: list[int] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)


def xxh64(data: bytes) -> int:
    """Return XXH64 with seed 0, of the definition."""
    one, two, three, four, five = _PRIMES

    def rotated(value: int, bits: int) -> int:
        return (value << bits | value >> (64 - bits)) & _ALL

    def mixed(accumulator: int, lane: int) -> int:
        return rotated((accumulator + lane * two) & _ALL, 31) * one & _ALL

    rest, total = data, five
    if len(data) >= 32:
        lanes = [(one + two) & _ALL, two, 0, -one & _ALL]
        while len(rest) >= 32:
            for lane in range(4):
                lanes[lane] = mixed(lanes[lane], int.from_bytes(rest[8 * lane : 8 * lane + 8], "little"))
            rest = rest[32:]
        total = sum(rotated(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & _ALL
        for lane_value in lanes:
            total = ((total ^ mixed(0, lane_value)) * one + four) & _ALL
    total = (total + len(data)) & _ALL
    while len(rest) >= 8:
        total = (rotated(total ^ mixed(0, int.from_bytes(rest[:8], "little")), 27) * one + four) & _ALL
        rest = rest[8:]
    if len(rest) >= 4:
        total = (rotated(total ^ int.from_bytes(rest[:4], "little") * one & _ALL, 23) * two + three) & _ALL
        rest = rest[4:]
    for byte in rest:
        total = rotated(total ^ byte * five & _ALL, 11) * one & _ALL
    for shift, factor in ((33, two), (29, three), (32, 1)):
        total = (total ^ total >> shift) * factor & _ALL
    return total


def plain_parse(
    text: bytes, description: ColumnsDescription, separator: str, positions: Sequence[int], columns: int
) -> PlainRows:
    """Return the rows of the lines of a text without its header.

    positions: of the label, the dense and the categorical columns and that of the split, from 0.
    """
    found = PlainRows(cut=[0] * len(description.categorical))
    for number, line in enumerate(text.decode("latin-1").removesuffix("\n").split("\n")):
        try:
            fields = _fields(line.removesuffix("\r"), separator)
            if len(fields) != columns:
                raise BadRowError
            _add(found, description, [fields[position] for position in positions])
        except BadRowError:
            found.bad.append(number)
    return found


def _fields(line: str, separator: str) -> list[str]:
    line = line.replace("\r", "\x01")  # which the csv module does not take as the end of a line
    try:
        fields = next(csv.reader([line], delimiter=separator, strict=True), [""]) or [""]
        return [field.replace("\x01", "\r") for field in fields]
    except csv.Error:
        raise BadRowError from None


def _add(found: PlainRows, description: ColumnsDescription, fields: list[str]) -> None:
    missing = {"", *(text.encode().decode("latin-1") for text in description.missing)}
    values = [text.encode().decode("latin-1") for text in description.label.values]
    if fields[0] not in values:
        raise BadRowError
    features, row, keys, cut = iter(fields[1:]), [values.index(fields[0])], [], []
    row += [
        _dense(next(features), column, missing, stores_floats=description.stores_floats)
        for column in description.dense
    ]
    for column in description.categorical:
        ids, is_cut = _ids(next(features), column, missing)
        row += [key is not None for key in ids]
        keys += [key or 0 for key in ids]
        cut.append(is_cut)
    if isinstance(description.split, SplitByValue):
        text, split = next(features).encode("latin-1").decode("utf-8", "replace"), description.split
        found.splits.append(1 if text in split.test else 2 if text in split.validation else 0)
    found.rows.append(row)
    found.keys.append(keys)
    found.cut = [total + is_cut for total, is_cut in zip(found.cut, cut, strict=True)]


def _dense(text: str, column: DenseColumn, missing: set[str], *, stores_floats: bool) -> int:
    if text in missing:
        value = np.float32(np.nan if stores_floats else 0)
    elif column.is_integer:
        if not _INTEGER.fullmatch(text) or not -(2**31) <= int(text) < 2**31:
            raise BadRowError
        value = np.float32(int(text)) if stores_floats else np.float32(0)
        if not stores_floats:
            return max(0, int(text))
    else:
        if not _DECIMAL.fullmatch(text):
            raise BadRowError
        with np.errstate(over="ignore"):
            value = np.float32(float(text))
        if not np.isfinite(value):
            raise BadRowError
    return int(value.view(np.int32)) if stores_floats else 0


def _ids(text: str, column: CategoricalColumn, missing: set[str]) -> tuple[list[int | None], bool]:
    parts = text.split(column.separator) if column.separator else [text]
    ids = [None if part in missing else _key(part, column.kind) for part in parts[: column.ids]]
    return ids + [None] * (column.ids - len(ids)), len(parts) > column.ids


def _key(text: str, kind: IdKind) -> int:
    if kind is IdKind.WORD:
        return xxh64(text.encode("latin-1"))
    if kind is IdKind.HEXADECIMAL and _HEXADECIMAL.fullmatch(text):
        return int(text, 16)
    if kind is IdKind.INTEGER and _INTEGER.fullmatch(text) and -(2**63) <= int(text) < 2**64:
        return int(text) & _ALL
    raise BadRowError


def parse_log(log: LogFile, start: int = 0) -> PlainRows:
    """Return what the compiled parser finds in a log, from a position on, to compare with `plain_parse`."""
    found, parser, lines = PlainRows(cut=[0] * len(log.description.categorical)), log.parser(), 0
    for block in log.blocks(start):
        parsed = parser.parse(block)
        found.rows += parsed.rows.tolist()
        found.keys += parsed.keys.tolist()
        found.splits += [] if parsed.splits is None else parsed.splits.tolist()
        found.cut = [total + int(count) for total, count in zip(found.cut, parsed.cut, strict=True)]
        found.bad += [lines + int(line) for line in parsed.faults[:, 0]]
        lines += parsed.lines
    return found
