"""The description of columns as JSON, in the manifest of prepared data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

from mlperf.data.columns.description import (
    CategoricalColumn,
    ColumnsDescription,
    DenseColumn,
    IdKind,
    LabelColumn,
    Source,
    Split,
    SplitByFile,
    SplitByShare,
    SplitByValue,
    Transform,
)
from mlperf.util.strict_json import SchemaError, fields, file_name, refuse, whole

Item = TypeVar("Item")

_MAX_COLUMNS = 1 << 16
_MAX_IDS = 1 << 16


def description_to_json(description: ColumnsDescription) -> dict[str, Any]:
    """Return the value that `description_from_json` reads."""
    content = asdict(description)
    split = description.split
    content["split"] = None if split is None else {"by": _SPLIT_NAMES[type(split)], **asdict(split)}
    return _without_tuples(content)


def _without_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_tuples(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_tuples(each) for each in value]
    return value


def description_from_json(value: object, where: str) -> ColumnsDescription:
    """Return the description in the entry `where`. SchemaError if it is none."""
    names = ("label", "dense", "categorical", "split", "separator", "has_header", "missing")
    entries = fields(value, where, names)
    label = fields(entries["label"], f"{where}.label", ("source", "values"))
    separator, split = entries["separator"], entries["split"]
    return ColumnsDescription(
        LabelColumn(_source(label["source"], f"{where}.label.source"), _labels(label["values"], where)),
        _items(entries["dense"], f"{where}.dense", _dense),
        _items(entries["categorical"], f"{where}.categorical", _categorical),
        None if split is None else _split(split, f"{where}.split"),
        None if separator is None else _character(separator, f"{where}.separator"),
        _boolean(entries["has_header"], f"{where}.has_header"),
        _items(entries["missing"], f"{where}.missing", _text),
    )


def _labels(value: object, where: str) -> tuple[str, str]:
    values = _items(value, f"{where}.label.values", _text)
    if len(values) != 2:
        refuse(f"{where}.label.values", value, "two texts")
    return values[0], values[1]


def _dense(value: object, where: str) -> DenseColumn:
    entries = fields(value, where, ("source", "transform", "is_integer"))
    return DenseColumn(
        _source(entries["source"], f"{where}.source"),
        _one_of(Transform, entries["transform"], f"{where}.transform"),
        _boolean(entries["is_integer"], f"{where}.is_integer"),
    )


def _categorical(value: object, where: str) -> CategoricalColumn:
    entries = fields(value, where, ("source", "kind", "separator", "ids"))
    separator = entries["separator"]
    return CategoricalColumn(
        _source(entries["source"], f"{where}.source"),
        _one_of(IdKind, entries["kind"], f"{where}.kind"),
        None if separator is None else _character(separator, f"{where}.separator"),
        whole(entries["ids"], f"{where}.ids", 1, _MAX_IDS),
    )


def _split(value: object, where: str) -> Split:
    by = value.get("by") if isinstance(value, dict) else None
    if by == "share":
        entries = fields(value, where, ("by", "test", "validation", "is_random"))
        test = _share(entries["test"], f"{where}.test")
        validation = _share(entries["validation"], f"{where}.validation")
        if test == 0 or test + validation >= 1:
            raise SchemaError(f"{where}: {test:g} test and {validation:g} validation rows leave no training rows")
        return SplitByShare(test, validation, _boolean(entries["is_random"], f"{where}.is_random"))
    if by == "value":
        entries = fields(value, where, ("by", "source", "test", "validation"))
        test_texts, validation_texts = (
            _items(entries[name], f"{where}.{name}", _text) for name in ("test", "validation")
        )
        return SplitByValue(_source(entries["source"], f"{where}.source"), test_texts, validation_texts)
    if by != "file":
        refuse(f"{where}.by", by, "'share', 'value' or 'file'")
    entries = fields(value, where, ("by", "train", "test", "validation"))
    train_files, test_files, validation_files = (
        _items(entries[name], f"{where}.{name}", file_name) for name in ("train", "test", "validation")
    )
    return SplitByFile(train_files, test_files, validation_files)


def _items(value: object, where: str, read: Callable[[object, str], Item]) -> tuple[Item, ...]:
    if not isinstance(value, list) or len(value) > _MAX_COLUMNS:
        refuse(where, value, f"a list of at most {_MAX_COLUMNS} entries")
    return tuple(read(each, f"{where}[{number}]") for number, each in enumerate(value))


def _source(value: object, where: str) -> Source:
    return value if isinstance(value, str) else whole(value, where, 1, _MAX_COLUMNS)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        refuse(where, value, "a text")
    return value


def _character(value: object, where: str) -> str:
    if not isinstance(value, str) or len(value.encode()) != 1:
        refuse(where, value, "one ASCII character")
    return value


def _boolean(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        refuse(where, value, "true or false")
    return value


def _share(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        refuse(where, value, "a number in [0, 1)")
    return float(value)


def _one_of(kind: Callable[[Any], Item], value: object, where: str) -> Item:
    try:
        return kind(value)
    except ValueError:
        refuse(where, value, "one of the values of a description")


_SPLIT_NAMES = {SplitByShare: "share", SplitByValue: "value", SplitByFile: "file"}
