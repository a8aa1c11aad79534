"""Own click logs in compressed text and in Parquet files: the same prepared files as from plain text."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interruption import Killed, killed_after_saves, result
from own_columns import HEADER, own_preparation, random_rows, write_description, write_log

from mlperf.data.prepare.pipeline import prepare
from mlperf.util.errors import RunError

ROWS = random_rows(203)
BY_VALUE = '[split]\ncolumn = "day"\ntest = ["d3"]\nval = ["d1"]\n'


def write_parquet(path: Path, columns: dict[str, Any], row_group_size: int = 70) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table(columns), path, row_group_size=row_group_size)


def parquet_columns(rows: list[list[str]]) -> dict[str, Any]:
    """Return the columns of a log with types of their own: numbers, texts, and lists of texts."""
    columns = {name: [row[number] for row in rows] for number, name in enumerate(HEADER)}
    return {
        **columns,
        "clicked": [int(text) for text in columns["clicked"]],
        "price": [float(text) if text else None for text in columns["price"]],
        "age": [int(text) if text else None for text in columns["age"]],
        "user": [int(text) if text else None for text in columns["user"]],
        "tags": [text.split("|") if text else [] for text in columns["tags"]],
    }


def inputs_of(folder: Path, name: str) -> dict[str, object]:
    """Return the entry of the manifest that differs between the forms of a text."""
    prepared = result(folder / name)
    manifest = prepared["manifest"]
    assert isinstance(manifest, dict)
    del manifest["inputs"]
    return prepared


@pytest.mark.parametrize("ending", ["csv.gz", "csv.zst", "parquet"])
@pytest.mark.parametrize("split", ["share", "value"])
def test_compressed_text_and_parquet_give_the_files_of_plain_text(ending: str, split: str, tmp_path: Path) -> None:
    write_log(tmp_path / "clicks.csv", ROWS)
    if split == "value":
        write_description(tmp_path, BY_VALUE)
    else:
        write_description(tmp_path)
    other = tmp_path / f"other.{ending}"
    if ending == "csv.gz":
        other.write_bytes(gzip.compress((tmp_path / "clicks.csv").read_bytes()))
    elif ending == "csv.zst":
        zstandard = pytest.importorskip("zstandard")
        other.write_bytes(zstandard.compress((tmp_path / "clicks.csv").read_bytes()))
    else:
        write_parquet(other, parquet_columns(ROWS))
    flags: dict[str, Any] = {"randomize": "total", "seed": 3}
    prepare(own_preparation(tmp_path, **flags))
    prepare(own_preparation(tmp_path, "y", raw_data_file=other, **flags))
    assert inputs_of(tmp_path, "x") == inputs_of(tmp_path, "y")


def test_preparation_of_a_parquet_file_continues_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, rows = np.random.default_rng(1), 80_000  # three blocks
    columns = {
        "clicked": stream.integers(0, 2, rows),
        "price": stream.normal(size=rows).astype(np.float32),
        "age": stream.integers(0, 90, rows),
        "site": stream.integers(0, 9, rows).astype(str),
        "user": stream.integers(0, 10_000, rows),
        "tags": stream.integers(0, 9, rows).astype(str),
    }
    write_parquet(tmp_path / "clicks.parquet", columns, row_group_size=30_000)
    write_description(tmp_path)
    flags: dict[str, Any] = {"raw_data_file": tmp_path / "clicks.parquet", "randomize": "total"}
    with killed_after_saves(monkeypatch, "text", 2), pytest.raises(Killed):
        prepare(own_preparation(tmp_path, checkpoint_seconds=0.0, **flags))
    prepare(own_preparation(tmp_path, **flags))
    prepare(own_preparation(tmp_path, "whole", **flags))
    assert result(tmp_path / "x") == result(tmp_path / "whole")


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    write_description(tmp_path)
    (tmp_path / "clicks.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(RunError, match=r"clicks\.parquet: damaged, or not a Parquet file"):
        prepare(own_preparation(tmp_path, raw_data_file=tmp_path / "clicks.parquet"))
    with pytest.raises(RunError, match=r"none\.csv: no such file, also not as \.gz; --raw-data-file=\S+ requires"):
        prepare(own_preparation(tmp_path, raw_data_file=tmp_path / "none.csv"))
    (tmp_path / "clicks.csv").touch()
    with pytest.raises(RunError, match=r"clicks\.csv: empty file; expected rows"):
        prepare(own_preparation(tmp_path))
    assert not list(tmp_path.glob("x*"))
