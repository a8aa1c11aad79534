"""The description of a click log as an entry of a manifest."""

from __future__ import annotations

from typing import Any

from mlperf.data.columns.checks import (
    MAX_COLUMNS,
    character,
    check_description,
    items_of,
    label_values,
    one_of,
    share,
    source,
    texts,
    true_or_false,
)
from mlperf.data.columns.description import (
    CategoricalColumn,
    ColumnsDescription,
    DenseColumn,
    IdKind,
    LabelColumn,
    Split,
    SplitByFile,
    SplitByShare,
    SplitByValue,
    Transform,
)
from mlperf.util.strict_json import fields, refuse, whole


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
    width = entries["width"]
    description = ColumnsDescription(
        label=LabelColumn(
            source(label["column"], f"{where}.label.column"),
            label_values(label["values"], f"{where}.label.values"),
        ),
        dense=tuple(_dense(each, f"{where}.dense") for each in items_of(entries["dense"], f"{where}.dense")),
        categorical=tuple(
            _categorical(each, f"{where}.categorical")
            for each in items_of(entries["categorical"], f"{where}.categorical")
        ),
        split=_split(entries["split"], f"{where}.split"),
        separator=character(entries["separator"], f"{where}.separator"),
        has_header=true_or_false(entries["header"], f"{where}.header"),
        missing=texts(entries["missing"], f"{where}.missing"),
        width=None if width is None else whole(width, f"{where}.width", 1, MAX_COLUMNS),
    )
    check_description(description)
    return description


def _dense(value: object, where: str) -> DenseColumn:
    entries = fields(value, where, ("column", "transform", "is_integer"))
    return DenseColumn(
        source(entries["column"], f"{where}.column"),
        Transform(one_of(entries["transform"], f"{where}.transform", tuple(Transform))),
        true_or_false(entries["is_integer"], f"{where}.is_integer"),
    )


def _categorical(value: object, where: str) -> CategoricalColumn:
    entries = fields(value, where, ("column", "type", "separator", "ids"))
    return CategoricalColumn(
        source(entries["column"], f"{where}.column"),
        IdKind(one_of(entries["type"], f"{where}.type", tuple(IdKind))),
        character(entries["separator"], f"{where}.separator"),
        whole(entries["ids"], f"{where}.ids", 1, MAX_COLUMNS),
    )


def _split(value: object, where: str) -> Split | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        refuse(where, value, "an object or null")
    if "test_share" in value:
        entries = fields(value, where, ("test_share", "val_share", "random"))
        return SplitByShare(
            share(entries["test_share"], f"{where}.test_share"),
            share(entries["val_share"], f"{where}.val_share"),
            true_or_false(entries["random"], f"{where}.random"),
        )
    if "column" in value:
        entries = fields(value, where, ("column", "test", "val"))
        return SplitByValue(
            source(entries["column"], f"{where}.column"),
            texts(entries["test"], f"{where}.test"),
            texts(entries["val"], f"{where}.val"),
        )
    entries = fields(value, where, ("train", "test", "val"))
    return SplitByFile(*(texts(entries[split], f"{where}.{split}") for split in ("train", "test", "val")))
