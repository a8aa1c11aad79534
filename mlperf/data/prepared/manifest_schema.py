"""What a manifest may contain, entry by entry and together."""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection
from typing import Any

from mlperf.benchmarks.data_sets import DATA_SETS, KAGGLE_DAYS, TERABYTE_DAYS, DataSetTraits
from mlperf.data.columns.description import CRITEO_COLUMNS, ColumnsDescription, SplitByFile
from mlperf.data.columns.description_json import from_json
from mlperf.data.criteo.days import SPLITS, split_rows
from mlperf.data.prepared.file_facts import FileFacts
from mlperf.data.schema import MAX_TABLE_ROWS
from mlperf.settings.dataset import DAYS, PreparationSettings
from mlperf.settings.flags import declared_flags
from mlperf.util.printable import shown
from mlperf.util.strict_json import SchemaError, fields, file_name, items, refuse, whole

_REQUIRED = ("format_version", "flags", "inputs", "rows_per_day", "counts", "files")
# Entries that only some manifests have.
_COLUMNS_ENTRIES = ("means", "deviations", "cut_fields", "collision_chances")  # with `columns`
ADDED_ENTRIES = ("smallest_integer", "columns", "ids", "numbering", *_COLUMNS_ENTRIES)
_OPTIONAL = ("bad_rows", "archive", *ADDED_ENTRIES)  # older manifests lack the first two
_FLAGS = ("data_set", "max_ind_range", "data_randomize", "numpy_rand_seed")
_FLAGS_OF_OLDER_MANIFESTS = {"data_sub_sample_rate": 0.0, "bad_rows": "stop"}  # defaults for missing flags
ALL_DAYS = (1, TERABYTE_DAYS)  # numbers of input files
_MAX_CRC32 = (1 << 32) - 1


def checked_content(content: object, format_version: int) -> dict[str, Any]:
    """Return the fields of a Manifest from the value of its JSON. SchemaError if it is no manifest."""
    entries = fields(content, "it", _REQUIRED, _OPTIONAL)
    whole(entries["format_version"], "format_version", format_version, format_version)
    flags = _flags(entries["flags"])
    traits = None if "adopted" in flags else DATA_SETS[flags["data_set"]]
    columns = _columns(entries, traits)
    inputs = facts_of_inputs(entries["inputs"], _input_counts(flags, columns))
    day_counts = KAGGLE_DAYS if len(inputs) == 1 else len(inputs)
    days = items(entries["rows_per_day"], "rows_per_day", [day_counts if columns is None else len(SPLITS)])
    schema = (columns or CRITEO_COLUMNS).schema
    counts = items(entries["counts"], "counts", [schema.tables])
    min_count = 1 if columns is None else 0  # row 0 is that of the empty id
    archive, ids = entries.get("archive"), entries.get("ids")
    checked: dict[str, Any] = {
        "flags": flags,
        "inputs": inputs,
        "rows_per_day": [whole(rows, f"rows_per_day[{day}]", 0) for day, rows in enumerate(days)],
        "counts": [
            whole(count, f"counts[{table}]", min_count, MAX_TABLE_ROWS) for table, count in enumerate(counts)
        ],
        "files": {
            split: facts_of_file(facts, f"files.{split}", has_checksum=True)
            for split, facts in fields(entries["files"], "files", SPLITS).items()
        },
        "bad_rows": bad_rows(entries.get("bad_rows", {})),
        "archive": None if archive is None else facts_of_file(archive, "archive", has_checksum=True),
        "smallest_integer": _smallest_integer(entries, flags),
        "columns": columns,
        "ids": None if ids is None else facts_of_file(ids, "ids", has_checksum=True),
        "numbering": _numbering(entries.get("numbering"), schema.tables),
    }
    for name in _COLUMNS_ENTRIES:
        width = schema.dense_features if name in ("means", "deviations") else schema.tables
        checked[name] = _numbers(entries, name, width, columns, only_whole=name == "cut_fields")
    rows = checked["rows_per_day"]
    rows_per_split = split_rows(rows) if columns is None else dict(zip(SPLITS, rows, strict=True))
    _check_rows(checked["files"], rows_per_split, schema.row_bytes)
    return checked


def _columns(entries: dict[str, Any], traits: DataSetTraits | None) -> ColumnsDescription | None:
    """Return the description of the columns, which only manifests of data with a description have."""
    has_columns = traits is not None and traits.has_columns_file
    if has_columns != ("columns" in entries):
        raise SchemaError(
            f"it {'needs' if has_columns else 'must not have'} an entry columns with flags.data_set "
            f"{shown(None if traits is None else traits.name)}"
        )
    return from_json(entries["columns"], "columns") if has_columns else None


def _numbering(value: object, tables: int) -> dict[str, Any] | None:
    if value is None:
        return None
    entries = fields(value, "numbering", ("fingerprint", "ids_from", "unknown"))
    fingerprint, ids_from = entries["fingerprint"], entries["ids_from"]
    if not isinstance(fingerprint, str) or not re.fullmatch("[0-9a-f]{16}", fingerprint):
        refuse("numbering.fingerprint", fingerprint, "16 hexadecimal digits")
    if ids_from is not None:
        file_name(ids_from, "numbering.ids_from")
    counts = items(entries["unknown"], "numbering.unknown", [0 if ids_from is None else tables])
    unknown = tuple(whole(count, f"numbering.unknown[{table}]", 0) for table, count in enumerate(counts))
    return {"fingerprint": fingerprint, "ids_from": ids_from, "unknown": unknown}


def _numbers(
    entries: dict[str, Any], name: str, width: int, columns: object, *, only_whole: bool
) -> tuple[float, ...]:
    """Return the numbers of an entry, one for each column; empty if there is no such entry."""
    if name not in entries:
        return ()
    if columns is None:
        raise SchemaError(f"it must not have an entry {name} without an entry columns")
    values = items(entries[name], name, [width])
    if only_whole:
        return tuple(whole(value, f"{name}[{number}]", 0) for number, value in enumerate(values))
    for number, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            refuse(f"{name}[{number}]", value, "a number")
        if name == "deviations" and not value > 0:
            refuse(f"{name}[{number}]", value, "a positive number")
    return tuple(map(float, values))


def _smallest_integer(entries: dict[str, Any], flags: dict[str, Any]) -> int | None:
    """Return the smallest integer, which only manifests of files with negative integers have."""
    traits = None if "adopted" in flags else DATA_SETS[flags["data_set"]]
    has_negative = traits is not None and traits.keeps_negative
    if has_negative != ("smallest_integer" in entries):
        what = "needs" if has_negative else "must not have"
        raise SchemaError(
            f"it {what} an entry smallest_integer with flags.data_set {shown(flags.get('data_set'))}"
        )
    if traits is None or not traits.keeps_negative:
        return None
    if traits.limits_rows and flags["max_ind_range"] != -1:
        raise SchemaError(f"flags.max_ind_range must be -1 with flags.data_set {shown(traits.name)}")
    return whole(entries["smallest_integer"], "smallest_integer", -(2**31), 2**31 - 1)


def _input_counts(flags: dict[str, Any], columns: ColumnsDescription | None) -> Collection[int]:
    """Return the allowed numbers of input files."""
    if columns is not None:
        split = columns.split
        if not isinstance(split, SplitByFile):
            return [1]
        return [len(split.train) + len(split.test) + len(split.validation)]
    return [len(DAYS(flags["days"]))] if "days" in flags else ALL_DAYS


def facts_of_inputs(value: object, counts: Collection[int] = ALL_DAYS) -> list[FileFacts]:
    """Return the input files. counts: their allowed numbers."""
    inputs = items(value, "inputs", counts)
    facts = [facts_of_file(each, f"inputs[{number}]", has_checksum=False) for number, each in enumerate(inputs)]
    for number, each in enumerate(facts):
        if each.size == 0:
            raise SchemaError(f"inputs[{number}].size is 0: an empty file cannot be prepared")
        if each.name in [other.name for other in facts[:number]]:
            raise SchemaError(f"inputs[{number}].name {shown(each.name)} is repeated")
    return facts


def facts_of_file(value: object, where: str, *, has_checksum: bool) -> FileFacts:
    """Return the facts of the file in the entry `where`; only some have a checksum."""
    entries = fields(value, where, ("name", "size", "mtime_ns", "crc32"))
    crc32 = entries["crc32"]
    if has_checksum:
        whole(crc32, f"{where}.crc32", 0, _MAX_CRC32)
    elif crc32 is not None:
        refuse(f"{where}.crc32", crc32, "null")
    return FileFacts(
        file_name(entries["name"], f"{where}.name"),
        whole(entries["size"], f"{where}.size", 0),
        whole(entries["mtime_ns"], f"{where}.mtime_ns", -(2**63)),
        crc32,
    )


def _flags(value: object) -> dict[str, Any]:
    if isinstance(value, dict) and "adopted" in value:
        flags = fields(value, "flags", ("adopted",))
        if flags["adopted"] not in ("kaggle", "terabyte"):
            refuse("flags.adopted", flags["adopted"], "'kaggle' or 'terabyte'")
        return flags
    optional = (*_FLAGS_OF_OLDER_MANIFESTS, "days")
    flags = {**_FLAGS_OF_OLDER_MANIFESTS, **fields(value, "flags", _FLAGS, optional)}
    declared = {flag.key: flag for _, flag in declared_flags(PreparationSettings)}
    for key, found in flags.items():
        flag = declared[key]
        default = "" if flag.default is None else flag.default
        kinds = (int, float) if isinstance(default, float) else (type(default),)
        if type(found) not in kinds:
            refuse(f"flags.{key}", found, f"a value of {flag.name}")
        try:
            flag.kind(str(found))
        except argparse.ArgumentTypeError as error:
            raise SchemaError(f"flags.{key}: {error}") from None
    return flags


def bad_rows(value: object) -> dict[str, dict[str, int]]:
    """Return the numbers of bad rows by file name and reason."""
    if not isinstance(value, dict):
        refuse("bad_rows", value, "an object")
    for name, reasons in value.items():
        file_name(name, "a name in bad_rows")
        if not isinstance(reasons, dict):
            refuse(f"bad_rows[{shown(name)}]", reasons, "an object")
        for count in reasons.values():
            whole(count, f"a number in bad_rows[{shown(name)}]", 0)
    return value


def _check_rows(files: dict[str, FileFacts], rows_per_split: dict[str, int], row_bytes: int) -> None:
    """Compare the sizes of the files with the rows of the splits."""
    for split, rows in rows_per_split.items():
        size = files[split].size
        if size != rows * row_bytes:
            raise SchemaError(
                f"files.{split}.size is {size}, but the {split} split of rows_per_day has {rows} rows of "
                f"{row_bytes} bytes"
            )
        if rows == 0 and split != "val":
            raise SchemaError(f"files.{split} has no rows")
