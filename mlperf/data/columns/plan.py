"""What the compiled parsers do with each column of a log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlperf.data.columns.description import (
    CategoricalColumn,
    ColumnsDescription,
    DenseColumn,
    IdKind,
    LabelColumn,
    Source,
    SplitByValue,
)
from mlperf.data.text.blocks import Bytes

Column = LabelColumn | DenseColumn | CategoricalColumn | SplitByValue

# What a column is.
SKIPPED, LABEL, SPLIT, INTEGER, DECIMAL, HEXADECIMAL, INTEGER_ID, WORD = range(8)

# Columns of the plan. TARGET: column in the rows, of several ids the first. SEPARATOR: between ids, -1 for one
# id. IDS: their number. TABLE: number of the categorical column.
ACTION, TARGET, SEPARATOR, IDS, TABLE = range(5)

_ID_ACTIONS = {IdKind.HEXADECIMAL: HEXADECIMAL, IdKind.INTEGER: INTEGER_ID, IdKind.WORD: WORD}

Actions = npt.NDArray[np.int64]  # [columns, 5]


@dataclass(frozen=True)
class Texts:
    """Texts with a meaning: those of the two labels, of a missing value, of test rows, of validation rows.

    characters: 256 bytes, 1 for those with which a text of a missing value begins, then all texts, one after the
    other. ends: the beginning of the first and the ends of all, int64.
    groups: number of the first text of a missing value (2), of test rows, of validation rows, and of all texts.
    """

    characters: Bytes
    ends: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]

    @classmethod
    def of(cls, description: ColumnsDescription) -> Texts:
        """Return the texts of a description."""
        split = description.split
        by_value = split if isinstance(split, SplitByValue) else None
        groups = [
            description.label.values,
            description.missing,
            by_value.test if by_value else (),
            by_value.validation if by_value else (),
        ]
        texts = [text.encode() for group in groups for text in group]
        beginnings = np.zeros(256, np.uint8)
        beginnings[[text.encode()[0] for text in description.missing if text]] = 1
        characters = np.concatenate([beginnings, np.frombuffer(b"".join(texts), np.uint8)])
        ends = np.cumsum([256, *map(len, texts)], dtype=np.int64)
        return cls(characters, ends, np.cumsum([len(group) for group in groups], dtype=np.int64))


def all_columns(description: ColumnsDescription) -> list[tuple[Source, Column]]:
    """Return the columns that a description uses, in the order label, dense, categorical, split."""
    columns: list[Column] = [description.label, *description.dense, *description.categorical]
    if isinstance(description.split, SplitByValue):
        columns.append(description.split)
    return [(column.source, column) for column in columns]


def make_actions(description: ColumnsDescription, positions: Sequence[int | None], columns: int) -> Actions:
    """Return what to do with each column of a log.

    positions: of each column in `all_columns`, from 0; None if the log lacks it. columns: number of columns.
    """
    schema = description.schema
    actions = np.full((columns, 5), -1, np.int64)
    actions[:, ACTION] = SKIPPED
    dense = table = 0
    target = schema.first_id
    for (_, column), position in zip(all_columns(description), positions, strict=True):
        if isinstance(column, LabelColumn):
            entries = (LABEL, 0, -1, 1, -1)
        elif isinstance(column, DenseColumn):
            dense += 1
            entries = (INTEGER if column.is_integer else DECIMAL, dense, -1, 1, -1)
        elif isinstance(column, CategoricalColumn):
            separator = -1 if column.separator is None else ord(column.separator)
            entries = (_ID_ACTIONS[column.kind], target, separator, column.ids, table)
            target, table = target + column.ids, table + 1
        else:
            entries = (SPLIT, -1, -1, 1, -1)
        if position is not None:
            actions[position] = entries
    return actions
