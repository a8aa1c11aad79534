"""Gradients in float64 from autograd, with which a step of the GPU engine is compared on the device."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from gpu_models import DEVICE, distances
from torch import nn

from mlperf.data.batch import RawBatch
from mlperf.data.schema import CRITEO
from mlperf.engines.gpu.step import GpuStep
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.cross import CrossInteraction
from mlperf.models.layers.embedding.flat_tables import FlatTables
from mlperf.optim.adagrad import Adagrad
from mlperf.optim.optimizer import Optimizer
from mlperf.optim.rounding import random_bits, round_stochastically
from mlperf.settings.training import EPSILON

# Largest relative error of an update. A wrong update is off by 100 %. In bfloat16, and to a lesser degree in TF32,
# rounding moves activations across 0, where ReLU's gradient changes: PyTorch's autocast is off by 12 to 17 % too.
# In float32 this happens to single activations: in a batch of 1027, PyTorch's update was off by 0.7 % on an H200.
UPDATE_TOLERANCE = {"fp32": 2e-2, "tf32": 0.1, "bf16": 0.25}
SCORE_TOLERANCE = {"fp32": 1e-5, "tf32": 2e-3, "bf16": 3e-2}
LOSS_TOLERANCE = {"fp32": 5e-4, "tf32": 1e-2, "bf16": 2.5e-2}

# Largest part of the values of 16-bit rows that differ from those of float64, rounded with the same random bits:
# the values to be rounded differ.
DIFFERENTLY_ROUNDED = 0.02


@dataclass(frozen=True)
class ReferenceStep:
    """Loss and gradients of a step in float64.

    loss: summed over the batch. probabilities: [B]. dense_gradients: in the order of `dense_parameters`. rows:
    int64, each row of the tables that occurs in the batch, and its gradient.
    """

    loss: float
    probabilities: torch.Tensor
    dense_gradients: list[torch.Tensor]
    rows: torch.Tensor
    row_gradients: torch.Tensor


def dense_parameters(model: DLRM_Net) -> list[torch.Tensor]:
    """Return the parameters of both MLPs and of the cross network, if there is one."""
    return [*model.bot_l.parameters(), *model.interaction.parameters(), *model.top_l.parameters()]


def table_rows(model: DLRM_Net) -> torch.Tensor:
    """Return the rows of all tables [R, D]."""
    assert isinstance(model.tables, FlatTables)
    return model.tables.weight


def reference_step(model: DLRM_Net, batch: RawBatch, ids_per_table: Sequence[int] | None = None) -> ReferenceStep:
    """Return the result of a step on `batch` of a model with dot interaction or cross network.

    The loss is binary cross-entropy. ids_per_table: if `batch` contains `ids`.
    """
    rows = batch.rows.to(DEVICE)
    labels = rows[:, :1].double()
    dense = rows[:, CRITEO.dense_columns].clamp(min=0).double().log1p()
    bags = rows_of_bags(model, batch, ids_per_table)
    weight = table_rows(model)
    pooled = torch.stack([weight[bag].double().sum(1) for bag in bags], 1).requires_grad_()  # (B, T, D)
    bottom_mlp, top_mlp, interaction = (
        copy.deepcopy(module).double() for module in (model.bot_l, model.top_l, model.interaction)
    )
    interacted = _interacted(interaction, bottom_mlp(dense), pooled)
    probabilities = top_mlp(interacted)
    loss = torch.nn.functional.binary_cross_entropy(probabilities, labels)
    parameters = [*bottom_mlp.parameters(), *interaction.parameters(), *top_mlp.parameters()]
    gradients = torch.autograd.grad(loss, [pooled, *parameters])
    distinct = torch.cat([bag.unique() for bag in bags])
    row_gradients = torch.zeros(len(distinct), weight.shape[1], dtype=torch.float64, device=DEVICE)
    for bag, gradient in zip(bags, gradients[0].unbind(1), strict=True):
        for used in bag.unbind(1):
            row_gradients.index_add_(0, torch.searchsorted(distinct, used.contiguous()), gradient)
    return ReferenceStep(
        loss.item() * batch.size, probabilities.detach().squeeze(1), list(gradients[1:]), distinct, row_gradients
    )


def rows_of_bags(
    model: DLRM_Net, batch: RawBatch, ids_per_table: Sequence[int] | None = None
) -> list[torch.Tensor]:
    """Return the rows of all tables that each sample reads, int64 [B, ids], table by table."""
    sizes = model.architecture.rows_per_table
    starts = torch.tensor([0, *sizes]).cumsum(0).tolist()
    if batch.ids is None:
        ids = batch.rows[:, CRITEO.id_columns][:, : len(sizes)].to(DEVICE).long()
        return [ids[:, table : table + 1] + start for table, start in enumerate(starts[:-1])]
    assert ids_per_table is not None
    parts = batch.ids.to(DEVICE).long().split([batch.size * count for count in ids_per_table])
    return [part.view(batch.size, -1) + start for part, start in zip(parts, starts, strict=False)]


def _interacted(interaction: nn.Module, bottom: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
    """Return the dot products or the output of the cross network, written out once more."""
    features = torch.cat((bottom.unsqueeze(1), pooled), 1)  # (B, F, D)
    if not isinstance(interaction, CrossInteraction):
        left, right = torch.tril_indices(features.shape[1], features.shape[1], -1, device=DEVICE)
        return torch.cat((bottom, torch.bmm(features, features.transpose(1, 2))[:, left, right]), 1)
    first = crossed = features.flatten(1)
    for down, up in interaction.layers():
        crossed = first * (crossed @ down.weight.t() @ up.weight.t() + up.bias) + crossed
    return crossed


def assert_step_matches_reference(step: GpuStep, batch: RawBatch, rate: float, precision: str) -> None:
    """Score `batch`, train on it, and compare scores, loss and updates with those of float64.

    Also checks that rows that do not occur in the batch stay as they are.
    """
    model, optimizer = step.model, step.optimizer
    weight = table_rows(model)
    expected = reference_step(model, batch, step.ids_per_table)
    dense_before = [parameter.detach().double().clone() for parameter in dense_parameters(model)]
    _scale_sums(optimizer, model, expected)
    dense_sums = [_clone(_sums_of(optimizer, parameter)) for parameter in dense_parameters(model)]
    rows_before, row_sums = weight[expected.rows].double(), _row_sums(optimizer)
    sums_before = None if row_sums is None else row_sums[expected.rows]
    others = _rows_that_do_not_occur(expected.rows, len(weight))
    others_before = weight[others]
    steps = optimizer.steps

    scores, _ = step.score(batch)
    error = float((scores.double() - expected.probabilities).abs().max())
    assert error < SCORE_TOLERANCE[precision], f"scores differ by {error:.1e}"

    step.sums.clear()
    step.train(batch, rate)
    step.check()
    error = abs(float(step.sums.loss) / expected.loss - 1)
    assert error < LOSS_TOLERANCE[precision], f"the loss differs by {error:.1e}"
    changes = zip(dense_parameters(model), dense_before, expected.dense_gradients, dense_sums, strict=True)
    for number, (parameter, before, gradient, sums) in enumerate(changes):
        direction, sums_after = _direction(gradient, sums)
        error = relative_error(parameter.detach().double() - before, -rate * direction)
        assert error < UPDATE_TOLERANCE[precision], f"the update of dense weight {number} differs by {error:.1e}"
        _assert_sums_added(_sums_of(optimizer, parameter), sums, sums_after, precision, f"dense weight {number}")
    direction, sums_after = _direction(expected.row_gradients, sums_before)
    if weight.dtype == torch.float32:
        error = relative_error(weight[expected.rows].double() - rows_before, -rate * direction)
        assert error < UPDATE_TOLERANCE[precision], f"the update of the tables differs by {error:.1e}"
    else:
        bits = random_bits(expected.rows, weight.shape[1], seed=optimizer.seed, step=steps)
        rounded = round_stochastically((rows_before - rate * direction).float(), weight.dtype, bits)
        difference = distances(weight[expected.rows], rounded)
        assert float((difference > 0).double().mean()) < DIFFERENTLY_ROUNDED
        assert float((difference > 1).double().mean()) < DIFFERENTLY_ROUNDED / 10
    found = None if row_sums is None else row_sums[expected.rows]
    _assert_sums_added(found, sums_before, sums_after, precision, "the tables")
    assert torch.equal(weight[others], others_before), "rows changed that do not occur in the batch"


def _sums_of(optimizer: Optimizer, parameter: torch.Tensor) -> torch.Tensor | None:
    """Return the sums of squares of a dense parameter; None for SGD."""
    if not isinstance(optimizer, Adagrad):
        return None
    return optimizer.sums_of(parameter)


def _row_sums(optimizer: Optimizer) -> torch.Tensor | None:
    """Return the sums of squares of the tables, float32 [R, D] or [R, 1]; None for SGD."""
    return next(iter(optimizer.row_tensors()), None)


def _scale_sums(optimizer: Optimizer, model: DLRM_Net, expected: ReferenceStep) -> None:
    """Scale the sums of squares to 100 times the mean square of a step, those of dense weights to 100,000 times.

    The sums of a tested optimizer are far larger: float32 would round this step's squares away. Dense weights then
    change so little that the model remains similar for the next batch.
    """
    for parameter, gradient in zip(dense_parameters(model), expected.dense_gradients, strict=True):
        sums = _sums_of(optimizer, parameter)
        if sums is not None:
            sums *= 1e5 * gradient.square().mean() / sums.double().mean()
    row_sums = _row_sums(optimizer)
    if row_sums is not None:
        row_sums *= 100 * expected.row_gradients.square().mean() / row_sums[expected.rows].double().mean()


def _assert_sums_added(
    found: torch.Tensor | None,
    before: torch.Tensor | None,
    after: torch.Tensor | None,
    precision: str,
    name: str,
) -> None:
    """Compare the squares that a step has added to sums with those of float64; nothing to do for SGD."""
    if found is not None and before is not None and after is not None:
        error = relative_error(found.double() - before, after - before)
        assert error < 2 * UPDATE_TOLERANCE[precision], f"the sums of squares of {name} differ by {error:.1e}"


def _clone(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.clone()


def _direction(gradient: torch.Tensor, sums: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return what the optimizer subtracts with rate 1, and the new sums of squares; float64."""
    if sums is None:
        return gradient, None
    squares = gradient.square()
    if sums.shape != gradient.shape:
        squares = squares.mean(1, keepdim=True)
    after = sums.double() + squares
    return gradient / (after.sqrt() + EPSILON), after


def _rows_that_do_not_occur(rows: torch.Tensor, count: int) -> torch.Tensor:
    generator = torch.Generator(DEVICE).manual_seed(5)
    drawn = torch.randint(count, (min(count, 200_000),), device=DEVICE, generator=generator)
    return drawn[~torch.isin(drawn, rows)]


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the norm of the difference, relative to the norm of `expected`."""
    return float((found - expected).norm() / expected.norm().clamp(min=1e-30))
