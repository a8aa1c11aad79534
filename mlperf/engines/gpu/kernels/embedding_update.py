"""SGD update of the embedding rows that a batch used, on the GPU.

B samples, T tables, L = B * T embeddings of a batch, D embedding dimension, R rows of all tables.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from mlperf.engines.gpu.triton_support import product_type, tile_size

# Sorted embeddings per program instance. Their gradients are summed by a product with a CHUNK x CHUNK matrix; a
# larger chunk needs fewer atomics but more registers. 16, the smallest that `tl.dot` takes, is fastest on an H200.
CHUNK = 16
VALUES_PER_WARP = 512
MAX_WARPS = 8


def update_rows(
    *,
    tables: torch.Tensor,
    embedding_rows: torch.Tensor,
    d_embeddings: torch.Tensor,
    rate: torch.Tensor,
    chunk: int = CHUNK,
    warps: int | None = None,
) -> None:
    """Subtract `rate` times the summed gradients from every row that occurs in `embedding_rows`.

    tables: float32 [R, D], updated in place. embedding_rows: int32 [B, T].
    d_embeddings: [B * T, D], gradient of each embedding, in the order of `embedding_rows`.
    rate: float32 scalar on the device.
    warps: warps per program instance; default depends on the chunk and the dimension.
    """
    count, dimension = d_embeddings.shape
    columns = tile_size(dimension)
    rows, order = embedding_rows.flatten().sort()
    _update_rows_kernel[(triton.cdiv(count, chunk),)](
        tables,
        rows,
        order,
        d_embeddings,
        rate,
        count,
        D=dimension,
        DP=columns,
        CHUNK=chunk,
        DOT=product_type(d_embeddings.dtype),
        num_warps=warps or min(MAX_WARPS, max(1, chunk * columns // VALUES_PER_WARP)),
    )


# do_not_specialize: avoid a recompilation for the smaller last batch.
@triton.jit(do_not_specialize=["count"])
def _update_rows_kernel(
    tables,  # float32 [R, D], updated
    rows,  # int32 [L], sorted
    order,  # int64 [L], original position of each
    d_embeddings,  # [L, D], in the order before sorting
    rate,  # float32 []
    count,
    D: tl.constexpr,
    DP: tl.constexpr,
    CHUNK: tl.constexpr,
    DOT: tl.constexpr,
):
    """Update the rows of CHUNK sorted positions.

    Equal rows are adjacent. Their gradients are summed by a product with a matrix of 0 and 1. A row whose run lies
    inside the chunk is updated by this program instance alone. Only rows whose run crosses a chunk boundary need
    an atomic addition (one per chunk), even for very frequent rows.
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
    is_shared = (row == previous) | (row == following)

    column = tl.arange(0, DP)
    in_row = (column < D)[None, :]
    target = tables + row.to(tl.int64)[:, None] * D + column[None, :]
    is_own = (is_first & (is_shared == 0))[:, None] & in_row
    value = tl.load(target, mask=is_own, other=0.0)  # before the gradients, so that both loads overlap
    gradient_source = d_embeddings + source[:, None] * D + column[None, :]
    gradients = tl.load(gradient_source, mask=in_batch[:, None] & in_row, other=0.0)
    row_across = tl.load(rows + position, mask=in_batch, other=-2)
    is_equal = (row[:, None] == row_across[None, :]).to(DOT)
    summed = tl.dot(is_equal, gradients.to(DOT), input_precision="ieee")  # (CHUNK, DP)
    value -= tl.load(rate) * summed
    tl.store(target, value, mask=is_own)
    # Shared rows were not loaded: only the update is added atomically.
    tl.atomic_add(target, value, mask=(is_first & is_shared)[:, None] & in_row, sem="relaxed")
