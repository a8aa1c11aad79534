"""Updates of embedding rows by the CPU engine's loops, against those of the optimizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pytest
import torch
from numba import njit
from small_models import CPU
from torch import nn

from mlperf.engines.cpu.loops import float16, rounding
from mlperf.engines.cpu.row_updater import make_row_updater
from mlperf.models.dlrm import ROW_TYPES
from mlperf.models.layers.embedding.flat_tables import FlatTables
from mlperf.models.layers.embedding.rows import RowParameter
from mlperf.models.layers.embedding.shards import ShardedTable
from mlperf.optim.optimizer import make_optimizer
from mlperf.optim.rounding import random_bits
from mlperf.registry import OPTIMIZERS

ROWS = (1, 7, 300, 40)
SEED = (1 << 40) + 17
HALVES = ("bf16", "fp16")
# SGD of float32 rows has a loop of its own, which the tests of the whole step cover.
KINDS = [kind for kind in product(OPTIMIZERS, ROW_TYPES) if kind != ("sgd", "fp32")]


class TablesOnly(torch.nn.Module):
    """A model without MLPs."""

    def __init__(self, tables: FlatTables) -> None:
        super().__init__()
        self.tables = tables

    def row_parameters(self) -> Sequence[RowParameter]:
        return self.tables.row_parameters()

    def dense_parameters(self) -> Sequence[nn.Parameter]:
        return []

    def sharded_tables(self) -> Sequence[ShardedTable]:
        return []


class Trained:
    """Tables, trained on their own. Two with the same arguments have the same weights and sums."""

    def __init__(self, optimizer: str, precision: str, dimension: int, rows: tuple[int, ...] = ROWS) -> None:
        generator = torch.Generator().manual_seed(0)
        self.tables = FlatTables(rows, dimension, CPU, ROW_TYPES[precision])
        self.weight = self.tables.weight
        self.weight.copy_(torch.randn(self.weight.shape, generator=generator))
        self.optimizer = make_optimizer(optimizer, TablesOnly(self.tables), seed=SEED)
        for sums in self.optimizer.row_tensors():
            sums.uniform_(0, 1, generator=generator)
            sums[::3] = 0  # as before the first step

    def update(self, ids: torch.Tensor, gradients: torch.Tensor, rate: float) -> None:
        """Update the rows with PyTorch."""
        rows = (ids + self.tables.first_row.unsqueeze(1)).t().flatten()
        self.optimizer.update_rows(self.tables.row_parameter, rows, gradients.flatten(0, 1), rate)
        self.optimizer.note_step(rate)

    def state(self) -> list[torch.Tensor]:
        """Return copies of the weights, in float32, and of the sums."""
        return [self.weight.float(), *(sums.clone() for sums in self.optimizer.row_tensors())]


class Fast(Trained):
    """The same, updated by the loops."""

    def __init__(self, optimizer: str, precision: str, dimension: int, rows: tuple[int, ...] = ROWS) -> None:
        super().__init__(optimizer, precision, dimension, rows)
        self.updater = make_row_updater(self.tables, self.optimizer)

    def update(self, ids: torch.Tensor, gradients: torch.Tensor, rate: float) -> None:
        self.updater.update(ids, gradients, rate)
        self.optimizer.note_step(rate)


def random_ids(samples: int, stream: np.random.Generator, rows: tuple[int, ...] = ROWS) -> torch.Tensor:
    return torch.from_numpy(np.stack([stream.integers(0, count, samples) for count in rows]))


def random_gradients(samples: int, dimension: int, stream: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(stream.normal(size=(samples, len(ROWS), dimension)).astype(np.float32))


def require_equal(fast: Trained, general: Trained, optimizer: str, precision: str) -> None:
    """Compare to the bit, except where PyTorch rounds differently.

    Its square root is not always the nearest value, and it takes the mean of row-wise Adagrad in another order.
    """
    for sums, other in zip(fast.state()[1:], general.state()[1:], strict=True):
        torch.testing.assert_close(sums, other, rtol=0 if optimizer == "adagrad" else 1e-6, atol=0)
    weights, expected = fast.weight.float(), general.weight.float()
    if optimizer == "sgd":
        assert torch.equal(weights, expected)
    elif precision == "fp32":
        torch.testing.assert_close(weights, expected, rtol=1e-6, atol=1e-6)
    else:  # where such a difference decides, a value is rounded to the other side
        assert (weights != expected).float().mean() < 1e-3
        torch.testing.assert_close(weights, expected, rtol=2 * torch.finfo(fast.weight.dtype).eps, atol=1e-6)


@pytest.mark.parametrize("dimension", [1, 2, 16, 33, 128])
@pytest.mark.parametrize(("optimizer", "precision"), KINDS)
def test_rows_are_updated_as_by_the_optimizer(optimizer: str, precision: str, dimension: int) -> None:
    fast, general = Fast(optimizer, precision, dimension), Trained(optimizer, precision, dimension)
    stream = np.random.default_rng(dimension)
    batches = [
        random_ids(200, stream),
        torch.zeros(len(ROWS), 65, dtype=torch.int64),  # all ids equal
        torch.arange(40).repeat(len(ROWS), 1) % torch.tensor(ROWS).unsqueeze(1),  # distinct in the larger tables
        random_ids(1, stream),
    ]
    for ids in batches:
        gradients = random_gradients(ids.shape[1], dimension, stream)
        for trained in (fast, general):
            trained.update(ids, gradients, 0.1)
    require_equal(fast, general, optimizer, precision)


@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize(("optimizer", "precision"), KINDS)
def test_rows_do_not_depend_on_the_number_of_threads(optimizer: str, precision: str) -> None:
    found = []
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        fast, stream = Fast(optimizer, precision, 33), np.random.default_rng(0)
        for _ in range(3):
            fast.update(random_ids(400, stream), random_gradients(400, 33, stream), 0.1)
        found.append(fast.state())
    for state in found[1:]:
        assert all(map(torch.equal, state, found[0]))


@pytest.mark.parametrize(("optimizer", "precision"), KINDS)
def test_rate_of_0_changes_no_row(optimizer: str, precision: str) -> None:
    fast, stream = Fast(optimizer, precision, 16), np.random.default_rng(0)
    before = fast.weight.clone()
    fast.update(random_ids(100, stream), random_gradients(100, 16, stream), 0.0)
    assert torch.equal(fast.weight, before)


@pytest.mark.parametrize("precision", HALVES)
def test_values_of_any_size_are_rounded_as_by_the_optimizer(precision: str) -> None:
    """Subnormal in float16 or float32, too large, infinite and NaN."""
    stream = np.random.default_rng(0)
    bits = stream.integers(-(1 << 31), 1 << 31, (2000, len(ROWS), 8)).astype(np.int32)
    bits[:1000] = (bits[:1000] & ~0x7F800000) | stream.integers(127 - 28, 127 + 18, (1000, len(ROWS), 8)) << 23
    values = torch.from_numpy(bits).view(torch.float32)
    values[:4, 0, 0] = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0])
    rows = (2000,) * len(ROWS)
    ids = torch.from_numpy(np.stack([stream.permutation(2000) for _ in rows]))
    fast, general = Fast("sgd", precision, 8, rows), Trained("sgd", precision, 8, rows)
    for trained in (fast, general):
        trained.weight.zero_()
        trained.update(ids, values, -1.0)
    torch.testing.assert_close(fast.weight, general.weight, rtol=0, atol=0, equal_nan=True)
    assert fast.weight.isinf().any()
    assert fast.weight.isnan().any()
    assert (fast.weight.float().abs().masked_fill(fast.weight == 0, 1) < 2.0**-14).any()


@pytest.mark.parametrize("precision", HALVES)
def test_rounded_updates_have_no_bias(precision: str) -> None:
    rows, rate = (20_000,) * len(ROWS), 2.0**-13
    fast = Fast("sgd", precision, 8, rows)
    fast.weight.fill_(1)
    gradients = torch.full((20_000, len(ROWS), 8), -1.0)
    fast.update(torch.arange(20_000).repeat(len(ROWS), 1), gradients, rate)
    step = torch.finfo(fast.weight.dtype).eps
    assert set(fast.weight.unique().tolist()) == {1, 1 + step}
    share = rate / step  # of the values that are rounded up
    deviation = (share * (1 - share) / fast.weight.numel()) ** 0.5
    assert abs(float((fast.weight > 1).double().mean()) - share) < 4 * deviation


def test_random_words_are_those_of_the_optimizer_for_rows_and_steps_beyond_32_bits() -> None:
    words = np.empty((1, rounding.random_words(20)), np.uint32)
    for row, step, seed in ((5, 0, 1), ((1 << 33) + 7, (1 << 32) + 9, -3), (1 << 20, 8, (1 << 62) + 1)):
        rounding.draw(words, row, step, seed)
        halves = words.view(np.uint16)[:, :20].astype(np.int64)
        expected = random_bits(torch.tensor([row]), 20, seed=seed, step=step)
        assert torch.equal(torch.from_numpy(halves), expected)


@pytest.mark.parametrize("convert", [float16.from_float16, float16.from_float16_by_arithmetic])
def test_every_float16_is_widened_exactly(convert: Callable[[int], float]) -> None:
    @njit
    def widen(halves: np.ndarray, found: np.ndarray) -> None:
        for position in range(len(halves)):
            found[position] = convert(halves[position])

    halves, found = np.arange(1 << 16, dtype=np.uint16), np.empty(1 << 16, np.float32)
    widen(halves, found)
    np.testing.assert_array_equal(found, halves.view(np.float16).astype(np.float32))
