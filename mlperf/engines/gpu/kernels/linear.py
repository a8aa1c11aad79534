"""GPU kernels for linear layers with ReLU.

B samples, N outputs and K inputs of the layer. Activations are float32 or bfloat16; weights and sums are float32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from mlperf.engines.gpu.triton_support import tiles_per_program

# relu_backward: 128 columns make the loads of a row contiguous (256 bytes in bfloat16); 32 x 128 values are 32 per
# thread of 4 warps.
RELU_ROWS = 32
RELU_COLUMNS = 128
RELU_WARPS = 4

# update_weights: 8 values per thread of 4 warps.
UPDATE_VALUES = 1024
UPDATE_WARPS = 4


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


def update_weights(
    *,
    weight: torch.Tensor,
    copy: torch.Tensor,
    gradient: torch.Tensor,
    rate: torch.Tensor,
    clear: bool = False,
) -> None:
    """Subtract `rate` times the gradient from a weight matrix [N, K] or a bias [N].

    weight: float32, updated in place.
    copy: output, `weight` in the dtype of the products, rows padded to the input width; may alias `weight`.
    gradient: gradient of the weight, in the shape of `copy`.
    rate: float32 scalar on the device.
    clear: set the gradient to 0 afterwards, for a gradient that kernels accumulate.
    """
    is_matrix = weight.dim() == 2
    count = weight.numel()
    _update_weights_kernel[(triton.cdiv(count, UPDATE_VALUES),)](
        weight,
        copy,
        gradient,
        rate,
        count,
        K=weight.shape[1] if is_matrix else count,
        STRIDE=copy.shape[1] if is_matrix else copy.numel(),
        CLEAR=clear,
        BLOCK=UPDATE_VALUES,
        num_warps=UPDATE_WARPS,
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


@triton.jit
def _update_weights_kernel(
    weight,  # float32 [N, K], updated
    copy,  # [N, STRIDE], output
    gradient,  # [N, STRIDE]
    rate,  # float32 []
    count,  # N * K
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    CLEAR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Update BLOCK weights."""
    position = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_matrix = position < count
    padded = position // K * STRIDE + position % K
    change = tl.load(gradient + padded, mask=in_matrix, other=0.0).to(tl.float32)
    value = tl.load(weight + position, mask=in_matrix, other=0.0) - tl.load(rate) * change
    tl.store(weight + position, value, mask=in_matrix)
    tl.store(copy + padded, value.to(copy.dtype.element_ty), mask=in_matrix)
    if CLEAR:
        tl.store(gradient + padded, tl.zeros_like(change).to(gradient.dtype.element_ty), mask=in_matrix)
