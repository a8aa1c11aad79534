"""Compiled loops of the CPU engine: named arguments, numba's cache, and limits of the loss."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from numba.core import event

from mlperf.engines.cpu.loops import (
    cross,
    interaction,
    last_layer,
    mlp,
    pooling,
    row_groups,
    row_update,
    sgd_row_update,
)
from mlperf.engines.cpu.loops.parallel import ParallelLoop
from mlperf.engines.cpu.loops.table_rows import BFLOAT16
from mlperf.models.loss import MIN_LOG, MIN_VARIANCE


def test_unknown_argument_of_a_loop_is_refused() -> None:
    with pytest.raises(AssertionError, match="no such argument"):
        mlp.relu_backward().prepare(widht=3)


@pytest.mark.parametrize(
    "make_loop",
    [
        mlp.relu_backward.__wrapped__,
        mlp.weight_update.__wrapped__,
        last_layer.score.__wrapped__,
        lambda: last_layer.make_last_layer.__wrapped__(-100.0, 1e-12),
        lambda: interaction.make_forward.__wrapped__(3, 4, False),
        lambda: interaction.make_backward.__wrapped__(3, 4, True),
        lambda: sgd_row_update.make_sgd_row_update.__wrapped__(4),
        row_groups.row_groups.__wrapped__,
        cross.cross_forward.__wrapped__,
        cross.cross_backward.__wrapped__,
        cross.gradient_sum.__wrapped__,
        lambda: pooling.make_pooling.__wrapped__(BFLOAT16),
        lambda: row_update.make_row_update.__wrapped__(row_update.ROW_WISE_ADAGRAD, BFLOAT16),
    ],
)
def test_loop_is_compiled_once_and_then_loaded_from_numbas_cache(make_loop: Callable[[], ParallelLoop]) -> None:
    make_loop()
    with event.install_recorder("numba:compile") as recorder:
        make_loop()
    assert not recorder.buffer


def test_prepared_loops_do_not_share_their_arguments() -> None:
    weights = [torch.ones(5), torch.ones(5)]
    gradient = torch.arange(5.0)
    calls = [mlp.weight_update().prepare(weights=weight.data_ptr(), count=5) for weight in weights]
    for call, rate in zip(calls, (1.0, 2.0), strict=True):
        call.args.gradients, call.args.rate = gradient.data_ptr(), rate
    for call in calls:
        call.run()
    assert weights[0].tolist() == [1, 0, -1, -2, -3]
    assert weights[1].tolist() == [1, -1, -3, -5, -7]


@pytest.mark.parametrize(("logit", "label"), [(200.0, 0.0), (-200.0, 1.0)])
def test_loss_of_a_certain_wrong_prediction_is_bounded(logit: float, label: float) -> None:
    """As in torch.nn.BCELoss, loss and gradient stay finite."""
    hidden, bias, gradient = torch.tensor([[logit]]), torch.zeros(1), torch.empty(1, 1)
    weight, labels, sums = torch.ones(1), torch.tensor([[label]]), torch.zeros(torch.get_num_threads(), 4).double()
    call = last_layer.make_last_layer(MIN_LOG, MIN_VARIANCE).prepare(
        **{"hidden": hidden.data_ptr(), "weights": weight.data_ptr(), "bias": bias.data_ptr()},
        **{"labels": labels.data_ptr(), "hidden_gradient": gradient.data_ptr(), "sums": sums.data_ptr()},
        **{"samples": 1, "width": 1, "loss": last_layer.CROSS_ENTROPY, "weight_of_0": 1.0, "weight_of_1": 1.0},
    )
    call.run()
    reference = torch.tensor([[logit]], requires_grad=True)
    loss = torch.nn.functional.binary_cross_entropy(reference.sigmoid(), labels)
    loss.backward()
    assert sums.sum(0)[2] == loss
    assert reference.grad is not None
    assert torch.equal(gradient, reference.grad)


@pytest.mark.parametrize(("logit", "label"), [(200.0, 0.0), (-200.0, 1.0), (-200.0, 0.0), (0.5, 1.0)])
def test_loss_from_the_logit_is_exact_for_certain_predictions(logit: float, label: float) -> None:
    """Unlike the loss from the probability, it is not bounded, and its gradient does not vanish."""
    hidden, zero, gradient = torch.tensor([[logit]]), torch.zeros(1), torch.empty(1, 1)
    weight, labels, sums = torch.ones(1), torch.tensor([[label]]), torch.zeros(torch.get_num_threads(), 4).double()
    last_layer.make_last_layer(MIN_LOG, MIN_VARIANCE).prepare(
        **{"hidden": hidden.data_ptr(), "weights": weight.data_ptr(), "bias": zero.data_ptr()},
        **{"labels": labels.data_ptr(), "hidden_gradient": gradient.data_ptr(), "sums": sums.data_ptr()},
        **{"samples": 1, "width": 1, "loss": last_layer.LOGIT_CROSS_ENTROPY},
    ).run()
    reference = torch.tensor([[logit]], requires_grad=True)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(reference, labels)
    loss.backward()
    assert reference.grad is not None
    torch.testing.assert_close(sums.sum(0)[2].float(), loss.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, reference.grad, rtol=1e-6, atol=0)


def test_weights_are_rounded_to_bfloat16_as_pytorch_does() -> None:
    """To the nearest value, ties to even; what is not finite stays so."""
    bits = torch.tensor([0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0x7F7FFFFF, 0x7FFFFFFF, 0x00000001])
    weights = bits.to(torch.int32).view(torch.float32)
    weights = torch.cat((weights, -weights, torch.tensor([torch.inf, 0.0, 1e-3])))
    copies, gradients = torch.empty(len(weights), dtype=torch.bfloat16), torch.zeros(len(weights)).bfloat16()
    expected = weights.bfloat16()
    mlp.weight_update().prepare(
        **{"weights": weights.data_ptr(), "copies": copies.data_ptr(), "gradients": gradients.data_ptr()},
        **{"count": len(weights), "rate": 1.0, "bfloat16": 1},
    ).run()
    torch.testing.assert_close(copies, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_probability_of_one_half_counts_as_no_click(label: float) -> None:
    weight, zero, labels, gradient = torch.ones(1), torch.zeros(1), torch.tensor([[label]]), torch.empty(1, 1)
    sums = torch.zeros(torch.get_num_threads(), 4).double()
    last_layer.make_last_layer(MIN_LOG, MIN_VARIANCE).prepare(
        **{"hidden": zero.data_ptr(), "weights": weight.data_ptr(), "bias": zero.data_ptr()},
        **{"labels": labels.data_ptr(), "hidden_gradient": gradient.data_ptr(), "sums": sums.data_ptr()},
        **{"samples": 1, "width": 1, "loss": last_layer.CROSS_ENTROPY, "weight_of_0": 1.0, "weight_of_1": 1.0},
    ).run()
    assert sums.sum(0)[3] == 1 - label
