"""SGD update of the embedding rows that a batch used, float32, on the GPU. `row_update` has all other updates.

B samples, T tables, L = B * T embeddings of a batch, D embedding dimension, R rows of all tables.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from mlperf.engines.gpu.kernels.sorted_rows import CHUNK, load_chunk, sum_equal_rows, warps_per_chunk
from mlperf.engines.gpu.triton_support import product_type, tile_size


def update_rows_by_sgd(
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
    chunk: sorted embeddings per program instance; a larger one needs fewer atomics. warps: per program instance;
        default depends on the chunk and the dimension.
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
        num_warps=warps or warps_per_chunk(chunk, columns),
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

    A row whose run lies inside the chunk is updated by this program instance alone. Only rows whose run crosses a
    chunk boundary need an atomic addition (one per chunk), even for very frequent rows.
    """
    source, row, in_batch, is_first, previous, following = load_chunk(rows, order, count, CHUNK)
    is_shared = (row == previous) | (row == following)

    column = tl.arange(0, DP)
    in_row = (column < D)[None, :]
    target = tables + row.to(tl.int64)[:, None] * D + column[None, :]
    is_own = (is_first & (is_shared == 0))[:, None] & in_row
    value = tl.load(target, mask=is_own, other=0.0)  # before the gradients, so that both loads overlap
    summed = sum_equal_rows(rows, d_embeddings, source, row, in_batch, D, DP, CHUNK, DOT)  # (CHUNK, DP)
    value -= tl.load(rate) * summed
    tl.store(target, value, mask=is_own)
    # Shared rows were not loaded: only the update is added atomically.
    tl.atomic_add(target, value, mask=(is_first & is_shared)[:, None] & in_row, sem="relaxed")
