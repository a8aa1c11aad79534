"""Candidate for the engine: gradient of a layer's input and of the ReLU below it, in one kernel.

The engine computes the matrix product with cuBLAS. `relu_backward` then reads and writes the result again, which
takes a third of the time of all products of a step. Here the gradient of the ReLU and its column sums (the
gradient of the lower bias) are computed while the product is in registers. `tune_kernels.py` compares both on a
GPU. The engine does not use this kernel, because it has not been measured yet.

B samples, N outputs and K inputs of the layer. Activations and weights of the products are bfloat16.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from mlperf.engines.gpu.triton_support import product_type

# Tile of the result and of the sum over N, warps and pipeline stages: 128 x 256 accumulators in float32 are 128
# registers of each thread of 8 warps. Three stages need 144 KB of shared memory.
ROWS = 128
COLUMNS = 256
DEPTH = 64
WARPS = 8
STAGES = 3

# Tiles in a column of the grid that run one after another, so that they find the weights in the L2 cache.
_GROUP = tl.constexpr(8)


def relu_input_gradient(
    *,
    gradient: torch.Tensor,
    weight: torch.Tensor,
    inputs: torch.Tensor,
    d_bias: torch.Tensor,
    rows: int = ROWS,
    columns: int = COLUMNS,
    depth: int = DEPTH,
    warps: int = WARPS,
    stages: int = STAGES,
) -> torch.Tensor:
    """Return `gradient` times `weight`, [B, K], set to 0 where `inputs` is 0, and add its column sums to `d_bias`.

    gradient: [B, N]. weight: [N, K]. inputs: [B, K], the output of a ReLU. d_bias: float32 [K], accumulated.
    rows, columns, depth: tile of the result, and of the sum over N. warps, stages: of a program instance.
    """
    samples, inner = gradient.shape
    width = weight.shape[1]
    result = torch.empty_like(inputs)
    grid = (triton.cdiv(samples, rows) * triton.cdiv(width, columns),)
    _relu_input_gradient_kernel[grid](
        gradient,
        weight,
        inputs,
        result,
        d_bias,
        samples,
        inner,
        width,
        ROWS=rows,
        COLUMNS=columns,
        DEPTH=depth,
        WHOLE=inner % depth == 0 and width % columns == 0,
        DOT=product_type(gradient.dtype),
        num_warps=warps,
        num_stages=stages,
    )
    return result


# do_not_specialize: avoid a recompilation for the smaller last batch.
@triton.jit(do_not_specialize=["samples"])
def _relu_input_gradient_kernel(
    gradient,  # [B, N]
    weight,  # [N, K]
    inputs,  # [B, K]
    result,  # [B, K], output
    d_bias,  # float32 [K], accumulated
    samples,
    inner,  # N
    width,  # K
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    WHOLE: tl.constexpr,  # whether DEPTH divides N and COLUMNS divides K, so that no loads are masked
    DOT: tl.constexpr,
):
    """Compute a tile of ROWS x COLUMNS values."""
    # Groups of row tiles; within a group, one column of tiles after another.
    row_tiles = tl.cdiv(samples, ROWS)
    column_tiles = tl.cdiv(width, COLUMNS)
    tile = tl.program_id(0)
    first = tile // (_GROUP * column_tiles) * _GROUP
    height = tl.minimum(row_tiles - first, _GROUP)
    within = tile % (_GROUP * column_tiles)
    row = (first + within % height) * ROWS + tl.arange(0, ROWS)
    column = within // height * COLUMNS + tl.arange(0, COLUMNS)
    in_batch = row < samples
    in_row = column < width
    row = tl.minimum(row, samples - 1).to(tl.int64)  # what is computed for rows past the end is not stored

    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, inner, DEPTH):
        middle = start + tl.arange(0, DEPTH)
        left_source = gradient + row[:, None] * inner + middle[None, :]
        right_source = weight + middle[:, None] * width + column[None, :]
        if WHOLE:
            left, right = tl.load(left_source), tl.load(right_source)
        else:
            in_sum = middle < inner
            left = tl.load(left_source, mask=in_sum[None, :], other=0.0)
            right = tl.load(right_source, mask=in_sum[:, None] & in_row[None, :], other=0.0)
        total = tl.dot(left.to(DOT), right.to(DOT), total, input_precision="ieee")

    place = row[:, None] * width + column[None, :]
    in_matrix = in_batch[:, None] & in_row[None, :]
    active = tl.load(inputs + place, mask=in_matrix, other=0.0).to(tl.float32) > 0
    value = tl.where(active & in_batch[:, None], total, 0.0).to(result.dtype.element_ty)
    tl.store(result + place, value, mask=in_matrix)
    # The sums are those of the rounded values, as in the weight's gradient.
    tl.atomic_add(d_bias + column, tl.sum(value.to(tl.float32), axis=0), mask=in_row, sem="relaxed")
