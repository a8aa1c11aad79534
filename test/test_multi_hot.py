"""Several ids per table: the tables that expand ids, in memory and in a file."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program import GOLDEN

from mlperf.data.multi_hot import MultiHotShape, MultiHotTables
from mlperf.data.multi_hot_file import multi_hot_tables, open_tables, verify_tables, write_tables
from mlperf.data.synthetic import legacy_stream
from mlperf.util.errors import RunError

FOLDER = GOLDEN / "dcnv2"
FACTS: dict[str, Any] = json.loads((FOLDER / "golden.json").read_text())
SHAPE = MultiHotShape(tuple(FACTS["model"]["table_rows"]), tuple(FACTS["model"]["multi_hot_sizes"]))
SMALL = MultiHotShape((5, 3, 40, 1), (3, 1, 7, 2))


def sequential_draw(shape: MultiHotShape) -> list[np.ndarray]:
    """Draw the tables as the specification says, each in one call of NumPy."""
    stream = np.random.RandomState(0)
    tables: list[np.ndarray] = []
    for rows, size in zip(shape.rows_per_table, shape.sizes, strict=True):
        if shape.distribution == "uniform":
            drawn: np.ndarray = stream.randint(0, rows, size=(rows, size - 1))
        else:
            numbers = stream.pareto(a=0.25, size=(rows, size - 1))
            drawn = np.where(numbers < 2**31, numbers, -(2**31)).astype(np.int64).astype(np.int32) % rows
        tables.append(np.hstack([np.arange(rows)[:, None], drawn]))
    return tables


def golden_ids(day: int) -> np.ndarray:
    ids: np.ndarray = np.load(FOLDER / "onehot" / f"day_{day}_sparse.npy")
    return ids


def test_tables_are_those_of_the_reference() -> None:
    tables = MultiHotTables.drawn(SHAPE)
    for number, facts in enumerate(FACTS["multi_hot"]["lookup_tables"]):
        assert hashlib.sha256(tables.table(number).tobytes()).hexdigest() == facts["sha256"], number


def test_ids_are_expanded_as_by_the_reference() -> None:
    facts = FACTS["multi_hot"]["first_256_rows"]
    ids = MultiHotTables.drawn(SHAPE).expand(golden_ids(0)[:256])
    assert len(ids) == facts["count"]
    assert hashlib.sha256(ids.astype("<i4").tobytes()).hexdigest() == facts["sha256"]
    assert f"{zlib.crc32(ids.astype('<i4').tobytes()):08x}" == facts["crc32"]


@pytest.mark.parametrize("distribution", ["uniform", "pareto"])
def test_drawing_in_pieces_gives_the_numbers_of_one_draw(
    distribution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlperf.data.multi_hot.PIECE_IDS", 16)
    shape = MultiHotShape((*SMALL.rows_per_table, 1000), (*SMALL.sizes, 2), distribution)
    tables = MultiHotTables.drawn(shape)
    for number, expected in enumerate(sequential_draw(shape)):
        assert np.array_equal(tables.table(number), expected), number


def test_compiled_integers_are_those_of_numpy() -> None:
    stream = np.random.RandomState(3)
    state = legacy_stream.state_of(stream)
    for limit in (1, 2, 3, 64, 65, 40_000_000, 2**31 - 1, 2**31):
        numbers = np.empty((7, 211), np.int32)
        legacy_stream.fill_below(state, limit, numbers)
        assert np.array_equal(numbers, stream.randint(0, limit, size=(7, 211))), limit


def test_ids_are_taken_modulo_the_rows_and_negative_ones_are_refused() -> None:
    tables = MultiHotTables.drawn(SMALL)
    small, large = np.array([[1, 2, 3, 0]]), np.array([[6, 5, 43, 8]])
    assert np.array_equal(tables.expand(small), tables.expand(large))
    with pytest.raises(ValueError, match="negative"):
        tables.expand(-small)


def test_tables_in_a_file_are_those_in_memory_and_an_ordinary_archive(tmp_path: Path) -> None:
    path = tmp_path / "tables.npz"
    mapped = multi_hot_tables(SHAPE, tmp_path / "x", path)
    in_memory = MultiHotTables.drawn(SHAPE)
    assert os.listdir(tmp_path) == [path.name]
    with np.load(path) as archive:
        for number in range(26):
            assert np.array_equal(mapped.table(number), in_memory.table(number))
            assert np.array_equal(archive[f"{number}"], in_memory.table(number))
            assert mapped.table(number).ctypes.data % 64 == 0
    assert np.array_equal(mapped.expand(golden_ids(5)), in_memory.expand(golden_ids(5)))
    verify_tables(path)


def test_large_tables_are_beside_the_data_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlperf.data.multi_hot_file.MAX_IN_MEMORY", 1000)
    tables = multi_hot_tables(SMALL, tmp_path / "x")
    assert tables.file is not None
    assert tables.file.path.name.startswith("x_multi_hot_uniform_")
    before = tables.file.path.stat()
    assert multi_hot_tables(SMALL, tmp_path / "x").file is not None
    assert tables.file.path.stat().st_ino == before.st_ino
    others = [
        MultiHotShape(SMALL.rows_per_table, SMALL.sizes, "pareto"),
        MultiHotShape((5, 3, 41, 1), SMALL.sizes),
    ]
    for other in others:
        multi_hot_tables(other, tmp_path / "x")
    assert len(os.listdir(tmp_path)) == 3


def test_small_tables_are_in_memory(tmp_path: Path) -> None:
    assert multi_hot_tables(SMALL, tmp_path / "x").file is None
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        (
            MultiHotShape((5, 3, 41, 1), SMALL.sizes),
            r"2\.npy: is an array of int32 with shape \(40, 7\); expected",
        ),
        (MultiHotShape((5, 3), (3, 1)), "must have the tables of --multi-hot-sizes"),
        (MultiHotShape(SMALL.rows_per_table, SMALL.sizes, "pareto"), "does not have the ids of --multi-hot-dist"),
    ],
)
def test_file_with_other_tables_is_refused(shape: MultiHotShape, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "tables.npz"
    write_tables(path, SMALL)
    with pytest.raises(RunError, match=rf"tables\.npz.*{problem}"):
        multi_hot_tables(shape, tmp_path / "x", path)


def test_archive_of_another_program_that_cannot_be_mapped_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tables.npz"
    arrays: dict[str, Any] = {f"{k}": table.astype(np.int32) for k, table in enumerate(sequential_draw(SMALL))}
    np.savez(path, **arrays)
    with pytest.raises(RunError, match="do not begin at multiples of 4 bytes"):
        open_tables(path, SMALL)
    np.savez_compressed(path, **arrays)
    with pytest.raises(RunError, match=r"tables\.npz: cannot read an archive of arrays: 0\.npy is compressed"):
        open_tables(path, SMALL)


def test_damaged_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tables.npz"
    write_tables(path, SMALL)
    whole = path.read_bytes()
    tables = open_tables(path, SMALL)
    offset = 4 * int(tables.starts[2]) + 4 * 7 * 39  # the last row of table 2
    for count in (len(whole) - 1, len(whole) // 2, 3, 0):
        path.write_bytes(whole[:count])
        with pytest.raises(RunError, match=r"tables\.npz: "):
            open_tables(path, SMALL)
    path.write_bytes(whole[:offset] + b"\xff\xff\xff\x7f" + whole[offset + 4 :])
    ids = np.array([[0, 0, 39, 0]])
    with pytest.raises(RunError, match=r"tables\.npz: damaged: the checksum of 2\.npy is"):
        verify_tables(path)
    with pytest.raises(RunError, match=r"tables\.npz: damaged: an id is outside its table"):
        open_tables(path, SMALL).expand(ids)


def test_tables_that_are_written_to_while_they_are_used_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "tables.npz"
    write_tables(path, SMALL)
    tables = open_tables(path, SMALL)
    ids = np.zeros((1, 4), np.int32)
    tables.expand(ids)
    with path.open("r+b") as file:
        file.write(b"PK")
    with pytest.raises(RunError, match=r"tables\.npz: changed while it was read"):
        tables.expand(ids)


def test_tables_that_were_cut_are_noticed_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "tables.npz"
    write_tables(path, SMALL)
    tables = open_tables(path, SMALL)
    path.open("r+b").truncate(0)  # reading a page behind the end raises SIGBUS
    with pytest.raises(RunError, match=r"tables\.npz: changed while it was read: it had \d+ bytes and has 0 now"):
        tables.expand(np.zeros((1, 4), np.int32))


def test_folder_that_cannot_be_written_to_names_the_flag_that_helps(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "tables.npz"
    with pytest.raises(RunError) as caught:
        multi_hot_tables(SMALL, tmp_path / "x", path)
    assert str(caught.value).startswith(f"{path}: the ids of --multi-hot-sizes cannot be written: ")
    assert str(caught.value).endswith("; --multi-hot-tables names another file")
