"""From rows of the file to the interaction and back to the tables, as Triton kernels.

B samples, T tables, F = T + 1 features, D embedding dimension, L = B * T ids of a batch, R rows of all tables.
Activations are float32 or bfloat16; tables and their updates are float32.

What depends on the size of a batch is not specialized: a run's last, smaller batch must not wait for the compiler.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mlperf.data.schema import COLUMNS, DENSE_FEATURES

# The dense features with the zeros that pad them.
DENSE_WIDTH = 16
# An invalid value is noted as its row in the file times PLACES plus its column; none yet: NO_PLACE.
PLACES = 64
NO_PLACE = 2**62
# Kernels see constants of this kind only.
_COLUMNS = tl.constexpr(COLUMNS)
_INTEGERS = tl.constexpr(DENSE_FEATURES)
_DENSE_WIDTH = tl.constexpr(DENSE_WIDTH)
_PLACES = tl.constexpr(PLACES)
_NO_PLACE = tl.constexpr(NO_PLACE)


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

    column = tl.arange(0, _DENSE_WIDTH)
    known = inside[:, None] & (column < _INTEGERS)[None, :]
    integer = tl.load(row[:, None] + 1 + column[None, :], mask=known, other=0)
    value = tl.log(1.0 + tl.maximum(integer, 0).to(tl.float32))
    target = dense + sample[:, None] * _DENSE_WIDTH + column[None, :]
    tl.store(target, value.to(dense.dtype.element_ty), mask=inside[:, None])

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
