"""What a manifest may contain, entry by entry and together."""

from __future__ import annotations

import argparse
from typing import Any

from mlperf.benchmarks.data_sets import DATA_SETS
from mlperf.data.criteo.days import KAGGLE_DAYS, SPLITS, TERABYTE_DAYS, split_rows
from mlperf.data.prepared.file_facts import FileFacts
from mlperf.data.schema import CRITEO, MAX_TABLE_ROWS
from mlperf.settings.dataset import PreparationSettings
from mlperf.settings.flags import declared_flags
from mlperf.util.printable import shown
from mlperf.util.strict_json import SchemaError, fields, file_name, items, refuse, whole

_REQUIRED = ("format_version", "flags", "inputs", "rows_per_day", "counts", "files")
_OPTIONAL = ("bad_rows", "archive", "smallest_integer")  # older manifests lack the first two
_FLAGS = ("data_set", "max_ind_range", "data_randomize", "numpy_rand_seed")
_FLAGS_OF_OLDER_MANIFESTS = {"data_sub_sample_rate": 0.0, "bad_rows": "stop"}  # defaults for missing flags
_MAX_CRC32 = (1 << 32) - 1


def checked_content(content: object, format_version: int) -> dict[str, Any]:
    """Return the fields of a Manifest from the value of its JSON. SchemaError if it is no manifest."""
    entries = fields(content, "it", _REQUIRED, _OPTIONAL)
    whole(entries["format_version"], "format_version", format_version, format_version)
    inputs = facts_of_inputs(entries["inputs"])
    days = items(entries["rows_per_day"], "rows_per_day", [KAGGLE_DAYS if len(inputs) == 1 else TERABYTE_DAYS])
    counts = items(entries["counts"], "counts", [CRITEO.tables])
    archive = entries.get("archive")
    checked: dict[str, Any] = {
        "flags": _flags(entries["flags"]),
        "inputs": inputs,
        "rows_per_day": [whole(rows, f"rows_per_day[{day}]", 0) for day, rows in enumerate(days)],
        "counts": [whole(count, f"counts[{table}]", 1, MAX_TABLE_ROWS) for table, count in enumerate(counts)],
        "files": {
            split: facts_of_file(facts, f"files.{split}", has_checksum=True)
            for split, facts in fields(entries["files"], "files", SPLITS).items()
        },
        "bad_rows": bad_rows(entries.get("bad_rows", {})),
        "archive": None if archive is None else facts_of_file(archive, "archive", has_checksum=True),
    }
    checked["smallest_integer"] = _smallest_integer(entries, checked["flags"])
    _check_rows(checked["files"], checked["rows_per_day"])
    return checked


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


def facts_of_inputs(value: object) -> list[FileFacts]:
    """Return the input files."""
    inputs = items(value, "inputs", [1, TERABYTE_DAYS])
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
    flags = {**_FLAGS_OF_OLDER_MANIFESTS, **fields(value, "flags", _FLAGS, _FLAGS_OF_OLDER_MANIFESTS)}
    declared = {flag.key: flag for _, flag in declared_flags(PreparationSettings)}
    for key, found in flags.items():
        flag = declared[key]
        kinds = (int, float) if isinstance(flag.default, float) else (type(flag.default),)
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


def _check_rows(files: dict[str, FileFacts], rows_per_day: list[int]) -> None:
    """Compare the sizes of the files with the rows of the days."""
    for split, rows in split_rows(rows_per_day).items():
        size = files[split].size
        if size != rows * CRITEO.row_bytes:
            raise SchemaError(
                f"files.{split}.size is {size}, but the {split} split of rows_per_day has {rows} rows of "
                f"{CRITEO.row_bytes} bytes"
            )
        if rows == 0 and split != "val":
            raise SchemaError(f"files.{split} has no rows")
