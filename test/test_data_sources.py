"""Data sources: batches of the binary file and random batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mlperf.data.binary import BinaryFile
from mlperf.data.buffer_pool import BufferPool
from mlperf.data.synthetic import legacy_stream
from mlperf.data.synthetic.random_batches import RandomBatches
from mlperf.settings.data import DataSettings, GeneratedDataSettings, IdDistribution
from mlperf.util.errors import RunError


def write_rows(path: Path, rows: int) -> np.ndarray:
    stream = np.random.default_rng(3)
    table = stream.integers(0, 50, (rows, 40), dtype=np.int32)
    table[:, 0] = stream.integers(0, 2, rows)
    table[:, 14] = np.arange(rows)  # identifies the row
    table.astype("<i4").tofile(path)
    return table


def binary_file(path: Path, rows: int, batch_size: int, **settings: object) -> BinaryFile:
    sizes = (10_000, *([50] * 25))
    return BinaryFile(path, rows, batch_size, sizes, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("readers", [1, 4])
@pytest.mark.parametrize(("rows", "batch_size"), [(10, 4), (12, 4), (3, 5), (1000, 7)])
def test_batches_contain_every_row_once_in_file_order(
    rows: int, batch_size: int, readers: int, tmp_path: Path
) -> None:
    table = write_rows(tmp_path / "x.bin", rows)
    source = binary_file(tmp_path / "x.bin", rows, batch_size, readers=readers)
    batches = list(source.batches(0))
    assert len(batches) == source.batches_per_epoch == -(-rows // batch_size)
    assert source.samples == rows
    assert torch.equal(torch.cat([batch.labels for batch in batches])[:, 0], torch.tensor(table[:, 0]).float())
    indices = torch.cat([batch.indices for batch in batches], 1)
    assert torch.equal(indices, torch.tensor(table[:, 14:].T).long())
    dense = torch.cat([batch.dense for batch in batches])
    torch.testing.assert_close(dense, torch.tensor(np.log1p(table[:, 1:14]), dtype=torch.float32))


def order(source: BinaryFile, epoch: int, first: int = 0) -> list[int]:
    return [int(batch.indices[0, 0]) for batch in source.batches(epoch, first)]


def test_order_of_shuffled_batches_depends_on_seed_and_epoch(tmp_path: Path) -> None:
    write_rows(tmp_path / "x.bin", 100)
    source = binary_file(tmp_path / "x.bin", 100, 4, shuffle_seed=1)
    assert sorted(order(source, 0)) == list(range(0, 100, 4))
    assert order(source, 0) != sorted(order(source, 0))
    assert order(source, 0) == order(source, 0)
    assert order(source, 0) != order(source, 1)
    assert order(source, 0) != order(binary_file(tmp_path / "x.bin", 100, 4, shuffle_seed=2), 0)
    assert order(source, 1, first=7) == order(source, 1)[7:]


@pytest.mark.parametrize("batch_size", [1, 7, 300, 9000])
@pytest.mark.parametrize("readers", [1, 3])
def test_batches_that_are_kept_stay_as_they_were_read(readers: int, batch_size: int, tmp_path: Path) -> None:
    rows = 400 if batch_size == 1 else 40_000
    table = write_rows(tmp_path / "x.bin", rows)
    sizes = (rows, *([50] * 25))
    settings = {"shuffle_seed": 4, "readers": readers}
    source = BinaryFile(tmp_path / "x.bin", rows, batch_size, sizes, **settings)  # type: ignore[arg-type]
    kept = [*zip(source.batches(0), source.raw_batches(0), strict=True)]
    expected = torch.from_numpy(table)
    starts = []
    for batch, raw in kept:
        starts.append(raw.first_row)
        part = expected[raw.first_row : raw.first_row + batch_size]
        assert torch.equal(raw.rows, part)
        assert torch.equal(batch.indices, part[:, 14:].T)
        assert torch.equal(batch.labels, part[:, :1].float())
        torch.testing.assert_close(batch.dense, part[:, 1:14].float().log1p())
    assert sorted(starts) == list(range(0, rows, batch_size)) != starts


@pytest.mark.parametrize("batch_size", [1, 2, 33, 150])
def test_dense_features_of_a_batch_are_aligned_alike_wherever_the_reading_begins(
    batch_size: int, tmp_path: Path
) -> None:
    """The rounding of matrix products depends on the alignment: a resumed run must give the same weights."""
    write_rows(tmp_path / "x.bin", 1000)
    source = binary_file(tmp_path / "x.bin", 1000, batch_size)
    for first in range(3):
        for batch in source.batches(0, first):
            assert batch.dense.data_ptr() % 64 == 0
            assert batch.dense.is_contiguous()


def test_memory_of_batches_is_used_again_when_nothing_refers_to_it() -> None:
    pool = BufferPool(640)
    first = pool.take(640)
    address, view = first.ctypes.data, torch.from_numpy(first[64:128].view(np.int64)).view(2, 4).numpy()[1]
    del first
    others = [pool.take(10) for _ in range(3)]
    assert address not in {other.ctypes.data for other in others}
    del view
    assert pool.take(640).ctypes.data == address
    with pytest.raises(ValueError, match="641"):
        pool.take(641)


def test_limit_takes_the_first_batches(tmp_path: Path) -> None:
    write_rows(tmp_path / "x.bin", 100)
    source = binary_file(tmp_path / "x.bin", 100, 8, limit=3)
    assert order(source, 0) == [0, 8, 16]
    assert (source.batches_per_epoch, source.samples) == (3, 24)


def test_negative_dense_features_are_read_as_zero(tmp_path: Path) -> None:
    table = write_rows(tmp_path / "x.bin", 4)
    table[2, 1:14] = -5
    table.astype("<i4").tofile(tmp_path / "x.bin")
    (batch,) = binary_file(tmp_path / "x.bin", 4, 4).batches(0)
    assert torch.equal(batch.dense[2], torch.zeros(13))


def test_indices_are_taken_modulo_the_limit(tmp_path: Path) -> None:
    table = write_rows(tmp_path / "x.bin", 20)
    sizes = tuple([7] * 26)
    (batch,) = BinaryFile(tmp_path / "x.bin", 20, 20, sizes, max_ind_range=7).batches(0)
    assert torch.equal(batch.indices, torch.tensor(table[:, 14:].T % 7).long())


@pytest.mark.parametrize(("column", "value"), [(14, 10_000), (20, 50), (39, -1), (0, 2), (0, -1)])
def test_value_out_of_range_is_named(column: int, value: int, tmp_path: Path) -> None:
    table = write_rows(tmp_path / "x.bin", 20)
    table[13, column] = value
    table.astype("<i4").tofile(tmp_path / "x.bin")
    for seed in (None, 1, 2):
        source = binary_file(tmp_path / "x.bin", 20, 3, shuffle_seed=seed)
        with pytest.raises(RunError, match=rf"x\.bin: row 14, column {column + 1}: .* {value} "):
            list(source.batches(0))


def random_settings(samples: int, batch_size: int, **generated: object) -> DataSettings:
    chosen = GeneratedDataSettings(data_size=samples, **generated)  # type: ignore[arg-type]
    return DataSettings(batch_size=batch_size, generated=chosen)


def sequential_draw(
    data: DataSettings, dense_features: int, rows_per_table: tuple[int, ...], seed: int
) -> list[tuple[np.ndarray, list[list[np.ndarray]]]]:
    """Draw sample by sample, like the original DLRM implementation."""
    stream = np.random.RandomState(seed)
    settings, ids = data.generated, data.generated.ids
    batches = []
    for start in range(0, settings.data_size, data.batch_size):
        size = min(data.batch_size, settings.data_size - start)
        dense = stream.rand(size, dense_features).astype(np.float32)
        tables = []
        for rows in rows_per_table:
            samples = []
            for _ in range(size):
                count = settings.lookups
                if not settings.fixed_lookups:
                    count = int(np.round(max(1.0, stream.random_sample(1)[0] * min(rows, settings.lookups))))
                if ids.kind == "uniform":
                    numbers = stream.random_sample(count)
                else:
                    numbers = stream.normal(ids.mean, ids.sigma, count).clip(ids.minimum, ids.maximum)
                samples.append(np.unique(np.round(numbers * (rows - 1)).astype(np.int64)))
            tables.append(samples)
        batches.append((dense, tables))
    return batches


@pytest.mark.parametrize(
    "ids",
    [
        IdDistribution(),
        IdDistribution("gaussian"),
        IdDistribution("gaussian", minimum=0.1, maximum=0.3, mu=0.2, sigma=0.1),
    ],
)
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("seed", [123, 9])
def test_random_data_equals_the_sequential_draw(ids: IdDistribution, fixed: bool, seed: int) -> None:
    rows = (40, 3, 1, 200)
    settings = random_settings(23, 5, fixed_lookups=fixed, round_targets=True, ids=ids)
    source = RandomBatches(settings, dense_features=3, rows_per_table=rows, stream=np.random.RandomState(seed))
    expected = sequential_draw(settings, 3, rows, seed)
    assert (source.samples, source.batches_per_epoch) == (23, 5)
    for batch, (dense, tables) in zip(source.batches(0), expected, strict=True):
        assert np.array_equal(batch.dense.numpy(), dense)
        flat = [ids for samples in tables for ids in samples]
        assert np.array_equal(batch.indices.numpy(), np.concatenate(flat))
        assert batch.offsets is not None
        starts = np.cumsum([0, *map(len, flat)])[:-1].reshape(4, -1)
        assert np.array_equal(batch.offsets.numpy(), starts)
        assert set(batch.labels.flatten().tolist()) <= {0.0, 1.0}


def test_targets_come_after_all_inputs_in_the_stream() -> None:
    settings = random_settings(6, 2, fixed_lookups=True)
    stream = np.random.RandomState(1)
    source = RandomBatches(settings, dense_features=4, rows_per_table=(4, 3, 2), stream=stream)
    other = np.random.RandomState(1)
    for _ in range(3):
        other.rand(2, 4)
        other.rand(3 * 2 * 10)
    for batch in source.batches(0):
        assert np.array_equal(batch.labels.numpy(), other.rand(2, 1).astype(np.float32))
    assert stream.rand() == other.rand()


def test_compiled_stream_continues_the_stream_of_numpy_and_back() -> None:
    stream, other = np.random.RandomState(5), np.random.RandomState(5)
    for each in (stream, other):
        each.normal(size=3)  # leaves the second number of a pair pending
    words, position, pair = state = legacy_stream.state_of(stream)
    found = [legacy_stream.normal(words, position, pair) for _ in range(1001)]
    assert found == other.normal(size=1001).tolist()
    numbers = np.empty(2000)
    legacy_stream.fill(state, numbers)
    assert np.array_equal(numbers, other.random_sample(2000))
    legacy_stream.skip(state, 3001)
    other.random_sample(3001)
    legacy_stream.set_state(stream, state)
    assert np.array_equal(stream.normal(size=9), other.normal(size=9))


def test_random_batches_can_start_at_any_batch() -> None:
    stream = np.random.RandomState(0)
    source = RandomBatches(random_settings(23, 5), dense_features=3, rows_per_table=(40, 3), stream=stream)
    whole = list(source.batches(0))
    for batch, expected in zip(source.batches(1, first=3), whole[3:], strict=True):
        assert torch.equal(batch.indices, expected.indices)
        assert torch.equal(batch.labels, expected.labels)
