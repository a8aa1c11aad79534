"""Checks of a description, whichever file it comes from. All raise SchemaError in one line."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from mlperf.data.columns.description import (
    ColumnsDescription,
    Source,
    SplitByFile,
    SplitByShare,
    SplitByValue,
)
from mlperf.data.columns.plan import all_columns
from mlperf.util.printable import shown
from mlperf.util.strict_json import SchemaError, file_name, refuse, whole

MAX_COLUMNS = 1 << 20
_NOT_SEPARATORS = '"\r\n'


def source(value: object, where: str) -> Source:
    """Return the name of a column, or its position, from 1."""
    if isinstance(value, str) and value:
        return value
    if not isinstance(value, int):
        refuse(where, value, "the name of a column or its position, from 1")
    return whole(value, where, 1, MAX_COLUMNS)


def items_of(value: object, where: str) -> list[Any]:
    """Return a list."""
    if not isinstance(value, list):
        refuse(where, value, "a list")
    return value


def texts(value: object, where: str) -> tuple[str, ...]:
    """Return the texts of a list. Whole numbers, dates, true and false stand for their texts in TOML."""
    found = items_of(value, where)
    if any(not isinstance(text, str | int | date) or isinstance(text, datetime) for text in found):
        refuse(where, value, 'a list of texts, such as ["no", "yes"]')
    return tuple(str(text).lower() if isinstance(text, bool) else str(text) for text in found)


def label_values(value: object, where: str) -> tuple[str, str]:
    """Return the texts of label 0 and of label 1."""
    found = texts(value, where)
    if len(found) != 2:
        refuse(where, value, "the texts of label 0 and of label 1")
    return found[0], found[1]


def one_of(value: object, where: str, allowed: Sequence[str]) -> str:
    """Return one of the allowed texts."""
    if not isinstance(value, str) or value not in allowed:
        refuse(where, value, " or ".join(map(repr, map(str, allowed))))
    return value


def true_or_false(value: object, where: str) -> bool:
    """Return a truth value."""
    if not isinstance(value, bool):
        refuse(where, value, "true or false")
    return value


def share(value: object, where: str) -> float:
    """Return a number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        refuse(where, value, "a number in [0, 1)")
    return float(value)


def character(value: object, where: str) -> str | None:
    """Return a separator, or None."""
    if value is None:
        return None
    if not isinstance(value, str) or len(value) != 1 or not value.isascii() or value in _NOT_SEPARATORS:
        refuse(where, value, "one ASCII character, other than a quote or a line break")
    return value


def check_description(description: ColumnsDescription) -> None:
    """Check what depends on several entries of a description."""
    zero, one = description.label.values
    if zero == one or not zero or not one:
        raise SchemaError(f"the values of the label are {zero!r} and {one!r}, must differ and not be empty")
    if not description.dense and not description.categorical:
        raise SchemaError("there are no dense and no categorical columns")
    sources = [each for each, _ in all_columns(description)]
    if twice := next((each for each in sources if sources.count(each) > 1), None):
        raise SchemaError(f"column {shown(twice)} is used twice")
    names = [each for each in sources if isinstance(each, str)]
    if names and not description.has_header:
        raise SchemaError(f"column {shown(names[0])} is given by name, but header = false")
    for column in description.categorical:
        if column.separator and any(column.separator in text for text in description.missing):
            raise SchemaError(
                f"a text of missing contains the separator {column.separator!r} of {column.source!r}"
            )
    _check_split(description)


def _check_split(description: ColumnsDescription) -> None:
    match description.split:
        case SplitByShare(test, validation):
            if test == 0 or test + validation >= 1:
                raise SchemaError(
                    f"test_share is {test:g} and val_share {validation:g}; test_share must be greater than 0, and "
                    "their sum less than 1"
                )
        case SplitByValue(_, test_texts, validation_texts):
            _check_groups("test", test_texts, {"test": test_texts, "val": validation_texts})
        case SplitByFile(train_files, test_files, validation_files):
            groups = {"train": train_files, "test": test_files, "val": validation_files}
            _check_groups("train", train_files, groups)
            _check_groups("test", test_files, groups)
            for group, names in groups.items():
                for name in names:
                    file_name(name, f"a file of {group}")


def _check_groups(group: str, entries: Sequence[str], groups: dict[str, tuple[str, ...]]) -> None:
    """Check that a group is not empty, and that no text is in the groups twice."""
    if not entries:
        raise SchemaError(f"{group} is empty")
    found = [text for each in groups.values() for text in each]
    if twice := next((text for text in found if found.count(text) > 1), None):
        raise SchemaError(f"{shown(twice)} is listed twice in {', '.join(groups)}")
