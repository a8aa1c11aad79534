"""Embeddings of a batch, sorted by the row they were read from, in chunks: shared by the updates of the tables.

B samples, T tables, L embeddings of a batch, D embedding dimension.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Sorted embeddings per program instance. Their gradients are summed by a product with a CHUNK x CHUNK matrix; a
# larger chunk needs more registers. 16, the smallest that `tl.dot` takes, is fastest on an H200.
CHUNK = 16
VALUES_PER_WARP = 512
MAX_WARPS = 8


def warps_per_chunk(chunk: int, columns: int) -> int:
    """Return the number of warps for `chunk` embeddings in a tile of `columns` columns."""
    return min(MAX_WARPS, max(1, chunk * columns // VALUES_PER_WARP))


@triton.jit
def load_chunk(rows, order, count, CHUNK: tl.constexpr):
    """Return the embeddings of this program instance; [CHUNK] each, but the last two, which are scalars.

    rows: int32 [L], sorted. order: int64 [L], position of each before sorting. count: L.

    Returns the positions before sorting, the rows, whether there is an embedding, whether it is the first one of
    its row in the chunk, and the rows of the embeddings before and behind the chunk, -1 if there are none.
    """
    start = tl.program_id(0) * CHUNK
    position = start + tl.arange(0, CHUNK)
    in_batch = position < count
    source = tl.load(order + position, mask=in_batch, other=0)
    row = tl.load(rows + position, mask=in_batch, other=-1)
    row_before = tl.load(rows + position - 1, mask=in_batch & (position > 0), other=-1)
    is_first = in_batch & ((position == start) | (row != row_before))
    previous = tl.load(rows + start - 1, mask=start > 0, other=-1)
    following = tl.load(rows + start + CHUNK, mask=start + CHUNK < count, other=-1)
    return source, row, in_batch, is_first, previous, following


@triton.jit
def gradient_of_bag(position, sizes, before, samples, T: tl.constexpr, TP: tl.constexpr):
    """Return which vector of D values is the gradient of each embedding, int64 [CHUNK].

    The gradients of a sample are T + 1 vectors: that of the bottom MLP's output, then those of its bags.

    position: int64 [CHUNK], positions of the embeddings before sorting. sizes, before: as in `Bags`. samples: B.
    """
    table = tl.arange(0, TP)
    starts = tl.load(before + table, mask=table < T, other=0) * samples  # (TP,)
    begun = (position.to(tl.int32)[:, None] >= starts[None, :]) & (table < T)[None, :]
    number = tl.sum(begun.to(tl.int32), axis=1)  # (CHUNK,), the table, from 1
    inside = position.to(tl.int32) - tl.load(before + number - 1) * samples
    return (inside // tl.load(sizes + number - 1)).to(tl.int64) * (T + 1) + number


@triton.jit
def sum_equal_rows(
    rows,
    d_embeddings,
    source,
    row,
    in_batch,
    D: tl.constexpr,
    DP: tl.constexpr,
    CHUNK: tl.constexpr,
    DOT: tl.constexpr,
):
    """Return, for each embedding of a chunk, the sum of the gradients of those with its row, float32 [CHUNK, DP].

    d_embeddings: [any, D]. source: int64 [CHUNK], which of `d_embeddings` are the gradients of the chunk. row,
        in_batch: from `load_chunk`.

    Equal rows are adjacent. Their gradients are summed by a product with a matrix of 0 and 1.
    """
    position = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    column = tl.arange(0, DP)
    gradient_source = d_embeddings + source[:, None] * D + column[None, :]
    gradients = tl.load(gradient_source, mask=in_batch[:, None] & (column < D)[None, :], other=0.0)
    row_across = tl.load(rows + position, mask=in_batch, other=-2)
    is_equal = (row[:, None] == row_across[None, :]).to(DOT)
    return tl.dot(is_equal, gradients.to(DOT), input_precision="ieee")
