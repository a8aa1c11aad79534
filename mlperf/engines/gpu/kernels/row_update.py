"""Update of the embedding rows that a batch used, each once by the sum of its gradients, on the GPU.

For Adagrad, which squares the sum, and for rows in 16 bits, which are rounded once per step. The order of the
additions depends on the batch only: equal batches give equal rows. For SGD on float32 rows, `sgd_row_update` is
faster.

With several ids per table, all embeddings of a bag have the gradient of their sum. It is read where the backward
pass has left it, so that no gradient is copied once per embedding.

Rows that occur very often are no bottleneck: the sums of their chunks are added in two levels, blocks of chunks
first.

B samples, T tables, L embeddings of a batch, D embedding dimension, R rows of all tables, C chunks.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from mlperf.engines.gpu.bags import Bags
from mlperf.engines.gpu.kernels.adagrad import adagrad_direction
from mlperf.engines.gpu.kernels.rounding import random_bits, round_stochastically
from mlperf.engines.gpu.kernels.sorted_rows import (
    CHUNK,
    gradient_of_bag,
    load_chunk,
    sum_equal_rows,
    warps_per_chunk,
)
from mlperf.engines.gpu.triton_support import product_type, tile_size

# For rows whose run crosses a boundary: the number of chunks that a program instance searches for their beginning,
# and of sums that it adds at a time, which is also the number of chunks in a block. A row that occurs 400,000
# times has 25,000 chunks in 782 blocks, whose sums are added in 25 loads.
GROUP = 8
PARTS = 32

_NO_CHUNK = tl.constexpr(2**31 - 1)


def update_rows_once(
    *,
    tables: torch.Tensor,
    sums: torch.Tensor | None,
    embedding_rows: torch.Tensor,
    d_embeddings: torch.Tensor,
    rate: torch.Tensor,
    counter: torch.Tensor,
    epsilon: float = 0.0,
    bags: Bags | None = None,
    parts: int = PARTS,
    group: int = GROUP,
) -> None:
    """Update every row that occurs in `embedding_rows` by the sum of its gradients.

    tables: float32, bfloat16 or float16 [R, D], updated in place; in 16 bits, rounded stochastically.
    sums: sums of squares, updated in place: float32 [R, D] for Adagrad, [R, 1] for row-wise Adagrad, None for SGD.
    embedding_rows: int32 [B, T] or, with `bags`, [L], ordered as in `bags`.
    d_embeddings: [B * T, D], gradient of each embedding, in the order of `embedding_rows`; with `bags`, that of
        the features of each sample, [B, (T + 1) * D], of which the first one is not used.
    rate: float32 scalar on the device.
    counter: int64 [2] on the device, the seed of the rounding and the number of steps before this one.
    epsilon: of Adagrad.
    bags: if each sample has one or several ids of each table, whose rows were summed.
    parts: number of chunks in a block, a power of two.
    group: number of chunks that a program instance searches for the beginnings of runs, a power of two.

    The partial sums take 8 * D bytes for each chunk of 16 embeddings: 109 MB for 65,536 samples with 26 embeddings
    of dimension 128, and 898 MB with 214.
    """
    count, dimension = embedding_rows.numel(), tables.shape[1]
    columns = tile_size(dimension)
    chunks = triton.cdiv(count, CHUNK)
    blocks = triton.cdiv(chunks, parts)
    rows, order = embedding_rows.flatten().sort()
    partial_sums = torch.empty(chunks, 2, dimension, device=tables.device)
    block_sums = torch.empty(blocks, dimension, device=tables.device)
    constants = {
        "D": dimension,
        "DP": columns,
        "CHUNK": CHUNK,
        "num_warps": warps_per_chunk(CHUNK, columns),
    }
    width = 0 if sums is None else sums.shape[1]
    tables_of_bags = 0 if bags is None else bags.tables
    _sum_and_update_rows_kernel[(chunks,)](
        tables,
        sums,
        rows,
        order,
        d_embeddings,
        None if bags is None else bags.sizes,
        None if bags is None else bags.before,
        partial_sums,
        rate,
        counter,
        epsilon,
        count,
        len(d_embeddings),
        DOT=product_type(d_embeddings.dtype),
        SUMS=width,
        T=tables_of_bags,
        TP=triton.next_power_of_2(max(1, tables_of_bags)),
        **constants,
    )
    _sum_blocks_kernel[(blocks,)](rows, partial_sums, block_sums, count, PARTS=parts, **constants)
    _update_shared_rows_kernel[(triton.cdiv(chunks, group),)](
        tables,
        sums,
        rows,
        partial_sums,
        block_sums,
        rate,
        counter,
        epsilon,
        count,
        SUMS=width,
        GROUP=group,
        PARTS=parts,
        **constants,
    )


@triton.jit
def _load_rows(tables, sums, row, is_own, D: tl.constexpr, DP: tl.constexpr, SUMS: tl.constexpr):
    """Return the values of rows, float32 [rows, DP], and their sums of squares, [rows, DP] or [rows, 1].

    row: int32 [rows]. is_own: which of them are loaded, [rows].
    """
    column = tl.arange(0, DP)
    mask = is_own[:, None] & (column < D)[None, :]
    number = row.to(tl.int64)[:, None]
    values = tl.load(tables + number * D + column[None, :], mask=mask, other=0.0).to(tl.float32)
    squares = values  # not used by SGD
    if SUMS == 1:
        squares = tl.load(sums + number, mask=is_own[:, None], other=0.0)
    elif SUMS > 1:
        squares = tl.load(sums + number * D + column[None, :], mask=mask, other=0.0)
    return values, squares


@triton.jit
def _store_updated_rows(
    tables,
    sums,
    row,
    is_own,
    values,
    squares,
    gradient,
    rate,
    counter,
    epsilon,
    D: tl.constexpr,
    DP: tl.constexpr,
    SUMS: tl.constexpr,
):
    """Update the rows loaded by `_load_rows` by their summed gradients, float32 [rows, DP], and store them."""
    column = tl.arange(0, DP)
    mask = is_own[:, None] & (column < D)[None, :]
    number = row.to(tl.int64)[:, None]
    direction = gradient
    if SUMS == 1:
        squares += (tl.sum(gradient * gradient, axis=1) / D)[:, None]
        tl.store(sums + number, squares, mask=is_own[:, None])
        direction = adagrad_direction(gradient, squares, epsilon)
    elif SUMS > 1:
        squares += gradient * gradient
        tl.store(sums + number * D + column[None, :], squares, mask=mask)
        direction = adagrad_direction(gradient, squares, epsilon)
    values -= tl.load(rate) * direction
    target = tables + number * D + column[None, :]
    if tables.dtype.element_ty == tl.float32:
        tl.store(target, values, mask=mask)
    else:
        bits = random_bits(row, counter, DP)
        tl.store(target, round_stochastically(values, bits, tables.dtype.element_ty), mask=mask)


# do_not_specialize: avoid a recompilation for the smaller last batch.
@triton.jit(do_not_specialize=["count", "samples"])
def _sum_and_update_rows_kernel(
    tables,  # [R, D], updated
    sums,  # float32 [R, SUMS], updated; None if SUMS is 0
    rows,  # int32 [L], sorted
    order,  # int64 [L], original position of each
    d_embeddings,  # [L, D], in the order before sorting; with T > 0 [B, (T + 1) * D]
    sizes,  # int32 [T], ids of each table and sample; None if T is 0
    before,  # int32 [T], ids of a sample before those of each table; None if T is 0
    partial_sums,  # float32 [C, 2, D], output
    rate,  # float32 []
    counter,  # int64 [2], seed and step
    epsilon,
    count,
    samples,
    D: tl.constexpr,
    DP: tl.constexpr,
    SUMS: tl.constexpr,
    CHUNK: tl.constexpr,
    DOT: tl.constexpr,
    T: tl.constexpr,
    TP: tl.constexpr,
):
    """Update the rows whose run lies inside CHUNK sorted positions.

    If a run crosses a boundary, the sum of its part in this chunk is stored in `partial_sums`: at 0 if the run
    continues from the chunk before, at 1 if it begins in this one.
    """
    source, row, in_batch, is_first, previous, following = load_chunk(rows, order, count, CHUNK)
    continues = row == previous
    is_shared = continues | (row == following)
    is_own = is_first & (is_shared == 0)
    if T > 0:
        source = gradient_of_bag(source, sizes, before, samples, T, TP)

    column = tl.arange(0, DP)
    in_row = (column < D)[None, :]
    # before the gradients, so that both loads overlap
    values, squares = _load_rows(tables, sums, row, is_own, D, DP, SUMS)
    summed = sum_equal_rows(rows, d_embeddings, source, row, in_batch, D, DP, CHUNK, DOT)  # (CHUNK, DP)
    slot = tl.program_id(0).to(tl.int64) * 2 + tl.where(continues, 0, 1)
    target = partial_sums + slot[:, None] * D + column[None, :]
    tl.store(target, summed, mask=(is_first & is_shared)[:, None] & in_row)
    if tl.max(is_own.to(tl.int32), axis=0) > 0:  # many chunks lie inside the run of one very frequent row
        _store_updated_rows(
            tables, sums, row, is_own, values, squares, summed, rate, counter, epsilon, D, DP, SUMS
        )


@triton.jit(do_not_specialize=["count"])
def _sum_blocks_kernel(
    rows,  # int32 [L], sorted
    partial_sums,  # float32 [C, 2, D]
    block_sums,  # float32 [blocks, D], output
    count,
    D: tl.constexpr,
    DP: tl.constexpr,
    CHUNK: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Add the sums of the PARTS chunks of a block if they lie inside a run that begins before the block."""
    start = tl.program_id(0) * (PARTS * CHUNK)
    row = tl.load(rows + start)
    previous = tl.load(rows + start - 1, mask=start > 0, other=-1)
    if (row == previous) & (row == tl.load(rows + tl.minimum(start + PARTS * CHUNK, count) - 1)):
        chunk = tl.program_id(0) * PARTS + tl.arange(0, PARTS)
        column = tl.arange(0, DP)
        in_row = column < D
        parts = _load_parts(partial_sums, chunk, chunk * CHUNK < count, in_row, D, DP)
        tl.store(block_sums + tl.program_id(0).to(tl.int64) * D + column, tl.sum(parts, axis=0), mask=in_row)


@triton.jit
def _load_parts(partial_sums, chunk, is_part, in_row, D: tl.constexpr, DP: tl.constexpr):
    """Return the sums of chunks whose run continues from the chunk before, float32 [chunks, DP]."""
    source = partial_sums + chunk.to(tl.int64)[:, None] * (2 * D) + tl.arange(0, DP)[None, :]
    return tl.load(source, mask=is_part[:, None] & in_row[None, :], other=0.0)


@triton.jit
def _sum_run(
    rows,
    partial_sums,
    block_sums,
    own,
    row,
    count,
    D: tl.constexpr,
    DP: tl.constexpr,
    CHUNK: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Return the sum of the gradients of `row`, whose run begins in chunk `own` and crosses its end, [DP]."""
    column = tl.arange(0, DP)
    in_row = column < D
    summed = tl.load(partial_sums + (own.to(tl.int64) * 2 + 1) * D + column, mask=in_row, other=0.0)
    # the chunks up to the end of the block
    part = own + 1 + tl.arange(0, PARTS)
    block = own // PARTS + 1
    is_part = (part < block * PARTS) & (tl.load(rows + part * CHUNK, mask=part * CHUNK < count, other=-1) == row)
    summed += tl.sum(_load_parts(partial_sums, part, is_part, in_row, D, DP), axis=0)
    # blocks inside the run
    number = block + tl.arange(0, PARTS)
    is_inside = _is_inside(rows, number, row, count, PARTS * CHUNK)
    while tl.max(is_inside.to(tl.int32), axis=0) > 0:
        source = block_sums + number.to(tl.int64)[:, None] * D + column[None, :]
        parts = tl.load(source, mask=is_inside[:, None] & in_row[None, :], other=0.0)
        block += tl.sum(is_inside.to(tl.int32), axis=0)
        number += PARTS
        # before the addition, so that both loads overlap
        is_inside = _is_inside(rows, number, row, count, PARTS * CHUNK)
        summed += tl.sum(parts, axis=0)
    # the chunks behind them
    part = block * PARTS + tl.arange(0, PARTS)
    is_part = tl.load(rows + part * CHUNK, mask=part * CHUNK < count, other=-1) == row
    return summed + tl.sum(_load_parts(partial_sums, part, is_part, in_row, D, DP), axis=0)


@triton.jit
def _is_inside(rows, block, row, count, SIZE: tl.constexpr):
    """Return whether the last of the SIZE embeddings of each block, or the very last one, belongs to `row`.

    Rows are sorted: the block then lies inside its run if it begins behind the beginning of the run.
    """
    last = tl.minimum((block + 1) * SIZE, count) - 1
    return tl.load(rows + last, mask=block * SIZE < count, other=-1) == row


@triton.jit(do_not_specialize=["count"])
def _update_shared_rows_kernel(
    tables,  # [R, D], updated
    sums,  # float32 [R, SUMS], updated; None if SUMS is 0
    rows,  # int32 [L], sorted
    partial_sums,  # float32 [C, 2, D]
    block_sums,  # float32 [blocks, D]
    rate,  # float32 []
    counter,  # int64 [2], seed and step
    epsilon,
    count,
    D: tl.constexpr,
    DP: tl.constexpr,
    SUMS: tl.constexpr,
    CHUNK: tl.constexpr,
    GROUP: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Update the rows whose run begins in one of GROUP chunks and crosses its end."""
    chunk = tl.program_id(0) * GROUP + tl.arange(0, GROUP)
    end = (chunk + 1) * CHUNK
    is_followed = end < count
    last = tl.load(rows + end - 1, mask=is_followed, other=-1)
    following = tl.load(rows + end, mask=is_followed, other=-2)
    previous = tl.load(rows + end - CHUNK - 1, mask=is_followed & (chunk > 0), other=-2)
    begins = (last == following) & (last != previous)
    own = tl.min(tl.where(begins, chunk, _NO_CHUNK), axis=0)
    while own < _NO_CHUNK:
        row = tl.max(tl.where(chunk == own, last, -1), axis=0)
        rows_own = tl.zeros((1,), tl.int32) + row
        is_own = rows_own >= 0
        values, squares = _load_rows(tables, sums, rows_own, is_own, D, DP, SUMS)
        summed = _sum_run(rows, partial_sums, block_sums, own, row, count, D, DP, CHUNK, PARTS)[None, :]
        _store_updated_rows(
            tables, sums, rows_own, is_own, values, squares, summed, rate, counter, epsilon, D, DP, SUMS
        )
        own = tl.min(tl.where(begins & (chunk > own), chunk, _NO_CHUNK), axis=0)
