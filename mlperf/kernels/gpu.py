"""What a training step on the GPU does between its matrix products, as Triton kernels.

B samples, T tables, F = T + 1 features, D embedding dimension, L = B * T ids of a batch, R rows of all tables,
N width of a layer. Activations are float32 or bfloat16; tables, weights, updates and the loss are float32.

What depends on the size of a batch is not specialized: a run's last, smaller batch must not wait for the compiler.
"""

from __future__ import annotations

import os
import subprocess
from typing import Any

import torch
import triton
import triton.language as tl

# Columns of a row of the binary file: a label, integers, ids.
_COLUMNS = tl.constexpr(40)
_INTEGERS = tl.constexpr(13)
# An invalid value is noted as its row in the file times this plus its column.
PLACES = 64
_PLACES = tl.constexpr(PLACES)
_NO_PLACE = tl.constexpr(2**62)
# As in mlperf.model.loss.
_LEAST_LOG = tl.constexpr(-100.0)
_LEAST_VARIANCE = tl.constexpr(1e-12)


@triton.jit(do_not_specialize=["samples"])
def decode(
    rows,  # int32 [B, 40]
    limits,  # int32 [T], rows of each table
    starts,  # int32 [T], first row of each table in the block
    first,  # int64 [], number of the first row in the file
    dense,  # [B, 16], to write: log(1 + integer), zeros behind the thirteenth
    labels,  # float32 [B], to write
    flat_rows,  # int32 [B, T], to write: rows of the block
    invalid,  # int64 [], lowered to the place of the first invalid value
    samples,
    MODULUS: tl.constexpr,
    TABLES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Decode BLOCK rows: an id outside its table or a label that is not 0 or 1 is noted and replaced."""
    sample = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = sample < samples
    row = rows + sample.to(tl.int64) * _COLUMNS
    place = (tl.load(first) + sample) * _PLACES
    label = tl.load(row, mask=inside, other=0)
    wrong = inside & (label != 0) & (label != 1)
    worst = tl.min(tl.where(wrong, place, _NO_PLACE), axis=0)
    tl.store(labels + sample, tl.where(label == 1, 1.0, 0.0), mask=inside)

    column = tl.arange(0, 16)
    known = inside[:, None] & (column < _INTEGERS)[None, :]
    integer = tl.load(row[:, None] + 1 + column[None, :], mask=known, other=0)
    value = tl.log(1.0 + tl.maximum(integer, 0).to(tl.float32))
    tl.store(
        dense + sample[:, None] * 16 + column[None, :], value.to(dense.dtype.element_ty), mask=inside[:, None]
    )

    table = tl.arange(0, 32)
    known = inside[:, None] & (table < TABLES)[None, :]
    index = tl.load(row[:, None] + 1 + _INTEGERS + table[None, :], mask=known, other=0)
    if MODULUS > 0:
        index = index % MODULUS
        index = tl.where(index < 0, index + MODULUS, index)
    limit = tl.load(limits + table, mask=table < TABLES, other=1)[None, :]
    start = tl.load(starts + table, mask=table < TABLES, other=0)[None, :]
    wrong_index = known & ((index < 0) | (index >= limit))
    index_place = place[:, None] + 1 + _INTEGERS + table[None, :]
    wrong_place = tl.min(tl.min(tl.where(wrong_index, index_place, _NO_PLACE), axis=1), axis=0)
    index = tl.minimum(tl.maximum(index, 0), limit - 1)
    tl.store(flat_rows + sample[:, None] * TABLES + table[None, :], start + index, mask=known)
    worst = tl.minimum(worst, wrong_place)
    tl.atomic_min(invalid, worst, mask=worst < _NO_PLACE, sem="relaxed")


@triton.jit
def _features(
    block, flat_rows, bottom, sample, T: tl.constexpr, D: tl.constexpr, FP: tl.constexpr, DP: tl.constexpr
):
    """Return the features of a sample, float32 [FP, DP]: the bottom MLP's output and the rows of the tables."""
    feature = tl.arange(0, FP)
    column = tl.arange(0, DP)
    is_row = (feature > 0) & (feature <= T)
    number = tl.load(flat_rows + sample * T + feature - 1, mask=is_row, other=0).to(tl.int64)
    where = number[:, None] * D + column[None, :]
    rows = tl.load(block + where, mask=is_row[:, None] & (column < D)[None, :], other=0.0)
    first = tl.load(bottom + sample * D + column, mask=column < D, other=0.0).to(tl.float32)
    return tl.where((feature == 0)[:, None], first[None, :], rows)


@triton.jit
def interact(
    block,  # float32 [R, D]
    flat_rows,  # int32 [B, T]
    bottom,  # [B, D]
    out,  # [B, WIDTH], to write: bottom, then the products of pairs, then zeros
    T: tl.constexpr,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    ITSELF: tl.constexpr,
    FP: tl.constexpr,
    DP: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Look up and interact one sample; its features are read once and meet in registers."""
    sample = tl.program_id(0).to(tl.int64)
    features = _features(block, flat_rows, bottom, sample, T, D, FP, DP).to(DOT)
    products = tl.dot(features, tl.trans(features), input_precision=PRECISION)  # (FP, FP)
    i = tl.arange(0, FP)[:, None]
    j = tl.arange(0, FP)[None, :]
    if ITSELF:
        taken = (i <= T) & (j <= i)
        pair = i * (i + 1) // 2 + j
        behind = D + (T + 1) * (T + 2) // 2 + tl.arange(0, 8)
    else:
        taken = (i <= T) & (j < i)
        pair = i * (i - 1) // 2 + j
        behind = D + T * (T + 1) // 2 + tl.arange(0, 8)
    target = out + sample * WIDTH
    tl.store(target + D + pair, products.to(out.dtype.element_ty), mask=taken)
    column = tl.arange(0, DP)
    copied = tl.load(bottom + sample * D + column, mask=column < D, other=0.0)
    tl.store(target + column, copied, mask=column < D)
    # The columns that only pad meet weights that are 0, and must not be NaN.
    tl.store(target + behind, tl.zeros((8,), out.dtype.element_ty), mask=behind < WIDTH)


@triton.jit
def interact_backward(
    block,  # float32 [R, D]
    flat_rows,  # int32 [B, T]
    bottom,  # [B, D]
    gradient,  # [B, WIDTH], of `out` above
    d_bottom,  # [B, D], to write
    d_rows,  # [B * T, D], to write
    T: tl.constexpr,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    ITSELF: tl.constexpr,
    FP: tl.constexpr,
    DP: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The gradients of one sample's features: a symmetric matrix of those of the pairs, times the features."""
    sample = tl.program_id(0).to(tl.int64)
    features = _features(block, flat_rows, bottom, sample, T, D, FP, DP).to(DOT)
    i = tl.arange(0, FP)[:, None]
    j = tl.arange(0, FP)[None, :]
    high = tl.maximum(i, j)
    low = tl.minimum(i, j)
    source = gradient + sample * WIDTH
    if ITSELF:
        pair = high * (high + 1) // 2 + low
        symmetric = tl.load(source + D + pair, mask=high <= T, other=0.0).to(tl.float32)
        symmetric = tl.where(i == j, 2.0 * symmetric, symmetric)  # d(f·f)/df = 2f
    else:
        pair = high * (high - 1) // 2 + low
        symmetric = tl.load(source + D + pair, mask=(high <= T) & (i != j), other=0.0).to(tl.float32)
    gradients = tl.dot(symmetric.to(DOT), features, input_precision=PRECISION)  # (FP, DP)
    feature = tl.arange(0, FP)
    column = tl.arange(0, DP)
    direct = tl.load(source + column, mask=column < D, other=0.0).to(tl.float32)
    first = tl.sum(tl.where((feature == 0)[:, None], gradients, 0.0), axis=0) + direct
    tl.store(d_bottom + sample * D + column, first.to(d_bottom.dtype.element_ty), mask=column < D)
    target = d_rows + (sample * T + feature - 1)[:, None] * D + column[None, :]
    is_row = ((feature > 0) & (feature <= T))[:, None] & (column < D)[None, :]
    tl.store(target, gradients.to(d_rows.dtype.element_ty), mask=is_row)


@triton.jit(do_not_specialize=["count"])
def update_rows(
    block,  # float32 [R, D], to update
    keys,  # int32 [L], rows of the block, sorted
    order,  # int64 [L], where each of them stood before
    d_rows,  # [L, D], in the order of before
    rate,  # float32 []
    count,
    D: tl.constexpr,
    DP: tl.constexpr,
    CHUNK: tl.constexpr,
    DOT: tl.constexpr,
):
    """Subtract rate times the summed gradients from the rows of CHUNK sorted positions.

    Equal rows stand together. Their gradients are summed by a product with a matrix of 0 and 1, and a row whose
    run lies inside the chunk is this program's alone. Only runs across the chunk's ends need atomics, one for a
    chunk, however often a row of a tiny table occurs.
    """
    start = tl.program_id(0) * CHUNK
    position = start + tl.arange(0, CHUNK)
    inside = position < count
    source = tl.load(order + position, mask=inside, other=0)
    key = tl.load(keys + position, mask=inside, other=-1)
    before = tl.load(keys + position - 1, mask=inside & (position > 0), other=-1)
    is_first = inside & ((position == start) | (key != before))
    previous = tl.load(keys + start - 1, mask=start > 0, other=-1)
    following = tl.load(keys + start + CHUNK, mask=start + CHUNK < count, other=-1)
    is_shared = (key == previous) | (key == following)

    column = tl.arange(0, DP)
    in_row = (column < D)[None, :]
    target = block + key.to(tl.int64)[:, None] * D + column[None, :]
    own = (is_first & (is_shared == 0))[:, None] & in_row
    value = tl.load(target, mask=own, other=0.0)  # before the gradients: the two wait for memory together
    gradients = tl.load(d_rows + source[:, None] * D + column[None, :], mask=inside[:, None] & in_row, other=0.0)
    keys_across = tl.load(keys + position, mask=inside, other=-2)
    equal = (key[:, None] == keys_across[None, :]).to(DOT)
    summed = tl.dot(equal, gradients.to(DOT), input_precision="ieee")  # (CHUNK, DP)
    value -= tl.load(rate) * summed
    tl.store(target, value, mask=own)
    # Of a row that others have a part in nothing was loaded: its value is the change alone.
    tl.atomic_add(target, value, mask=(is_first & is_shared)[:, None] & in_row, sem="relaxed")


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


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def obstacle() -> str | None:
    """Return why kernels cannot be launched here, None if they can: Triton compiles their launcher, in C."""
    if _interpreted():
        return None
    try:
        triton.runtime.driver.active.get_current_target()
    except (RuntimeError, OSError, ImportError, subprocess.SubprocessError) as error:
        return str(error).partition("\n")[0]
    return None


def dot_type(dtype: torch.dtype) -> Any:
    """Return Triton's type for products of `dtype`; its interpreter cannot multiply bfloat16 and takes float32."""
    return tl.bfloat16 if dtype == torch.bfloat16 and not _interpreted() else tl.float32


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int = 4, **constants: Any) -> None:
    """Run `kernel` in `grid` programs of `warps` warps."""
    kernel[grid](*arguments, num_warps=warps, **constants)
