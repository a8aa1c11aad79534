"""The description of a click log as an entry of a manifest."""

from __future__ import annotations

from typing import Any

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
from mlperf.util.strict_json import fields, refuse, whole

_MAX_COLUMNS = 1 << 20


def to_json(description: ColumnsDescription) -> dict[str, Any]:
    """Return the JSON object of a description."""
    return {
        "label": {"column": description.label.source, "values": list(description.label.values)},
        "dense": [
            {"column": column.source, "transform": str(column.transform), "is_integer": column.is_integer}
            for column in description.dense
        ],
        "categorical": [
            {
                "column": column.source,
                "type": str(column.kind),
                "separator": column.separator,
                "ids": column.ids,
            }
            for column in description.categorical
        ],
        "split": _split_to_json(description.split),
        "separator": description.separator,
        "header": description.has_header,
        "missing": list(description.missing),
        "width": description.width,
    }


def _split_to_json(split: Split | None) -> dict[str, Any] | None:
    match split:
        case SplitByShare():
            return {"test_share": split.test, "val_share": split.validation, "random": split.is_random}
        case SplitByValue():
            return {"column": split.source, "test": list(split.test), "val": list(split.validation)}
        case SplitByFile():
            return {"train": list(split.train), "test": list(split.test), "val": list(split.validation)}
        case None:
            return None


def from_json(value: object, where: str = "columns") -> ColumnsDescription:
    """Return the description of a JSON object. SchemaError if `to_json` could not have written it."""
    keys = ("label", "dense", "categorical", "split", "separator", "header", "missing", "width")
    entries = fields(value, where, keys)
    label = fields(entries["label"], f"{where}.label", ("column", "values"))
    values = _texts(label["values"], f"{where}.label.values")
    if len(values) != 2:
        refuse(f"{where}.label.values", label["values"], "two texts")
    width = entries["width"]
    description = ColumnsDescription(
        label=LabelColumn(_source(label["column"], f"{where}.label.column"), (values[0], values[1])),
        dense=tuple(_dense(each, f"{where}.dense") for each in _list(entries["dense"], f"{where}.dense")),
        categorical=tuple(
            _categorical(each, f"{where}.categorical")
            for each in _list(entries["categorical"], f"{where}.categorical")
        ),
        split=_split(entries["split"], f"{where}.split"),
        separator=_character(entries["separator"], f"{where}.separator"),
        has_header=_flag(entries["header"], f"{where}.header"),
        missing=_texts(entries["missing"], f"{where}.missing"),
        width=None if width is None else whole(width, f"{where}.width", 1, _MAX_COLUMNS),
    )
    return description


def _dense(value: object, where: str) -> DenseColumn:
    entries = fields(value, where, ("column", "transform", "is_integer"))
    return DenseColumn(
        _source(entries["column"], f"{where}.column"),
        Transform(_one_of(entries["transform"], f"{where}.transform", tuple(Transform))),
        _flag(entries["is_integer"], f"{where}.is_integer"),
    )


def _categorical(value: object, where: str) -> CategoricalColumn:
    entries = fields(value, where, ("column", "type", "separator", "ids"))
    return CategoricalColumn(
        _source(entries["column"], f"{where}.column"),
        IdKind(_one_of(entries["type"], f"{where}.type", tuple(IdKind))),
        _character(entries["separator"], f"{where}.separator"),
        whole(entries["ids"], f"{where}.ids", 1, _MAX_COLUMNS),
    )


def _split(value: object, where: str) -> Split | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        refuse(where, value, "an object or null")
    if "test_share" in value:
        entries = fields(value, where, ("test_share", "val_share", "random"))
        return SplitByShare(
            _share(entries["test_share"], f"{where}.test_share"),
            _share(entries["val_share"], f"{where}.val_share"),
            _flag(entries["random"], f"{where}.random"),
        )
    if "column" in value:
        entries = fields(value, where, ("column", "test", "val"))
        return SplitByValue(
            _source(entries["column"], f"{where}.column"),
            _texts(entries["test"], f"{where}.test"),
            _texts(entries["val"], f"{where}.val"),
        )
    entries = fields(value, where, ("train", "test", "val"))
    return SplitByFile(*(_texts(entries[split], f"{where}.{split}") for split in ("train", "test", "val")))


def _source(value: object, where: str) -> Source:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, str):
        refuse(where, value, "the name or the position of a column")
    return whole(value, where, 1, _MAX_COLUMNS)


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        refuse(where, value, "a list")
    return value


def _texts(value: object, where: str) -> tuple[str, ...]:
    texts = _list(value, where)
    if any(not isinstance(text, str) for text in texts):
        refuse(where, value, "a list of texts")
    return tuple(texts)


def _one_of(value: object, where: str, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in allowed:
        refuse(where, value, " or ".join(allowed))
    return value


def _flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        refuse(where, value, "true or false")
    return value


def _share(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        refuse(where, value, "a number in [0, 1)")
    return float(value)


def _character(value: object, where: str) -> str | None:
    if value is not None and (not isinstance(value, str) or len(value) != 1 or not value.isascii()):
        refuse(where, value, "one ASCII character or null")
    return value
