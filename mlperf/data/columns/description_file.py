"""Read the description of a click log from a TOML file, `--columns`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
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
    Source,
    Split,
    SplitByFile,
    SplitByShare,
    SplitByValue,
    Transform,
)
from mlperf.util.errors import UsageError
from mlperf.util.files import open_regular
from mlperf.util.strict_json import SchemaError, fields, refuse, whole

_MAX_BYTES = 16 << 20
_RANGE = re.compile(r"([0-9]{1,7})-([0-9]{1,7})")
_DENSE_TYPES = ("integer", "decimal")
_SPLITS = (  # required and optional keys
    (("test_share",), ("val_share", "random")),
    (("column", "test"), ("val",)),
    (("train", "test"), ("val",)),
)


def read_description(path: Path) -> ColumnsDescription:
    """Return the description in a TOML file.

    UsageError that names the file and the key, or the line if it is not TOML; OSError if it cannot be read.
    """
    try:
        try:
            with open_regular(path) as file:
                content = file.read(_MAX_BYTES + 1)
            if len(content) > _MAX_BYTES:
                raise SchemaError(f"it is larger than {_MAX_BYTES >> 20} MB")
            tables = tomllib.loads(content.decode())
        except UnicodeDecodeError as error:
            raise SchemaError(f"it is not UTF-8 text: byte {error.start + 1}") from None
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise SchemaError(f"it is not TOML: {error}") from None
        return description_of(tables)
    except SchemaError as error:
        raise UsageError(f"--columns={path}: {error}") from None


def description_of(tables: dict[str, Any]) -> ColumnsDescription:
    """Return the description in the tables of a TOML file. SchemaError that names the key."""
    fields(tables, "the file", ("label", "split"), ("text", "dense", "categorical"))
    text = fields(tables.get("text", {}), "[text]", (), ("separator", "header", "missing"))
    label = fields(tables["label"], "[label]", ("column",), ("values",))
    values = label_values(label.get("values", ["0", "1"]), "values of [label]")
    dense = _columns(tables, "dense", ("type", "transform"), _dense)
    categorical = _columns(tables, "categorical", ("type", "separator", "ids"), _categorical)
    split = _split(tables["split"])
    label_column = LabelColumn(source(label["column"], "column of [label]"), values)
    sources = [label_column.source, *(each.source for each in (*dense, *categorical))]
    sources += [split.source] if isinstance(split, SplitByValue) else []
    has_names = any(isinstance(each, str) for each in sources)
    description = ColumnsDescription(
        label=label_column,
        dense=tuple(dense),
        categorical=tuple(categorical),
        split=split,
        separator=character(text.get("separator"), "separator of [text]"),
        has_header=true_or_false(text.get("header", has_names), "header of [text]"),
        missing=tuple(each for each in texts(text.get("missing", []), "missing of [text]") if each),
    )
    check_description(description)
    return description


def _columns(
    tables: dict[str, Any], key: str, keys: tuple[str, ...], make: Callable[[Source, dict[str, Any], str], Any]
) -> list[Any]:
    """Return the columns of all tables with a key; `make` makes one of its source and of the table it is in."""
    found = []
    for number, table in enumerate(items_of(tables.get(key, []), f"[[{key}]]"), start=1):
        where = f"[[{key}]]" + (f" number {number}" if len(tables[key]) > 1 else "")
        fields(table, where, (), ("column", "columns", *keys))
        if ("column" in table) == ("columns" in table):
            raise SchemaError(f"{where} must have either column or columns")
        if "column" in table:
            sources = [source(table["column"], f"column of {where}")]
        else:
            sources = _sources(table["columns"], f"columns of {where}")
        found += [make(each, table, where) for each in sources]
    return found


def _sources(value: object, where: str) -> list[Source]:
    """Return the columns of a list, or of a range of positions such as "2-14"."""
    if isinstance(value, str):
        bounds = _RANGE.fullmatch(value)
        if bounds is None or not 1 <= int(bounds[1]) <= int(bounds[2]) <= MAX_COLUMNS:
            refuse(where, value, 'a list, or a range of positions such as "2-14"')
        return list(range(int(bounds[1]), int(bounds[2]) + 1))
    found = items_of(value, where)
    if not found:
        raise SchemaError(f"{where} is empty")
    return [source(each, where) for each in found]


def _dense(column: Source, table: dict[str, Any], where: str) -> DenseColumn:
    kind = one_of(table.get("type", "integer"), f"type of {where}", _DENSE_TYPES)
    transform = one_of(table.get("transform", "log1p"), f"transform of {where}", tuple(Transform))
    return DenseColumn(column, Transform(transform), kind == "integer")


def _categorical(column: Source, table: dict[str, Any], where: str) -> CategoricalColumn:
    kind = IdKind(one_of(table.get("type", "word"), f"type of {where}", tuple(IdKind)))
    separator = character(table.get("separator"), f"separator of {where}")
    ids = whole(table.get("ids", 1), f"ids of {where}", 1, MAX_COLUMNS)
    return CategoricalColumn(column, kind, separator, ids)


def _split(value: object) -> Split:
    """Return the split of one of the forms in `_SPLITS`."""
    if not isinstance(value, dict):
        refuse("[split]", value, "a table")
    forms = [form for form in _SPLITS if form[0][0] in value]
    if len(forms) != 1:
        keys = " or ".join(", ".join(required) for required, _ in _SPLITS)
        raise SchemaError(f"[split] must have {keys}; found {', '.join(value) or 'nothing'}")
    required, optional = forms[0]
    fields(value, "[split]", required, optional)
    if "test_share" in value:
        return SplitByShare(
            share(value["test_share"], "test_share of [split]"),
            share(value.get("val_share", 0), "val_share of [split]"),
            true_or_false(value.get("random", False), "random of [split]"),
        )
    test = texts(value["test"], "test of [split]")
    validation = texts(value.get("val", []), "val of [split]")
    if "column" in value:
        return SplitByValue(source(value["column"], "column of [split]"), test, validation)
    return SplitByFile(texts(value["train"], "train of [split]"), test, validation)
