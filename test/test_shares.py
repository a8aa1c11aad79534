"""Shares of several processes in batches: together they are the batch, and each process reads only its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bytes_read import bytes_read
from reference_folders import ONE_HOT, ROWS, tables

from mlperf.data.batch import Batch
from mlperf.data.binary import BinaryFile
from mlperf.data.day_files import DayFiles
from mlperf.data.prepared.reference_files import ReferenceFiles
from mlperf.data.prepared.reference_paths import reference_prefix
from mlperf.data.row_batches import RowBatches
from mlperf.data.shares import SharedBatches
from mlperf.data.synthetic.random_batches import RandomBatches
from mlperf.distributed.processes import Processes
from mlperf.settings.data import DataSettings, GeneratedDataSettings

BINARY_ROWS = 30_011


@pytest.fixture(scope="module")
def binary_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("binary") / "x.bin"
    rows = np.random.default_rng(1).integers(0, 3, (BINARY_ROWS, 40), dtype="<i4")
    rows[:, 0] %= 2
    rows.tofile(path)
    return path


def day_files(folder: Path) -> DayFiles:
    prefix = reference_prefix(folder)
    assert prefix is not None
    return DayFiles(folder, ReferenceFiles.read(prefix).open("train"), 256, ROWS)


Make = Callable[[str], RowBatches]


@pytest.fixture(scope="module")
def source(binary_path: Path, multi_hot: Path) -> Make:
    """Return sources by name."""

    def make(name: str) -> RowBatches:
        if name == "binary":
            return BinaryFile(binary_path, BINARY_ROWS, 256, ROWS)
        if name == "binary expanded":
            return BinaryFile(binary_path, BINARY_ROWS, 256, ROWS, multi_hot=tables())
        if name == "days expanded":
            return replace(day_files(ONE_HOT), multi_hot=tables())
        return day_files(multi_hot if name == "days multi-hot" else ONE_HOT)

    return make


SOURCES = ("binary", "binary expanded", "days", "days expanded", "days multi-hot")


def of_ranks(whole: RowBatches, size: int) -> list[RowBatches]:
    return [replace(whole, processes=Processes(rank, size, rank, size)) for rank in range(size)]  # type: ignore[type-var]


def ids_by_sample(batch: Batch) -> torch.Tensor:
    """Return the ids sample by sample, with their tables, int64 [2, L]."""
    if batch.offsets is None:
        tables = torch.arange(len(batch.indices)).repeat(batch.size)
        return torch.stack((tables, batch.indices.T.flatten()))
    if batch.size == 0:
        assert len(batch.indices) == 0
        return torch.empty(2, 0, dtype=torch.int64)
    bags = batch.bags()
    order = (bags % batch.size).argsort(stable=True)
    return torch.stack((bags // batch.size, batch.indices))[:, order]


def assert_shares_of(whole: Batch, shares: list[Batch]) -> None:
    assert torch.equal(torch.cat([share.dense for share in shares]), whole.dense)
    assert torch.equal(torch.cat([share.labels for share in shares]), whole.labels)
    assert torch.equal(torch.cat([ids_by_sample(share) for share in shares], 1), ids_by_sample(whole))
    for share in shares:
        assert share.ids_per_table == whole.ids_per_table
        if whole.offsets is not None:
            assert share.offsets is not None
            assert share.offsets.shape == (len(whole.offsets), share.size)


# With 3 rows in a batch, rank 3 of 4 has none of any batch; with 9000, there is one batch in a group.
@pytest.mark.parametrize(("size", "batch_size", "limit"), [(2, 256, 20), (3, 37, 20), (4, 3, 9), (3, 9000, 0)])
@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("name", SOURCES)
def test_shares_together_are_the_batch(
    name: str, seed: int | None, size: int, batch_size: int, limit: int, source: Make
) -> None:
    settings = {"batch_size": batch_size, "shuffle_seed": seed, "limit": limit}
    whole = replace(source(name), **settings)  # type: ignore[type-var]
    ranks = of_ranks(whole, size)
    for batch, total, *shares in zip(
        whole.batches(1), ranks[0].sizes(1), *(rank.batches(1) for rank in ranks), strict=True
    ):
        assert total == batch.size
        assert_shares_of(batch, list(shares))
    for raw, *parts in zip(whole.raw_batches(0), *(rank.raw_batches(0) for rank in ranks), strict=True):
        assert torch.equal(torch.cat([part.rows for part in parts]), raw.rows)
        assert parts[0].first_row == raw.first_row
        sizes = whole.ids_per_table or ()
        for ids in zip(*(by_table(part.ids, sizes, part.size) for part in (raw, *parts)), strict=True):
            assert torch.equal(torch.cat(ids[1:]), ids[0])


def by_table(ids: torch.Tensor | None, sizes: tuple[int, ...], rows: int) -> Iterator[torch.Tensor]:
    """Yield the ids of each table of an undecoded batch, [rows, ids]."""
    if ids is not None:
        for part, size in zip(ids.split([rows * size for size in sizes]), sizes, strict=True):
            yield part.view(rows, size)


@pytest.mark.parametrize("batch_size", [256, 9000])
@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("name", SOURCES)
def test_each_process_reads_only_the_bytes_of_its_rows(
    name: str, seed: int | None, batch_size: int, source: Make
) -> None:
    whole = replace(source(name), batch_size=batch_size, shuffle_seed=seed)  # type: ignore[type-var]
    list(whole.batches(0))  # import and compile

    def read(batches: RowBatches) -> int:
        return bytes_read(lambda: sum(batch.size for batch in batches.batches(0)))

    in_all = read(whole)
    row_bytes = in_all / whole.rows
    assert row_bytes >= 160 if name == "binary" else row_bytes > 4 * 14
    for rank in of_ranks(whole, 3):
        rows = sum(rank.processes.share(size)[1] for size in rank.sizes(0))
        assert read(rank) == pytest.approx(rows * row_bytes, abs=100)


@pytest.mark.parametrize("lookups", [1, 7])
@pytest.mark.parametrize("fixed", [False, True])
def test_shares_of_generated_batches_together_are_the_batch(lookups: int, fixed: bool) -> None:
    generated = GeneratedDataSettings(lookups=lookups, fixed_lookups=fixed, data_size=29)
    settings = DataSettings(batch_size=9, generated=generated)
    stream = np.random.RandomState(1)
    whole = RandomBatches(settings, dense_features=3, rows_per_table=(4, 1, 50), stream=stream)
    for size in (2, 3, 4):
        ranks = [SharedBatches(whole, Processes(rank, size, rank, size)) for rank in range(size)]
        for batch, total, *shares in zip(
            whole.batches(0, 1), ranks[0].sizes(0, 1), *(rank.batches(0, 1) for rank in ranks), strict=True
        ):
            assert total == batch.size
            assert_shares_of(batch, list(shares))
