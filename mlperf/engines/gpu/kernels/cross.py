"""Element-wise parts of a cross layer on the GPU: x0 * up + x and its gradients.

B samples, N values per sample. Activations are float32 or bfloat16; sums are float32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from mlperf.engines.gpu.triton_support import tiles_per_program

# 8 values per thread of 4 warps.
FORWARD_BLOCK = 1024
FORWARD_WARPS = 4

# 128 columns make the loads of a row contiguous (256 bytes in bfloat16); 16 x 128 values are 16 per thread of 4
# warps, for each of the three to six matrices.
BACKWARD_ROWS = 16
BACKWARD_COLUMNS = 128
BACKWARD_WARPS = 4


def cross_forward(
    *,
    x0: torch.Tensor,
    up: torch.Tensor,
    x: torch.Tensor,
    block: int = FORWARD_BLOCK,
    warps: int = FORWARD_WARPS,
) -> torch.Tensor:
    """Return x0 * up + x, [B, N], computed in float32 and rounded once. All arguments are [B, N]."""
    out = torch.empty_like(x)
    count = x.numel()
    _cross_forward_kernel[(triton.cdiv(count, block),)](x0, up, x, out, count, BLOCK=block, num_warps=warps)
    return out


def cross_backward(
    *,
    gradient: torch.Tensor,
    x0: torch.Tensor,
    up: torch.Tensor,
    d_x0: torch.Tensor,
    d_bias: torch.Tensor,
    overwrites: bool = False,
    adds_gradient: bool = False,
    tiles: int | None = None,
    rows: int = BACKWARD_ROWS,
    columns: int = BACKWARD_COLUMNS,
    warps: int = BACKWARD_WARPS,
) -> None:
    """Compute the gradients of `cross_forward` in one pass.

    gradient: [B, N], gradient of the output, which is also that of `x` but for the way through `up`.
    x0: [B, N], as in `cross_forward`.
    up: [B, N], as in `cross_forward`; overwritten with its gradient, gradient * x0.
    d_x0: [B, N]; gradient * up is added.
    d_bias: float32 [N], output: the sums of the columns of the gradient of `up`. The order of the additions
        depends on B only.
    overwrites: whether `d_x0` is undefined before and set instead.
    adds_gradient: whether `gradient` is added to `d_x0` too, because `x` is `x0`.
    tiles: number of tiles of `rows` samples per program instance; default depends on B.
    """
    samples, width = gradient.shape
    tiles = tiles or tiles_per_program(samples)
    grid = (triton.cdiv(samples, rows * tiles), triton.cdiv(width, columns))
    partial_sums = torch.empty(grid[0], width, device=gradient.device)
    _cross_backward_kernel[grid](
        gradient,
        x0,
        up,
        d_x0,
        partial_sums,
        samples,
        tiles,
        width,
        OVERWRITES=overwrites,
        ADDS_GRADIENT=adds_gradient,
        ROWS=rows,
        COLUMNS=columns,
        num_warps=warps,
    )
    torch.sum(partial_sums, 0, out=d_bias)


# do_not_specialize: avoid a recompilation for the smaller last batch.
@triton.jit(do_not_specialize=["count"])
def _cross_forward_kernel(
    x0,  # [B * N]
    up,  # [B * N]
    x,  # [B * N]
    out,  # [B * N], output
    count,
    BLOCK: tl.constexpr,
):
    """Process BLOCK values."""
    position = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    in_matrix = position < count
    factor = tl.load(x0 + position, mask=in_matrix, other=0.0).to(tl.float32)
    product = tl.load(up + position, mask=in_matrix, other=0.0).to(tl.float32) * factor
    value = product + tl.load(x + position, mask=in_matrix, other=0.0).to(tl.float32)
    tl.store(out + position, value.to(out.dtype.element_ty), mask=in_matrix)


@triton.jit(do_not_specialize=["samples", "tiles"])
def _cross_backward_kernel(
    gradient,  # [B, N]
    x0,  # [B, N]
    up,  # [B, N], overwritten with its gradient
    d_x0,  # [B, N], updated
    partial_sums,  # float32 [program instances, N], output
    samples,
    tiles,
    N,
    OVERWRITES: tl.constexpr,
    ADDS_GRADIENT: tl.constexpr,
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
        slope = tl.load(gradient + offset, mask=in_matrix, other=0.0).to(tl.float32)
        factor = tl.load(x0 + offset, mask=in_matrix, other=0.0).to(tl.float32)
        direct = slope * tl.load(up + offset, mask=in_matrix, other=0.0).to(tl.float32)
        if not OVERWRITES:
            direct += tl.load(d_x0 + offset, mask=in_matrix, other=0.0).to(tl.float32)
        if ADDS_GRADIENT:
            direct += slope
        tl.store(d_x0 + offset, direct.to(d_x0.dtype.element_ty), mask=in_matrix)
        d_up = (slope * factor).to(up.dtype.element_ty)
        tl.store(up + offset, d_up, mask=in_matrix)
        sums += tl.sum(d_up.to(tl.float32), axis=0)
    target = partial_sums + tl.program_id(0).to(tl.int64) * N + column
    tl.store(target, sums, mask=column < N)
