"""The scorers of quantized models of the cpu engine against PyTorch's modules and the definition of the codes."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import make_bag_batch, make_batch, make_model

from mlperf.data.batch import Batch
from mlperf.engines.cpu.half_scorer import HalfScorer
from mlperf.engines.cpu.int8_layer import Codes, Encoder, unavailable
from mlperf.engines.cpu.int8_scorer import Int8Scorer
from mlperf.engines.cpu.scorer import CpuScorer
from mlperf.export.quantize import quantize_mlps
from mlperf.models.dlrm import Architecture, DLRM_Net

needs_products_of_8_bits = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))

DOT = Architecture((3, 50, 500), 16, (13, 40, 16), (30, 9, 1))
CROSS = replace(DOT, interaction_op="dcn", cross_layers=2, cross_rank=5, ids_per_table=(3, 1, 7))
SEVERAL = replace(DOT, ids_per_table=(2, 1, 4))
NO_DENSE = replace(DOT, mlp_bot=(0, 40, 16))
MODELS = {"dot": DOT, "dcn": CROSS, "dot of several ids": SEVERAL, "no dense features": NO_DENSE}
SIZES = (1, 2, 3, 4, 30, 1300)  # a product for each sample, one product, several parts


def scored(architecture: Architecture, bits: int, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the probabilities of the fast scorer, of PyTorch's quantized modules, and of the model in float32."""
    model, batch = spread_model(architecture), batch_for(architecture, size)
    quantized = copy.deepcopy(model)
    quantize_mlps(quantized, bits)
    ids = architecture.ids_per_table
    scorer = Int8Scorer(quantized, ids) if bits == 8 else HalfScorer(quantized, ids)
    fast, labels = scorer.score(batch)
    assert torch.equal(labels, batch.labels.squeeze(1))
    with torch.no_grad():
        return fast, quantized(batch).squeeze(1), model(batch).squeeze(1)


def spread_model(architecture: Architecture) -> DLRM_Net:
    """Return a model whose probabilities differ from each other."""
    model = make_model(architecture)
    model.tables.weight.mul_(4)  # type: ignore[operator]
    return model


def batch_for(architecture: Architecture, size: int) -> Batch:
    stream = np.random.default_rng(size)
    if architecture.ids_per_table is not None:
        return make_bag_batch(size, architecture.rows_per_table, architecture.ids_per_table, stream)
    batch = make_batch(size, architecture.rows_per_table, stream)
    return replace(batch, dense=batch.dense[:, : architecture.mlp_bot[0]].contiguous())


@needs_products_of_8_bits
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("architecture", MODELS.values(), ids=MODELS)
def test_mlps_in_8_bits_are_closer_to_float32_than_those_of_pytorch(architecture: Architecture, size: int) -> None:
    fast, of_pytorch, exact = scored(architecture, 8, size)
    error, of_theirs = (fast - exact).abs().mean(), (of_pytorch - exact).abs().mean()
    assert 0 < error <= 0.03
    if size > 100:
        assert error <= 0.8 * of_theirs


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("architecture", MODELS.values(), ids=MODELS)
def test_mlps_in_16_bits_give_the_probabilities_of_pytorch(architecture: Architecture, size: int) -> None:
    fast, of_pytorch, exact = scored(architecture, 16, size)
    torch.testing.assert_close(fast, of_pytorch, rtol=1e-4, atol=1e-5)
    assert not torch.equal(fast, exact)


@needs_products_of_8_bits
@pytest.mark.parametrize("architecture", MODELS.values(), ids=MODELS)
def test_probability_of_a_sample_does_not_depend_on_its_batch(architecture: Architecture) -> None:
    model, batch = spread_model(architecture), batch_for(architecture, 600)
    quantize_mlps(model, 8)
    ids = architecture.ids_per_table
    together, _ = Int8Scorer(model, ids).score(batch)
    scorer = Int8Scorer(model, ids)
    for size in (1, 5, 2, 599):
        of_tables = [table.view(600, -1)[:size] for table in ids_by_table(batch)]
        part = Batch(
            batch.dense[:size], torch.cat([one.flatten() for one in of_tables]), None, batch.labels[:size]
        )
        if ids is None:
            part = replace(part, indices=part.indices.view(len(of_tables), size))
        assert torch.equal(scorer.score(part)[0], together[:size])


def ids_by_table(batch: Batch) -> list[torch.Tensor]:
    return [ids for ids, _ in batch.ids_by_table()]


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("dimension", [16, 5])
@pytest.mark.parametrize("interaction_op", ["dot", "dcn"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_loops_read_quantized_rows_as_pytorch_does(
    precision: str, interaction_op: str, dimension: int, bits: int
) -> None:
    ids = (3, 1, 7) if interaction_op == "dcn" else None
    architecture = Architecture(
        (3, 50, 500),
        dimension,
        (13, dimension),
        (9, 1),
        interaction_op=interaction_op,
        ids_per_table=ids,
        cross_layers=1,
        cross_rank=3,
    )
    model, batch = spread_model(architecture), batch_for(architecture, 70)
    with torch.no_grad():
        before = model(batch).squeeze(1)
    model.tables.quantize(bits)
    found, _ = CpuScorer(model, precision, None, ids).score(batch)
    with torch.no_grad():
        expected = model(batch).squeeze(1)
    tolerance = 1e-5 if precision == "fp32" else 2e-2
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert not torch.equal(before, expected)


@needs_products_of_8_bits
def test_model_without_hidden_layers_is_scored() -> None:
    for architecture in (replace(DOT, mlp_top=(1,)), replace(CROSS, mlp_top=(1,))):
        fast, of_pytorch, exact = scored(architecture, 8, 20)
        assert (fast - exact).abs().mean() <= 0.03
        torch.testing.assert_close(fast, of_pytorch, rtol=0, atol=0.1)


def test_code_is_within_half_a_scale_of_its_value() -> None:
    stream = torch.Generator().manual_seed(1)
    values = torch.randn(50, 33, generator=stream) * torch.logspace(-30, 30, 50).unsqueeze(1)
    values[3], values[4] = 0.25, -7.0
    values[5, 1:] = -0.0
    codes = Codes.empty(50, 33)
    Encoder(codes, 33).run(values)
    scales, offsets = codes.scales.double().unbind(1)
    found = codes.codes[:, :33].double() * scales.unsqueeze(1) + offsets.unsqueeze(1)
    spread = values.double().amax(1) - values.double().amin(1)
    assert ((found - values).abs() <= 0.501 * spread.unsqueeze(1) / 255 + 1e-6 * values.abs()).all()
    assert (codes.codes[:, 33:] == 0).all()


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_value_that_is_not_finite_marks_its_sample_only(value: float) -> None:
    values = torch.zeros(4, 40)
    values[2, 17] = value
    codes = Codes.empty(4, 40)
    Encoder(codes, 40).run(values)
    assert codes.scales.isnan().all(1).tolist() == [False, False, True, False]


@needs_products_of_8_bits
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weight_that_is_not_finite_gives_no_probability(value: float) -> None:
    model, batch = make_model(DOT), batch_for(DOT, 9)
    quantize_mlps(model, 8)
    with torch.no_grad():
        model.bot_l[0].bias()[3] = value  # type: ignore[operator]
    probabilities, _ = Int8Scorer(model).score(batch)
    assert probabilities.isnan().all()
