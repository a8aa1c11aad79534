"""Last layer (one output with a sigmoid) and loss on the GPU, forward and backward.

B samples, N inputs of the last layer. Activations are float32 or bfloat16; weights and sums are float32 or wider.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from mlperf.engines.gpu.triton_support import tile_size, tiles_per_program
from mlperf.models.loss import MIN_LOG, MIN_VARIANCE

# A program instance loads all inputs of 32 samples, or of fewer if they are wide: a tile has at most 4096 values,
# 32 per thread of 4 warps.
MAX_SAMPLES = 32
MAX_TILE_VALUES = 4096
MAX_INPUTS = 1024
WARPS = 4

_MIN_LOG = tl.constexpr(MIN_LOG)
_MIN_VARIANCE = tl.constexpr(MIN_VARIANCE)


def predict(*, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, threshold: float) -> torch.Tensor:
    """Return the probabilities of a click, float32 [B].

    hidden: inputs of the last layer, [B, >= N]; extra columns are padding.
    weight: float32 [1, N]. bias: float32 [1].
    threshold: t > 0 clamps the probabilities to [t, 1 - t] (--loss-threshold).
    """
    samples = len(hidden)
    probabilities = torch.empty(samples, device=hidden.device)
    constants = _tile_constants(hidden, weight)
    _predict_kernel[(triton.cdiv(samples, constants["BLOCK"]),)](
        hidden, weight, bias, probabilities, samples, threshold, num_warps=WARPS, **constants
    )
    return probabilities


def loss_backward(
    *,
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    labels: torch.Tensor,
    d_weight: torch.Tensor,
    d_bias: torch.Tensor,
    d_hidden_bias: torch.Tensor | None,
    sums: torch.Tensor,
    loss: str,
    class_weights: tuple[float, ...],
    threshold: float,
    tiles: int | None = None,
    registers: int | None = None,
) -> torch.Tensor:
    """Compute the loss and return the gradient of `hidden` or, if it is the output of a ReLU, of the ReLU's input.

    hidden, weight, bias, threshold: as in `predict`. labels: float32 [B].
    d_weight: float32 [1, N], d_bias: float32 [1]; accumulated.
    d_hidden_bias: float32 [N], accumulated: gradient of the bias below the ReLU. None if there is no ReLU because
        `hidden` is the interaction.
    sums: float64 [2], accumulated: the sum of the losses and the number of correct predictions.
    loss: "mse", "bce_logits" for binary cross-entropy computed from the logit, or any other name for binary
        cross-entropy of the probability with the `class_weights` of labels 0 and 1.
    tiles: number of tiles of samples summed by each program instance; default depends on B.
    registers: maximum per thread; default: what the compiler chooses.
    """
    samples = len(hidden)
    gradient = torch.empty_like(hidden)
    tiles = tiles or tiles_per_program(samples)
    constants = _tile_constants(hidden, weight)
    _loss_backward_kernel[(triton.cdiv(samples, constants["BLOCK"] * tiles),)](
        hidden,
        weight,
        bias,
        labels,
        gradient,
        d_weight,
        d_bias,
        d_hidden_bias,
        sums,
        samples,
        tiles,
        *class_weights,
        threshold,
        MSE=loss == "mse",
        LOGITS=loss == "bce_logits",
        RELU=d_hidden_bias is not None,
        num_warps=WARPS,
        maxnreg=registers,
        **constants,
    )
    return gradient


def _tile_constants(hidden: torch.Tensor, weight: torch.Tensor) -> dict[str, int]:
    inputs = weight.numel()
    padded = tile_size(inputs)
    return {
        "N": inputs,
        "STRIDE": hidden.shape[1],
        "NP": padded,
        "BLOCK": min(MAX_SAMPLES, MAX_TILE_VALUES // padded),
    }


@triton.jit
def _logits(hidden, weight, bias, sample, in_batch, N: tl.constexpr, STRIDE: tl.constexpr, NP: tl.constexpr):
    """Return hidden float32 [BLOCK, NP], weight [NP], and the last layer's outputs [BLOCK]."""
    column = tl.arange(0, NP)
    source = hidden + sample.to(tl.int64)[:, None] * STRIDE + column[None, :]
    values = tl.load(source, mask=in_batch[:, None] & (column < N)[None, :], other=0.0).to(tl.float32)
    weights = tl.load(weight + column, mask=column < N, other=0.0)
    return values, weights, tl.sum(values * weights[None, :], axis=1) + tl.load(bias)


@triton.jit
def _clamp(probability, THRESHOLD: tl.constexpr):
    """Clamp to [THRESHOLD, 1 - THRESHOLD]. Propagates NaN (tl.minimum and tl.maximum do not)."""
    if THRESHOLD > 0:
        probability = tl.where(probability < THRESHOLD, THRESHOLD, probability)
        probability = tl.where(probability > 1.0 - THRESHOLD, 1.0 - THRESHOLD, probability)
    return probability


# do_not_specialize: avoid a recompilation for the smaller last batch.
@triton.jit(do_not_specialize=["samples"])
def _predict_kernel(
    hidden,  # [B, STRIDE]
    weight,  # float32 [N]
    bias,  # float32 [1]
    probabilities,  # float32 [B], output
    samples,
    THRESHOLD: tl.constexpr,
    N: tl.constexpr,
    STRIDE: tl.constexpr,
    NP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Predict BLOCK samples."""
    sample = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_batch = sample < samples
    _, _, logit = _logits(hidden, weight, bias, sample, in_batch, N, STRIDE, NP)
    probability = _clamp(1.0 / (1.0 + tl.exp(-logit)), THRESHOLD)
    tl.store(probabilities + sample, probability, mask=in_batch)


@triton.jit(do_not_specialize=["samples", "tiles"])
def _loss_backward_kernel(
    hidden,  # [B, STRIDE]
    weight,  # float32 [N]
    bias,  # float32 [1]
    labels,  # float32 [B]
    d_hidden,  # [B, STRIDE], output
    d_weight,  # float32 [N], accumulated
    d_bias,  # float32 [1], accumulated
    d_hidden_bias,  # float32 [N], accumulated; None without RELU
    sums,  # float64 [2], accumulated: loss, correct predictions
    samples,
    tiles,
    weight_of_0,
    weight_of_1,
    THRESHOLD: tl.constexpr,
    MSE: tl.constexpr,
    LOGITS: tl.constexpr,
    RELU: tl.constexpr,
    N: tl.constexpr,
    STRIDE: tl.constexpr,
    NP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Process BLOCK * tiles samples."""
    weight_sums = tl.zeros((NP,), tl.float32)
    hidden_bias_sums = tl.zeros((NP,), tl.float32)
    bias_sum = 0.0
    loss_sum = 0.0
    correct_sum = 0.0
    column = tl.arange(0, NP)
    for tile in range(tiles):
        sample = (tl.program_id(0) * tiles + tile) * BLOCK + tl.arange(0, BLOCK)
        in_batch = sample < samples
        values, weights, logit = _logits(hidden, weight, bias, sample, in_batch, N, STRIDE, NP)
        label = tl.load(labels + sample, mask=in_batch, other=0.0)
        unclamped = 1.0 / (1.0 + tl.exp(-logit))
        probability = _clamp(unclamped, THRESHOLD)
        if LOGITS:
            loss = tl.where(logit > 0, logit, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(logit))) - logit * label
            d_logit = (probability - label) / samples
        elif MSE:
            loss = (probability - label) * (probability - label)
            d_logit = 2.0 * (probability - label) / samples * (1.0 - unclamped) * unclamped
        else:
            complement = 1.0 - probability
            log_click = tl.log(probability)
            log_no_click = tl.log(complement)
            log_click = tl.where(log_click < _MIN_LOG, _MIN_LOG, log_click)  # a maximum would drop a NaN
            log_no_click = tl.where(log_no_click < _MIN_LOG, _MIN_LOG, log_no_click)
            class_weight = weight_of_0 + (weight_of_1 - weight_of_0) * label
            loss = class_weight * ((label - 1.0) * log_no_click - label * log_click)
            slope = class_weight * (probability - label) / tl.maximum(complement * probability, _MIN_VARIANCE)
            d_logit = slope / samples * (1.0 - unclamped) * unclamped
        has_gradient = in_batch
        if THRESHOLD > 0:
            has_gradient = in_batch & (unclamped >= THRESHOLD) & (unclamped <= 1.0 - THRESHOLD)
        d_logit = tl.where(has_gradient, d_logit, 0.0)
        rounded = tl.where(probability > 0.5, 1.0, 0.0)
        loss_sum += tl.sum(tl.where(in_batch, loss, 0.0), axis=0)
        correct_sum += tl.sum(tl.where(in_batch & (rounded == label), 1.0, 0.0), axis=0)
        bias_sum += tl.sum(d_logit, axis=0)
        weight_sums += tl.sum(d_logit[:, None] * values, axis=0)
        target = d_hidden + sample.to(tl.int64)[:, None] * STRIDE + column[None, :]
        value = (d_logit[:, None] * weights[None, :]).to(d_hidden.dtype.element_ty)
        if RELU:
            value = tl.where(values > 0, value, tl.zeros_like(value))
            hidden_bias_sums += tl.sum(value.to(tl.float32), axis=0)
        tl.store(target, value, mask=in_batch[:, None] & (column < N)[None, :])
    tl.atomic_add(d_weight + column, weight_sums, mask=column < N, sem="relaxed")
    if RELU:
        tl.atomic_add(d_hidden_bias + column, hidden_bias_sums, mask=column < N, sem="relaxed")
    tl.atomic_add(d_bias, bias_sum, sem="relaxed")
    tl.atomic_add(sums, loss_sum.to(tl.float64), sem="relaxed")
    tl.atomic_add(sums + 1, correct_sum.to(tl.float64), sem="relaxed")
