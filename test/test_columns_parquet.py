"""Parquet files give the rows of texts with equal values."""

from __future__ import annotations

import csv
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from plain_columns import parse_log

from mlperf.data.columns.description import (
    CategoricalColumn,
    ColumnsDescription,
    DenseColumn,
    IdKind,
    LabelColumn,
    SplitByValue,
    Transform,
)
from mlperf.data.columns.log_file import open_log
from mlperf.util.errors import RunError, UsageError

ROWS = 3000
DESCRIPTION = ColumnsDescription(
    label=LabelColumn("clicked"),
    dense=(
        DenseColumn("price", Transform.STANDARDIZE, is_integer=False),
        DenseColumn("weight", Transform.NONE, is_integer=False),
        DenseColumn("cost", Transform.NONE, is_integer=False),
        DenseColumn("age"),
    ),
    categorical=(
        CategoricalColumn("site"),
        CategoricalColumn("user", IdKind.INTEGER),
        CategoricalColumn("shop", IdKind.INTEGER),
        CategoricalColumn("zone"),
        CategoricalColumn("cookie", IdKind.HEXADECIMAL),
        CategoricalColumn("tags", IdKind.WORD, "|", 3),
        CategoricalColumn("items", IdKind.INTEGER, " ", 2),
    ),
    split=SplitByValue("day", ("2026-05-02",), ("2026-05-03",)),
    has_header=True,
)


def columns(seed: int) -> dict[str, list[Any]]:
    """Return values of the columns; None is missing."""
    draw = random.Random(seed)

    def some(make: Any) -> list[Any]:
        return [None if draw.random() < 0.1 else make() for _ in range(ROWS)]

    words = ["a", "Zürich", 'x"y', "p,q", "", "l\ttab", "w" * 50]
    return {
        "unused": some(lambda: 1.5),
        "clicked": [draw.randrange(2) for _ in range(ROWS)],
        "price": some(lambda: draw.gauss(0, 1) * 10 ** draw.randrange(-20, 20)),
        "weight": some(lambda: float(np.float32(draw.random()))),
        "cost": some(lambda: f"{draw.randrange(-(10**12), 10**12)}.{draw.randrange(100):02}"),
        "age": some(lambda: draw.randrange(-(2**31), 2**31)),
        "site": some(lambda: draw.choice(words)),
        "user": some(lambda: draw.randrange(-(2**63), 2**63)),
        "shop": some(lambda: draw.randrange(2**64)),
        "zone": some(lambda: draw.randrange(100)),
        "cookie": some(lambda: f"{draw.getrandbits(64):x}"),
        "tags": some(lambda: [draw.choice(["s", "t", "", None]) for _ in range(draw.randrange(6))]),
        "items": some(lambda: [draw.randrange(10**12) for _ in range(draw.randrange(4))]),
        "day": [f"2026-05-0{draw.randrange(1, 5)}" for _ in range(ROWS)],
    }


def table(values: dict[str, list[Any]]) -> pa.Table:
    """Return the columns as a table of many types."""
    types = {
        "weight": pa.float32(),
        "user": pa.int64(),
        "shop": pa.uint64(),
        "zone": pa.int16(),
        "tags": pa.list_(pa.string()),
        "items": pa.large_list(pa.int64()),
    }
    arrays = {name: pa.array(column, types.get(name)) for name, column in values.items()}
    arrays["site"] = arrays["site"].dictionary_encode()
    arrays["cost"] = arrays["cost"].cast(pa.decimal128(20, 2))
    arrays["day"] = arrays["day"].cast(pa.date32())
    return pa.table(arrays)


def write_text(path: Path, values: dict[str, list[Any]]) -> None:
    """Write the columns as a text."""
    joined = {"tags": "|", "items": " "}

    def field(name: str, value: Any) -> str:
        if isinstance(value, list):
            return joined[name].join("" if each is None else str(each) for each in value)
        return "" if value is None else str(value)

    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(values)
        for row in zip(*values.values(), strict=True):
            writer.writerow(field(name, value) for name, value in zip(values, row, strict=True))


@pytest.mark.parametrize("missing", [(), ("a", "7", "-3.5")])
def test_parquet_file_gives_the_rows_of_the_text_with_equal_values(
    missing: tuple[str, ...], tmp_path: Path
) -> None:
    description = replace(DESCRIPTION, missing=missing)
    values = columns(seed=1)
    values["price"][:3] = [-3.5, 0.0, -0.0]
    pq.write_table(table(values), tmp_path / "log.parquet", row_group_size=700)
    write_text(tmp_path / "log.csv", values)
    expected = parse_log(open_log(tmp_path / "log.csv", description))
    assert len(expected.rows) == ROWS
    assert expected.cut[-2] > 0 < expected.cut[-1]
    assert parse_log(open_log(tmp_path / "log.parquet", description)) == expected


def test_reading_continues_at_the_end_of_any_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlperf.data.columns.parquet.BLOCK_ROWS", 256)
    pq.write_table(table(columns(seed=2)), tmp_path / "log.parquet", row_group_size=700)
    log = open_log(tmp_path / "log.parquet", DESCRIPTION)
    whole = parse_log(log)
    blocks = list(log.blocks())
    assert len(blocks) > 12
    assert sum(block.length for block in blocks) == log.size()[0] == (tmp_path / "log.parquet").stat().st_size
    for end in (0, *(block.end for block in blocks)):
        assert parse_log(log, end).keys == whole.keys[end:]


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("clicked", [1, 2, 0], r"row 2, column 1 \('clicked'\): 2: not a label; allowed are 0 and 1"),
        ("clicked", [1, None, 0], r"row 2, column 1 \('clicked'\): None: not a label"),
        (
            "price",
            [0.5, float("inf"), 0.5],
            r"row 2, column 2 \('price'\): inf: the number does not fit in a float",
        ),
        ("price", [0.5, 1e39, 0.5], r"row 2, column 2 \('price'\): 1e\+39: the number does not fit in a float"),
        ("price", ["1", "one", "3"], r"row 2, column 2 \('price'\): 'one': not a decimal"),
        ("age", [1, 2.5, 3], r"row 2, column 3 \('age'\): 2\.5: not a whole number"),
        ("age", [1, 1 << 31, 3], r"row 2, column 3 \('age'\): 2147483648: the number is not in"),
        ("cookie", ["1", "xyz", "3"], r"row 2, column 4 \('cookie'\): 'xyz': not a hexadecimal id"),
    ],
)
def test_bad_row_is_named_with_row_and_column(name: str, values: list[Any], message: str, tmp_path: Path) -> None:
    good: dict[str, list[Any]] = {"clicked": [1, 0, 1], "price": [1.5] * 3, "age": [1, 2, 3], "cookie": ["a"] * 3}
    pq.write_table(pa.table({**good, name: values}), tmp_path / "x.parquet")
    log = open_log(tmp_path / "x.parquet", SMALL)
    (block,) = log.blocks()
    parsed = log.parser().parse(block)
    assert (len(parsed.rows), parsed.lines, len(parsed.faults)) == (2, 3, 1)
    with pytest.raises(RunError, match=message):
        raise log.fault_error(0, block, parsed.faults[0])


SMALL = ColumnsDescription(
    LabelColumn("clicked"),
    (DenseColumn("price", Transform.NONE, is_integer=False), DenseColumn("age")),
    (CategoricalColumn("cookie", IdKind.HEXADECIMAL),),
    has_header=True,
)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "clicked",
            [0.0, 1.0],
            r"column 1 \('clicked'\) has the type double; a label must be integers or text or",
        ),
        ("cookie", [10, 11], r"column 4 \('cookie'\) has the type int64; hexadecimal ids must be text"),
        (
            "price",
            [[1.0], [2.0]],
            r"column 2 \('price'\) has the type list<.*; a dense column must be integers or",
        ),
    ],
)
def test_column_of_another_type_is_refused(name: str, values: list[Any], message: str, tmp_path: Path) -> None:
    good: dict[str, list[Any]] = {"clicked": [1, 0], "price": [1.5] * 2, "age": [1, 2], "cookie": ["a"] * 2}
    pq.write_table(pa.table({**good, name: values}), tmp_path / "x.parquet")
    with pytest.raises(RunError, match=message):
        open_log(tmp_path / "x.parquet", SMALL)


@pytest.mark.parametrize("damage", ["cut", "text", "zeros"])
def test_damaged_parquet_file_is_named(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pq.write_table(table(columns(seed=3)), path)
    content = path.read_bytes()
    middle = len(content) // 3
    changed = {
        "cut": content[:middle],
        "text": b"clicked,price\n",
        "zeros": content[:99] + bytes(9999) + content[9999 + 99 :],
    }
    path.write_bytes(changed[damage])
    with pytest.raises(RunError, match=r"log\.parquet: damaged") as caught:
        parse_log(open_log(path, DESCRIPTION))
    assert "\n" not in str(caught.value)


def test_parquet_file_without_the_column_of_the_label_has_label_minus_one(tmp_path: Path) -> None:
    values = columns(seed=4)
    del values["clicked"]
    pq.write_table(table(values), tmp_path / "log.parquet")
    log = open_log(tmp_path / "log.parquet", DESCRIPTION, label_optional=True)
    assert not log.has_label
    assert {row[0] for row in parse_log(log).rows} == {-1}


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "x.parquet").touch()
    with pytest.raises(
        UsageError, match=r"x\.parquet: \.parquet requires the package pyarrow \(pip install pyarrow\)"
    ):
        open_log(tmp_path / "x.parquet", SMALL)
