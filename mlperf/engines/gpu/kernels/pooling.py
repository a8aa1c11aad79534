"""Embedding lookup with several ids per table, and pooling, on the GPU.

B samples, T tables, F = T + 1 features, D embedding dimension, L ids of a batch, R rows of all tables. Activations
are float32 or bfloat16; tables are float32, bfloat16 or float16.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from mlperf.engines.gpu.bags import Bags
from mlperf.engines.gpu.triton_support import tile_size

# Samples per program instance: 16 x 128 sums are 16 per thread of 4 warps.
SAMPLES_PER_PROGRAM = 16
VALUES_PER_WARP = 512
MAX_WARPS = 8


def pool(
    *,
    tables: torch.Tensor,
    embedding_rows: torch.Tensor,
    bags: Bags,
    bottom: torch.Tensor,
    samples_per_program: int = SAMPLES_PER_PROGRAM,
    warps: int | None = None,
) -> torch.Tensor:
    """Return the features of each sample one after the other, [B, F * D] in the dtype of `bottom`.

    The first feature is the bottom MLP's output, the others are the sums of the rows of a table, computed in
    float32 in the order of the ids.

    tables: [R, D]. embedding_rows: int32 [L], ordered as in `bags`. bottom: [B, D].
    samples_per_program, warps: of each program instance; `warps` depends on the size of its tile by default.
    """
    samples, dimension = bottom.shape
    features = bags.tables + 1
    columns = tile_size(dimension)
    out = torch.empty(samples, features * dimension, dtype=bottom.dtype, device=bottom.device)
    _pool_kernel[(triton.cdiv(samples, samples_per_program), features)](
        tables,
        embedding_rows,
        bags.sizes,
        bags.before,
        bottom,
        out,
        samples,
        F=features,
        D=dimension,
        DP=columns,
        BLOCK=samples_per_program,
        num_warps=warps or min(MAX_WARPS, max(1, samples_per_program * columns // VALUES_PER_WARP)),
    )
    return out


# do_not_specialize: avoid a recompilation for the smaller last batch.
@triton.jit(do_not_specialize=["samples"])
def _pool_kernel(
    tables,  # [R, D]
    embedding_rows,  # int32 [L]
    sizes,  # int32 [T], ids of each table and sample
    before,  # int32 [T], ids of a sample before those of each table
    bottom,  # [B, D]
    out,  # [B, F * D], output
    samples,
    F: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Process one feature of BLOCK samples."""
    feature = tl.program_id(1)
    sample = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_batch = sample < samples
    column = tl.arange(0, DP)
    mask = in_batch[:, None] & (column < D)[None, :]
    target = out + (sample.to(tl.int64) * F + feature)[:, None] * D + column[None, :]
    if feature == 0:
        value = tl.load(bottom + sample.to(tl.int64)[:, None] * D + column[None, :], mask=mask, other=0.0)
        tl.store(target, value, mask=mask)
    else:
        size = tl.load(sizes + feature - 1)
        source = embedding_rows + tl.load(before + feature - 1).to(tl.int64) * samples + sample.to(tl.int64) * size
        row = tl.load(source, mask=in_batch, other=0)
        pooled = tl.zeros((BLOCK, DP), tl.float32)
        for number in range(1, size + 1):
            # before the values, so that both loads overlap
            following = tl.load(source + number, mask=in_batch & (number < size), other=0)
            values = tl.load(tables + row.to(tl.int64)[:, None] * D + column[None, :], mask=mask, other=0.0)
            pooled += values.to(tl.float32)
            row = following
        tl.store(target, pooled.to(out.dtype.element_ty), mask=mask)
