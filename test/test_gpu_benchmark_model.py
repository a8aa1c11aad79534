"""The GPU step on the models of both benchmarks against float64.

Without a GPU, Triton's interpreter runs it with few samples and narrow MLPs.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from gpu_models import DEVICE, both_bag_batches, make_gpu_step, random_rows, raw_batch
from gpu_reference import (
    UPDATE_TOLERANCE,
    assert_step_matches_reference,
    dense_parameters,
    relative_error,
    table_rows,
)

from mlperf.benchmarks import DLRM, DLRM_DCNV2
from mlperf.benchmarks.benchmark import Network
from mlperf.data.batch import RawBatch, RowSource
from mlperf.engines.gpu.layer import GpuLayer
from mlperf.engines.gpu.step import GpuStep
from mlperf.models import make
from mlperf.models.initialization import initialize
from mlperf.models.loss import Loss
from mlperf.registry import OPTIMIZERS
from mlperf.settings.from_flags import parse
from mlperf.settings.model import EMBEDDING_PRECISIONS
from mlperf.util.errors import RunError

ON_GPU = DEVICE.type == "cuda"
BATCH_SIZE = 2048 if ON_GPU else 16
LARGE_BATCHES = tuple(product((65536, 131072), ("fp32", "tf32", "bf16"))) if ON_GPU else ((20, "fp32"),)
NETWORK = DLRM.network if ON_GPU else Network((13, 40, 128), (136, 24, 1))
DCNV2_NETWORK = DLRM_DCNV2.network if ON_GPU else Network((13, 40, 16), (40, 24, 1), "dcn", "bce_logits", 2, 20)
DCNV2_IDS = DLRM_DCNV2.data.ids_per_table if ON_GPU else (3, *[1] * 24, 17)
ROW_LIMIT = 400_000 if ON_GPU else 2000
BATCH_SIZES = (300, 2048, 65536) if ON_GPU else (12,)
VARIANTS = (
    [(optimizer, precision) for optimizer in OPTIMIZERS for precision in EMBEDDING_PRECISIONS]
    if ON_GPU
    else [("adagrad", "bf16"), ("rwsadagrad", "fp32")]
)


def make_step(
    precision: str,
    row_limit: int = ROW_LIMIT,
    *,
    network: Network = NETWORK,
    ids_per_table: tuple[int, ...] | None = None,
    optimizer: str = "sgd",
    table_precision: str = "fp32",
) -> GpuStep:
    """Return a step of a benchmark's model, whose tables have at most `row_limit` rows."""
    rows = tuple(min(rows, row_limit) for rows in DLRM.data.table_rows)
    architecture = replace(
        parse(network.flags).model.architecture, rows_per_table=rows, embedding_precision=table_precision
    )
    model = make.make_model(architecture, DEVICE)
    initialize(model, np.random.RandomState(1), mlp_init="normal", embedding_init="device", seed=1)
    index_limit = DLRM.data.index_limit or -1
    return make_gpu_step(
        model,
        Loss(network.loss),
        precision=precision,
        max_ind_range=index_limit,
        optimizer=optimizer,
        ids_per_table=ids_per_table,
    )


def make_batch(step: GpuStep, size: int, seed: int) -> RawBatch:
    sizes, stream = step.model.architecture.rows_per_table, np.random.default_rng(seed)
    if step.ids_per_table is not None:
        return both_bag_batches(size, sizes, tuple(step.ids_per_table), stream)[1]
    return raw_batch(random_rows(size, sizes, stream), sizes)


@pytest.mark.parametrize("size", [BATCH_SIZE, *([300] if ON_GPU else [])])
@pytest.mark.parametrize("precision", ["fp32", "bf16", *(["tf32"] if ON_GPU else [])])
def test_steps_match_float64(precision: str, size: int) -> None:
    """Train on two batches of the captured size, with different data and rates, and on one of another size."""
    step = make_step(precision)
    step.warm_up(size)
    for seed, (samples, rate) in enumerate(((size, 0.3), (size, 0.1), (size // 2 + 3, 0.2))):
        assert_step_matches_reference(step, make_batch(step, samples, seed), rate, precision)


@pytest.mark.parametrize("size", [300, 65536] if ON_GPU else [12])
@pytest.mark.parametrize("precision", ["bf16", *(["fp32", "tf32"] if ON_GPU else [])])
def test_steps_of_dcnv2_match_float64(precision: str, size: int) -> None:
    """Two batches of the captured size, and one of another size; tables in 16 bits with products in fp32."""
    tables = "bf16" if precision == "fp32" else "fp32"
    step = make_step(
        precision, network=DCNV2_NETWORK, ids_per_table=DCNV2_IDS, optimizer="adagrad", table_precision=tables
    )
    if ON_GPU:
        step.warm_up(size)
    steps = ((size, 0.03), (size, 0.01), (size // 2 + 3, 0.02))
    for seed, (samples, rate) in enumerate(steps if ON_GPU else steps[:1]):
        assert_step_matches_reference(step, make_batch(step, samples, seed), rate, precision)


@pytest.mark.parametrize(("optimizer", "table_precision"), VARIANTS)
@pytest.mark.parametrize("size", BATCH_SIZES)
def test_all_optimizers_and_precisions_of_tables_match_float64(
    size: int, optimizer: str, table_precision: str
) -> None:
    """Train on two batches, so that the second replays a graph with another rate and other random bits.

    SGD's rates grow with the batch, because the gradient of a row read by one sample is proportional to 1 / size.
    With 65,536 samples and a rate of 0.05, the rounding of up to 1,365 additions to a row is 8 % of the updates,
    and only 1 % of the values in 16 bits change. After a first rate above 1 the model would be too different.
    """
    step = make_step("fp32", optimizer=optimizer, table_precision=table_precision)
    step.warm_up(size)
    rates = (min(1.0, size / 6000), size / 3000) if optimizer == "sgd" else (0.05, 0.02)
    for seed, rate in enumerate(rates):
        assert_step_matches_reference(step, make_batch(step, size, seed), rate, "fp32")


@pytest.mark.parametrize(("optimizer", "table_precision"), VARIANTS[1:])
def test_rows_updated_once_are_equal_in_every_run(optimizer: str, table_precision: str) -> None:
    """No atomic additions: equal weights and batches give rows that are equal bit for bit."""
    tables = []
    for _ in range(2):
        step = make_step("bf16", optimizer=optimizer, table_precision=table_precision)
        step.warm_up(BATCH_SIZES[-1])
        step.train(make_batch(step, BATCH_SIZES[-1], 5), 1.0)
        tables.append(table_rows(step.model))
    assert torch.equal(tables[0], tables[1])


def test_captured_step_reports_an_invalid_id(tmp_path: Path) -> None:
    step = make_step("fp32")
    step.warm_up(BATCH_SIZE)
    rows_per_table = step.model.architecture.rows_per_table
    rows = make_batch(step, 2 * BATCH_SIZE, 9).rows
    rows[BATCH_SIZE + 5, 20] = -1
    path = tmp_path / "rows.bin"
    rows.numpy().tofile(path)
    step.train(RawBatch(rows[BATCH_SIZE:], BATCH_SIZE, RowSource(path, rows_per_table)), 0.0)
    with pytest.raises(RunError, match=f"row {BATCH_SIZE + 6}, column 21: index -1"):
        step.check()


@pytest.mark.parametrize(("size", "precision"), LARGE_BATCHES)
def test_large_batches_match_float64_and_repeat(size: int, precision: str) -> None:
    """From equal weights, two steps may differ only by the order of atomic additions."""
    step = make_step(precision)
    step.warm_up(size)
    parameters = [*dense_parameters(step.model), table_rows(step.model)]
    kept = [parameter.detach().clone() for parameter in parameters]
    assert_step_matches_reference(step, make_batch(step, size, 3), 1.0, precision)
    updates = []
    for _ in range(2):
        for parameter, value in zip(parameters, kept, strict=True):
            parameter.data.copy_(value)
        for layer in (*step.bottom, *step.top):
            assert isinstance(layer, GpuLayer)
            layer.copy_weights()
        step.train(make_batch(step, size, 4), 1.0)
        updates.append(table_rows(step.model) - kept[-1])
    error = relative_error(updates[1], updates[0])
    assert error < UPDATE_TOLERANCE["fp32"], f"repeated updates differ by {error:.1e}"


def test_asynchronous_steps_give_the_sums_of_synchronous_steps() -> None:
    """Batches are dropped at once and pinned memory is reused, while copies may still be in flight."""
    size, steps, kinds = (65536, 60, 8) if ON_GPU else (12, 4, 2)
    step = make_step("bf16")
    step.warm_up(size)
    sizes = step.model.architecture.rows_per_table
    rows = [random_rows(size, sizes, np.random.default_rng(seed)) for seed in range(kinds)]
    single = []
    for kind in range(kinds):
        step.sums.clear()
        step.train(raw_batch(rows[kind], sizes), 0.0)
        step.check()
        single.append(step.sums.both.clone())
    step.sums.clear()
    clicks, expected_clicks = torch.zeros((), device=DEVICE), 0
    garbage: list[RawBatch] = []
    for number in range(steps):
        step.train(raw_batch(rows[number % kinds].copy(), sizes), 0.0)
        if number % 3 == 0:
            scored = rows[(number + 1) % kinds]
            clicks += step.score(raw_batch(scored.copy(), sizes))[1].sum()
            expected_clicks += int(scored[:, 0].sum())
        garbage = [*garbage[-1:], raw_batch(np.full_like(rows[0], -7), sizes)]
    step.check()
    expected = torch.stack([single[number % kinds] for number in range(steps)]).sum(0)
    torch.testing.assert_close(step.sums.both, expected, rtol=1e-6, atol=0)
    assert int(clicks) == expected_clicks


@pytest.mark.skipif(not ON_GPU, reason="tables of the full size need the memory of a GPU")
def test_tables_of_the_full_size_match_float64() -> None:
    """Tables of 24 million rows if 40 million (96 GB) do not fit; some offsets still exceed 32 bits."""
    step = make_step("bf16", 40_000_000 if torch.cuda.mem_get_info()[0] > 105e9 else 24_000_000)
    step.warm_up(65536)
    assert_step_matches_reference(step, make_batch(step, 65536, 3), 1.0, "bf16")
