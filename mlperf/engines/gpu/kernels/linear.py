"""Gradient of ReLU and of the bias on the GPU.

B samples, N outputs of the layer. Activations are float32 or bfloat16; sums are float32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from mlperf.engines.gpu.triton_support import tiles_per_program

# 128 columns make the loads of a row contiguous (256 bytes in bfloat16); 32 x 128 values are 32 per thread of 4
# warps.
RELU_ROWS = 32
RELU_COLUMNS = 128
RELU_WARPS = 4


def relu_backward(
    *,
    gradient: torch.Tensor,
    output: torch.Tensor,
    d_bias: torch.Tensor,
    tiles: int | None = None,
    rows: int = RELU_ROWS,
    columns: int = RELU_COLUMNS,
    warps: int = RELU_WARPS,
) -> None:
    """Turn the gradient of a ReLU's output into that of its input, in place, and add its column sums to `d_bias`.

    gradient: [B, N], set to 0 where the output is 0. output: [B, N]. d_bias: float32 [N], accumulated.
    tiles: number of tiles of `rows` samples summed by each program instance; default depends on B.
    """
    samples, width = gradient.shape
    tiles = tiles or tiles_per_program(samples)
    grid = (triton.cdiv(samples, rows * tiles), triton.cdiv(width, columns))
    _relu_backward_kernel[grid](
        gradient, output, d_bias, samples, tiles, width, ROWS=rows, COLUMNS=columns, num_warps=warps
    )


# do_not_specialize: avoid a recompilation for the smaller last batch.
@triton.jit(do_not_specialize=["samples", "tiles"])
def _relu_backward_kernel(
    gradient,  # [B, N], updated
    output,  # [B, N]
    d_bias,  # float32 [N], accumulated
    samples,
    tiles,
    N,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Process ROWS * tiles samples of COLUMNS columns."""
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    sums = tl.zeros((COLUMNS,), tl.float32)
    for tile in range(tiles):
        row = (tl.program_id(0).to(tl.int64) * tiles + tile) * ROWS + tl.arange(0, ROWS)
        in_matrix = (row < samples)[:, None] & (column < N)[None, :]
        offset = row[:, None] * N + column[None, :]
        active = tl.load(output + offset, mask=in_matrix, other=0.0).to(tl.float32) > 0
        value = tl.load(gradient + offset, mask=in_matrix, other=0.0)
        value = tl.where(active, value, tl.zeros_like(value))
        tl.store(gradient + offset, value, mask=in_matrix)
        sums += tl.sum(value.to(tl.float32), axis=0)
    tl.atomic_add(d_bias + column, sums, mask=column < N, sem="relaxed")
