"""What the MLPs and the loss need besides matrix products, as Triton kernels.

B samples, N width of a layer, K of its input. Activations are float32 or bfloat16; weights, sums and the loss are
float32 or wider. Of what depends on the size of a batch nothing is specialized, as in `gpu_interaction.py`.
"""

from __future__ import annotations

import triton
import triton.language as tl

# As in mlperf.models.loss.
_LEAST_LOG = tl.constexpr(-100.0)
_LEAST_VARIANCE = tl.constexpr(1e-12)


@triton.jit(do_not_specialize=["samples", "steps"])
def relu_backward(
    gradient,  # [B, N], of a ReLU's output; set to 0 where that is
    output,  # [B, N]
    d_bias,  # float32 [N], added to: sums over the samples
    samples,
    steps,
    N,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The gradient before a ReLU, and the bias's, for ROWS * steps samples and COLUMNS columns."""
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    sums = tl.zeros((COLUMNS,), tl.float32)
    for step in range(steps):
        row = (tl.program_id(0).to(tl.int64) * steps + step) * ROWS + tl.arange(0, ROWS)
        inside = (row < samples)[:, None] & (column < N)[None, :]
        where = row[:, None] * N + column[None, :]
        active = tl.load(output + where, mask=inside, other=0.0).to(tl.float32) > 0
        value = tl.load(gradient + where, mask=inside, other=0.0)
        value = tl.where(active, value, tl.zeros_like(value))
        tl.store(gradient + where, value, mask=inside)
        sums += tl.sum(value.to(tl.float32), axis=0)
    tl.atomic_add(d_bias + column, sums, mask=column < N, sem="relaxed")


@triton.jit
def _logits(hidden, weight, bias, sample, inside, N: tl.constexpr, STRIDE: tl.constexpr, NP: tl.constexpr):
    """Return hidden float32 [BLOCK, NP], weight [NP], and the last layer's outputs [BLOCK]."""
    column = tl.arange(0, NP)
    where = sample.to(tl.int64)[:, None] * STRIDE + column[None, :]
    values = tl.load(hidden + where, mask=inside[:, None] & (column < N)[None, :], other=0.0).to(tl.float32)
    weights = tl.load(weight + column, mask=column < N, other=0.0)
    return values, weights, tl.sum(values * weights[None, :], axis=1) + tl.load(bias)


@triton.jit
def _clamped(probability, THRESHOLD: tl.constexpr):
    """The clamp of --loss-threshold, which leaves a NaN one: minimum and maximum would make a number of it."""
    if THRESHOLD > 0:
        probability = tl.where(probability < THRESHOLD, THRESHOLD, probability)
        probability = tl.where(probability > 1.0 - THRESHOLD, 1.0 - THRESHOLD, probability)
    return probability


@triton.jit(do_not_specialize=["samples"])
def score(
    hidden,  # [B, STRIDE], the last layer's N inputs
    weight,  # float32 [N]
    bias,  # float32 [1]
    probabilities,  # float32 [B], to write
    samples,
    THRESHOLD: tl.constexpr,
    N: tl.constexpr,
    STRIDE: tl.constexpr,
    NP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The last layer, its sigmoid, and the clamp of --loss-threshold."""
    sample = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = sample < samples
    _, _, logit = _logits(hidden, weight, bias, sample, inside, N, STRIDE, NP)
    probability = _clamped(1.0 / (1.0 + tl.exp(-logit)), THRESHOLD)
    tl.store(probabilities + sample, probability, mask=inside)


@triton.jit(do_not_specialize=["samples", "steps"])
def last_layer(
    hidden,  # [B, STRIDE], the last layer's N inputs
    weight,  # float32 [N]
    bias,  # float32 [1]
    labels,  # float32 [B]
    d_hidden,  # [B, STRIDE], to write
    d_weight,  # float32 [N], added to
    d_bias,  # float32 [1], added to
    sums,  # float64 [2], added to: loss, correct predictions
    samples,
    steps,
    weight_of_0,
    weight_of_1,
    THRESHOLD: tl.constexpr,
    MSE: tl.constexpr,
    N: tl.constexpr,
    STRIDE: tl.constexpr,
    NP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The last layer and the loss, forward and backward, for BLOCK * steps samples."""
    weight_sums = tl.zeros((NP,), tl.float32)
    bias_sum = 0.0
    loss_sum = 0.0
    correct_sum = 0.0
    column = tl.arange(0, NP)
    for step in range(steps):
        sample = (tl.program_id(0) * steps + step) * BLOCK + tl.arange(0, BLOCK)
        inside = sample < samples
        values, weights, logit = _logits(hidden, weight, bias, sample, inside, N, STRIDE, NP)
        label = tl.load(labels + sample, mask=inside, other=0.0)
        unclamped = 1.0 / (1.0 + tl.exp(-logit))
        probability = _clamped(unclamped, THRESHOLD)
        if MSE:
            loss = (probability - label) * (probability - label)
            slope = 2.0 * (probability - label)
        else:
            other = 1.0 - probability
            click = tl.log(probability)
            no_click = tl.log(other)
            click = tl.where(click < _LEAST_LOG, _LEAST_LOG, click)  # unlike a maximum this keeps a NaN
            no_click = tl.where(no_click < _LEAST_LOG, _LEAST_LOG, no_click)
            class_weight = weight_of_0 + (weight_of_1 - weight_of_0) * label
            loss = class_weight * ((label - 1.0) * no_click - label * click)
            slope = class_weight * (probability - label) / tl.maximum(other * probability, _LEAST_VARIANCE)
        passes = inside
        if THRESHOLD > 0:
            passes = inside & (unclamped >= THRESHOLD) & (unclamped <= 1.0 - THRESHOLD)
        d_logit = tl.where(passes, slope / samples * (1.0 - unclamped) * unclamped, 0.0)
        rounded = tl.where(probability > 0.5, 1.0, 0.0)
        loss_sum += tl.sum(tl.where(inside, loss, 0.0), axis=0)
        correct_sum += tl.sum(tl.where(inside & (rounded == label), 1.0, 0.0), axis=0)
        bias_sum += tl.sum(d_logit, axis=0)
        weight_sums += tl.sum(d_logit[:, None] * values, axis=0)
        where = sample.to(tl.int64)[:, None] * STRIDE + column[None, :]
        value = (d_logit[:, None] * weights[None, :]).to(d_hidden.dtype.element_ty)
        tl.store(d_hidden + where, value, mask=inside[:, None] & (column < N)[None, :])
    tl.atomic_add(d_weight + column, weight_sums, mask=column < N, sem="relaxed")
    tl.atomic_add(d_bias, bias_sum, sem="relaxed")
    tl.atomic_add(sums, loss_sum.to(tl.float64), sem="relaxed")
    tl.atomic_add(sums + 1, correct_sum.to(tl.float64), sem="relaxed")


@triton.jit
def update_weights(
    weight,  # float32 [N, K], to update
    copy,  # [N, STRIDE], to write: the weight in the products' type
    d_weight,  # [N, STRIDE]
    rate,  # float32 []
    count,  # N * K
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    CLEAR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Subtract rate times the gradient; with CLEAR the gradient, a sum that was added to, begins at 0 again."""
    position = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = position < count
    padded = position // K * STRIDE + position % K
    gradient = tl.load(d_weight + padded, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(weight + position, mask=inside, other=0.0) - tl.load(rate) * gradient
    tl.store(weight + position, value, mask=inside)
    tl.store(copy + padded, value.to(copy.dtype.element_ty), mask=inside)
    if CLEAR:
        tl.store(d_weight + padded, tl.zeros_like(gradient).to(d_weight.dtype.element_ty), mask=inside)
