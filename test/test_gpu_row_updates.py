"""The GPU kernels that update a row once, by the sum of its gradients, against the optimizers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from gpu_models import DEVICE, assert_equally_rounded, on_device
from small_models import EARLIER_STEPS, SEED, make_model, make_trained_optimizer

from mlperf.engines.gpu.kernels.row_update import GROUP, PARTS, update_rows_once
from mlperf.engines.gpu.kernels.sorted_rows import CHUNK
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.embedding.flat_tables import FlatTables
from mlperf.optim.adagrad import Adagrad
from mlperf.optim.optimizer import Optimizer
from mlperf.optim.rounding import random_bits, round_stochastically
from mlperf.registry import OPTIMIZERS
from mlperf.settings.model import EMBEDDING_PRECISIONS, Architecture
from mlperf.settings.training import EPSILON


@dataclass
class Trained:
    """A model, of which only the tables are trained, and its optimizer."""

    model: DLRM_Net
    optimizer: Optimizer

    @property
    def rows(self) -> torch.Tensor:
        """The rows of all tables [R, D], in place."""
        assert isinstance(self.model.tables, FlatTables)
        return self.model.tables.weight

    @property
    def sums(self) -> torch.Tensor | None:
        """The sums of squares of Adagrad, in place."""
        if not isinstance(self.optimizer, Adagrad):
            return None
        return self.optimizer.row_sums[self.model.row_parameters()[0]]


def trained(name: str, precision: str, rows: int, dimension: int, device: torch.device = DEVICE) -> Trained:
    """Return a model and its optimizer, which has taken steps before."""
    architecture = Architecture((rows,), dimension, (13, dimension), (1,), embedding_precision=precision)
    model = make_model(architecture)
    if device.type != "cpu":
        model = on_device(model)
    return Trained(model, make_trained_optimizer(name, model))


def update(
    fast: Trained,
    rows: np.ndarray,
    gradients: torch.Tensor,
    rate: float,
    *,
    parts: int = PARTS,
    group: int = GROUP,
) -> None:
    """Update `rows`, int [B, T], by `gradients`, [B * T, D], with the kernels."""
    update_rows_once(
        tables=fast.rows,
        sums=fast.sums,
        embedding_rows=torch.from_numpy(rows).int().to(DEVICE),
        d_embeddings=gradients.to(DEVICE),
        rate=torch.tensor(rate, device=DEVICE),
        counter=torch.tensor([SEED, EARLIER_STEPS], device=DEVICE),
        epsilon=EPSILON,
        parts=parts,
        group=group,
    )


def update_both(
    name: str,
    precision: str,
    rows: np.ndarray,
    gradients: torch.Tensor,
    *,
    is_first_step: bool = False,
    parts: int = PARTS,
) -> tuple[Trained, Trained]:
    """Update equal models with the optimizer, on the CPU, and with the kernels."""
    count, dimension = int(rows.max()) + 2, gradients.shape[1]
    general = trained(name, precision, count, dimension, torch.device("cpu"))
    fast = trained(name, precision, count, dimension)
    for one in (general, fast):
        if is_first_step and one.sums is not None:
            one.sums.zero_()
    flat = torch.from_numpy(rows).long().flatten()
    general.optimizer.update_rows(general.model.row_parameters()[0], flat, gradients, 0.5)
    update(fast, rows, gradients, 0.5, parts=parts)
    return general, fast


def assert_close(general: Trained, fast: Trained) -> None:
    """Compare rows and sums of squares that may differ by the order of the additions."""
    if general.sums is not None and fast.sums is not None:
        torch.testing.assert_close(fast.sums.cpu(), general.sums, rtol=2e-5, atol=1e-6)
    expected, found = general.rows, fast.rows.cpu()
    if expected.dtype == torch.float32:
        torch.testing.assert_close(found, expected, rtol=2e-5, atol=1e-6)
        return
    assert_equally_rounded(found, expected)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("precision", EMBEDDING_PRECISIONS)
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("tables", "dimension", "samples"), [(1, 16, 37), (3, 20, 50), (31, 1, 5), (2, 3, 16)])
def test_update_equals_that_of_the_optimizer(
    tables: int, dimension: int, samples: int, name: str, precision: str
) -> None:
    """Runs of all lengths, inside chunks and across them."""
    stream = np.random.default_rng(tables)
    rows = np.floor(40 * stream.random((samples, tables)) ** 3).astype(np.int64)
    assert_close(*update_both(name, precision, rows, drawn(rows.size, dimension)))


RUNS = {
    "one row in every sample": [CHUNK * (2 * PARTS + 3) + 5],
    "runs that end at boundaries": [CHUNK, 2 * CHUNK, CHUNK, 3 * CHUNK],
    "a run that ends one position behind a boundary": [CHUNK + 1, CHUNK - 1, 4],
    "runs across one boundary each": [CHUNK - 1, *[CHUNK] * 8, 3],
    "as many partial sums as are added at a time": [3, CHUNK * PARTS, 2],
    "one more": [3, CHUNK * (PARTS + 1), CHUNK],
    "a single embedding": [1],
    "distinct rows": [1] * (CHUNK + 3),
}


@pytest.mark.parametrize("runs", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_runs_are_summed_exactly_wherever_they_begin_and_end(name: str, runs: list[int]) -> None:
    """Sums of multiples of 1/8 are exact in any order: rows in 16 bits are equal bit for bit."""
    rows = np.random.default_rng(0).permutation(np.repeat(np.arange(len(runs)), runs))[:, None]
    general, fast = update_both(name, "bf16", rows, (drawn(len(rows), 4) * 8).round() / 8)
    if name == "sgd" or DEVICE.type == "cpu":
        assert torch.equal(fast.rows.cpu(), general.rows)
        if general.sums is not None and fast.sums is not None:
            assert torch.equal(fast.sums.cpu(), general.sums)
    else:  # division and square root are approximate on a GPU
        assert_close(general, fast)


BLOCK = 2 * CHUNK  # with parts=2, of which two blocks are added at a time
FREQUENT = {
    "blocks from the beginning to the end": [9 * BLOCK],
    "blocks and a part of one": [9 * BLOCK + 5],
    "blocks behind a part of one, and before another": [5, 5 * BLOCK, 3],
    "runs that begin and end with a block": [BLOCK, BLOCK, 2 * BLOCK, 3 * BLOCK, BLOCK],
    "runs that begin in the last chunk of a block": [BLOCK - 1, 2 * BLOCK, BLOCK - CHUNK, 2 * BLOCK, 4],
}


@pytest.mark.parametrize("runs", FREQUENT.values(), ids=FREQUENT)
def test_chunks_of_very_frequent_rows_are_added_block_by_block(runs: list[int]) -> None:
    rows = np.random.default_rng(0).permutation(np.repeat(np.arange(len(runs)), runs))[:, None]
    general, fast = update_both("sgd", "bf16", rows, (drawn(len(rows), 4) * 8).round() / 8, parts=2)
    assert torch.equal(fast.rows.cpu(), general.rows)


@pytest.mark.parametrize("group", [1, 4])
def test_any_number_of_chunks_is_searched_at_a_time(group: int) -> None:
    rows = np.random.default_rng(0).integers(0, 12, (100, 2))
    usual, other = (trained("adagrad", "bf16", 13, 20) for _ in range(2))
    update(usual, rows, drawn(200, 20), 0.5)
    update(other, rows, drawn(200, 20), 0.5, group=group)
    assert torch.equal(other.rows, usual.rows)


@pytest.mark.parametrize("precision", EMBEDDING_PRECISIONS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rate_0_changes_no_row_and_untouched_rows_stay(name: str, precision: str) -> None:
    rows = np.arange(0, 60, 2).reshape(10, 3) % 44
    before, fast = trained(name, precision, 44, 20), trained(name, precision, 44, 20)
    update(fast, rows, drawn(30, 20), rate=0.0)
    assert torch.equal(fast.rows, before.rows)
    update(fast, rows, drawn(30, 20), rate=0.5)
    assert not torch.equal(fast.rows[::2], before.rows[::2])
    assert torch.equal(fast.rows[1::2], before.rows[1::2])
    if before.sums is not None and fast.sums is not None:
        assert torch.equal(fast.sums[1::2], before.sums[1::2])


@pytest.mark.parametrize("name", ["adagrad", "rwsadagrad"])
def test_first_step_of_adagrad_changes_nothing_where_the_gradient_is_0(name: str) -> None:
    gradients = drawn(20, 5)
    gradients[:, 1] = gradients[::2] = 0
    general, fast = update_both(name, "fp32", np.arange(20)[:, None], gradients, is_first_step=True)
    assert_close(general, fast)
    unchanged = trained(name, "fp32", 21, 5).rows
    assert torch.equal(fast.rows[::2], unchanged[::2])
    assert torch.equal(fast.rows[:, 1], unchanged[:, 1])


@pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_values_of_all_sizes_are_rounded_like_the_reference(precision: str) -> None:
    """Subnormal and very large values; infinities and NaN in a batch of their own, as they spread in a chunk."""
    limit = 65504.0 if precision == "fp16" else 3.3895e38
    chosen = torch.tensor([0.0, 1e-30, 3e-8, 5.9e-8, 6.1e-5, 1.0, limit, limit * 1.0004, 1e6, 1.0])
    spread = 2.0 ** (40 * torch.rand(500, 20, generator=torch.Generator().manual_seed(0)) - 26)
    rare = torch.tensor([[torch.inf, -torch.inf, torch.nan, 1.0]])
    for values in (torch.cat((chosen, -chosen)).repeat(20, 1), spread, -spread, rare):
        fast = trained("sgd", precision, len(values), values.shape[1])
        fast.rows.zero_()
        update(fast, np.arange(len(values))[:, None], values, rate=-1.0)
        bits = random_bits(torch.arange(len(values)), values.shape[1], seed=SEED, step=EARLIER_STEPS)
        expected = round_stochastically(values, fast.rows.dtype, bits)
        assert torch.equal(fast.rows.cpu().nan_to_num(1), expected.nan_to_num(1))
