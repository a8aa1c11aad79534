"""Compare the rows and ids that the program reads with those of golden data of DLRM-DCNv2."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from golden_folder import DAYS, PARTS, Array, Disagreement, Golden

from mlperf.cli.train import parse
from mlperf.data.binary import BinaryFile
from mlperf.data.multi_hot import MultiHotTables
from mlperf.data.schema import DenseFormat
from mlperf.runner.data import open_split, verified_data

_FIRST_ROWS = 256  # whose ids have checksums


@dataclass(frozen=True)
class Rows:
    """Rows in order: dense float32 [R, n], ids of each table int32 [R, size], labels [R]."""

    dense: Array
    ids: list[Array]
    labels: Array

    def slice(self, start: int, stop: int) -> Rows:
        return Rows(self.dense[start:stop], [ids[start:stop] for ids in self.ids], self.labels[start:stop])


class ReadData:
    """The golden data as this program reads it, in the order of the days.

    lookup_file: that of --multi-hot-tables.
    """

    def __init__(self, golden: Golden, lookup_file: Path) -> None:
        self.golden = golden
        self.lookup_file = lookup_file
        self.multi_hot: MultiHotTables | None = None  # known with the splits

    @cached_property
    def splits(self) -> dict[str, Rows]:
        """The rows of each split of this program."""
        settings = parse([*self.golden.data_flags(self.lookup_file), "--inference-only"])
        prepared = verified_data(settings, [])
        self.multi_hot = prepared.multi_hot
        return {name: self.read(open_split(settings, prepared, name)) for name in ("train", "test", "val")}

    def read(self, source: Any) -> Rows:
        """Return all rows of a BatchSource."""
        dense, labels, ids = [], [], []
        sizes = self.golden.multi_hot_sizes
        for batch in source.batches(0):
            dense.append(batch.dense.numpy().copy())
            labels.append(batch.labels[:, 0].numpy().copy())
            flat = batch.indices.numpy().reshape(-1)
            ends = np.cumsum([batch.size * size for size in sizes])
            if len(flat) != ends[-1]:
                raise Disagreement(f"a batch of {batch.size} samples has {len(flat)} ids, expected {ends[-1]}")
            parts = np.split(flat, ends[:-1])
            ids.append([part.reshape(batch.size, -1).astype(np.int32) for part in parts])
        per_table = [np.concatenate(parts) for parts in zip(*ids, strict=True)]
        return Rows(np.concatenate(dense), per_table, np.concatenate(labels))

    @cached_property
    def days(self) -> dict[int, Rows]:
        """The rows of each day."""
        train, test, val = (self.splits[name] for name in ("train", "test", "val"))
        days, start = {}, 0
        for day in DAYS[:-1]:
            stop = start + len(self.golden.one_hot(day, "labels"))
            days[day] = train.slice(start, stop)
            start = stop
        if start != len(train.labels):
            raise Disagreement(f"the program reads {len(train.labels)} training rows, expected {start}")
        ids = [np.concatenate(pair) for pair in zip(test.ids, val.ids, strict=True)]
        days[DAYS[-1]] = Rows(
            np.concatenate([test.dense, val.dense]), ids, np.concatenate([test.labels, val.labels])
        )
        return days


def compare_rows(data: ReadData) -> str:
    """Compare dense features and labels of all days, and the numbers of samples of each half of the last."""
    golden, rows = data.golden, 0
    for day, found in data.days.items():
        dense, _, labels = (golden.one_hot(day, part) for part in PARTS)
        if not np.array_equal(found.dense, dense) or not np.array_equal(found.labels, labels[:, 0]):
            raise Disagreement(f"dense features or labels of day {day} differ")
        rows += len(labels)
    for ours, theirs in (("test", "val"), ("val", "test")):
        labels = data.splits[ours].labels
        for run in golden.runs.values():
            expected = (run.splits[theirs].samples, run.splits[theirs].positives)
            if (len(labels), int(labels.sum())) != expected:
                raise Disagreement(
                    f"split {ours} has {len(labels)} samples, {int(labels.sum())} clicks, not {expected}"
                )
    return f"{rows} rows of {len(data.days)} days, dense features and labels"


def compare_expanded_ids(data: ReadData) -> str:
    """Compare the ids of all days with their checksums and with the files that the folder has, exactly."""
    golden, files, checksums = data.golden, 0, 0
    for day, found in data.days.items():
        path = golden.multi_hot_file(day)
        if path.is_file():
            files += 1
            with np.load(path) as archive:
                for table, ids in enumerate(found.ids):
                    if not np.array_equal(ids, archive[str(table)]):
                        raise Disagreement(f"the ids of table {table} on day {day} differ from {path.name}")
        facts = golden.content.get("files", {}).get(path.name, {})
        if "arrays_sha256" in facts:
            checksums += 1
            joined = b"".join(ids.astype("<i4").tobytes() for ids in found.ids)
            if hashlib.sha256(joined).hexdigest() != facts["arrays_sha256"]:
                raise Disagreement(f"the ids of day {day} do not have the checksum of golden.json")
    _compare_first_rows(data)
    return f"{files} files and {checksums} checksums of days"


def _compare_first_rows(data: ReadData) -> None:
    """Compare the ids of the first training rows with their checksums in golden.json."""
    expected = data.golden.content.get("multi_hot", {}).get(f"first_{_FIRST_ROWS}_rows", {})
    ids = data.splits["train"].slice(0, _FIRST_ROWS).ids
    joined = b"".join(part.astype("<i4").tobytes() for part in ids)
    found = {
        "count": len(joined) // 4,
        "sha256": hashlib.sha256(joined).hexdigest(),
        "crc32": f"{zlib.crc32(joined):08x}",
        "sum": sum(int(part.sum(dtype=np.int64)) for part in ids),
        "sum_per_feature": [int(part.sum(dtype=np.int64)) for part in ids],
        "feature_0_first_rows": ids[0][:3].tolist(),
    }
    for fact in found.keys() & expected.keys():
        value = expected[fact]
        if found[fact] != value:
            raise Disagreement(f"{fact} of the first {_FIRST_ROWS} rows is {found[fact]}, expected {value}")


def compare_lookup_tables(data: ReadData) -> str:
    """Compare the lookup tables in the file that the training has made with their checksums in golden.json."""
    golden = data.golden
    expected = golden.content.get("multi_hot", {}).get("lookup_tables", [])
    with np.load(data.lookup_file) as archive:
        tables = [archive[str(number)] for number in range(len(golden.table_rows))]
    for number, (table, rows, size) in enumerate(
        zip(tables, golden.table_rows, golden.multi_hot_sizes, strict=True)
    ):
        if table.shape != (rows, size) or not np.array_equal(table[:, 0], np.arange(rows)):
            raise Disagreement(f"table {number} is not a table of {rows} ids with {size} ids each")
    for facts in expected:
        table = tables[facts["feature"]]
        if hashlib.sha256(table.astype("<i4").tobytes()).hexdigest() != facts["sha256"]:
            raise Disagreement(f"table {facts['feature']} does not have the checksum of golden.json")
    return f"{len(tables)} tables, {len(expected)} checksums"


def compare_binary_rows(data: ReadData, path: Path) -> str:
    """Compare the first training rows with those in the binary format: raw integers, ids after the modulo."""
    columns = 1 + data.golden.initial["bottom.0.weight"].shape[1] + len(data.golden.table_rows)
    rows = np.fromfile(path, "<i4").reshape(-1, columns)
    found = data.splits["train"].slice(0, len(rows))
    facts = data.golden.content.get(path.name, {})
    tables = len(data.golden.table_rows)
    integers = rows[:, 1:-tables]
    smallest = facts.get("smallest_integer", int(integers.min()))
    if len(rows) != len(found.labels) or facts.get("rows", len(rows)) != len(rows):
        raise Disagreement(f"{path.name} has {len(rows)} rows")
    if not np.array_equal(rows[:, 0], found.labels):
        raise Disagreement(f"the labels differ from {path.name}")
    if not np.array_equal(rows[:, -tables:], np.stack([ids[:, 0] for ids in found.ids], 1)):
        raise Disagreement(f"the ids before the expansion differ from {path.name}")
    offsets = _offsets(integers, found.dense)
    if integers.min() != smallest or not np.allclose(
        np.log(integers + offsets), found.dense, rtol=1e-6, atol=1e-6
    ):
        raise Disagreement(f"the dense features are not the logarithms of the integers in {path.name}")
    _compare_decoded_rows(data, path, rows, DenseFormat(smallest, 2 - smallest))
    return f"{len(rows)} rows, labels, integers and ids, also read by the program"


def _compare_decoded_rows(data: ReadData, path: Path, rows: Array, dense: DenseFormat) -> None:
    """Compare the rows of a binary file as the program reads them with the numbers in it."""
    file = BinaryFile(
        path,
        len(rows),
        512,
        tuple(data.golden.table_rows),
        dense=dense,
        modulo_rows=True,
        multi_hot=data.multi_hot,
    )
    found, tables = data.read(file), len(data.golden.table_rows)
    expected = data.splits["train"].slice(0, len(rows))
    logarithms = np.log((rows[:, 1:-tables] + dense.offset).astype(np.float32))
    if not np.allclose(found.dense, logarithms, rtol=1e-6, atol=1e-6):
        raise Disagreement(f"the program reads other dense features from {path.name}")
    same_ids = all(np.array_equal(ours, theirs) for ours, theirs in zip(found.ids, expected.ids, strict=True))
    if not same_ids or not np.array_equal(found.labels, expected.labels):
        raise Disagreement(f"the program reads other ids or labels from {path.name}")


def _offsets(integers: Array, dense: Array) -> Array:
    """Return what was added to the integers of each row before the logarithm, [R, 1]: it depends on the day.

    A small integer shows it best.
    """
    column = integers.argmin(1)[:, None]
    smallest = np.take_along_axis(integers, column, 1)
    return np.rint(np.exp(np.take_along_axis(dense, column, 1).astype(np.float64)) - smallest)
