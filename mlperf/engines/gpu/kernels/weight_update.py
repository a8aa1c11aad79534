"""Update of all dense weights in one launch on the GPU.

P parameters. Weights and sums are float32; the copies for the matrix products are float32 or bfloat16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from mlperf.engines.gpu.kernels.adagrad import adagrad_direction

# 8 values per thread of 4 warps.
BLOCK = 1024
WARPS = 4

_TRITON_TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16}

# Columns of the table of parameters.
_WEIGHT = tl.constexpr(0)
_COPY = tl.constexpr(1)
_GRADIENT = tl.constexpr(2)
_SQUARES = tl.constexpr(3)
_COUNT = tl.constexpr(4)
_WIDTH = tl.constexpr(5)
_STRIDE = tl.constexpr(6)
_FIRST_BLOCK = tl.constexpr(7)
_IS_ACCUMULATED = tl.constexpr(8)
_COLUMNS = tl.constexpr(9)


@dataclass(frozen=True, eq=False)
class DenseParameter:
    """A weight matrix [N, K] or a bias [N], and what its update needs.

    weight: float32, updated in place.
    gradient: float32 and accumulated by kernels, in the shape of `weight`: cleared by the update; or a product,
        [N, >= K], in the dtype of the products.
    copy: output, `weight` in the dtype of the products, [N, >= K] or [N]; None if there is none. Its extra columns
        are padding, like those of the gradient.
    squares: Adagrad's sums of squares, float32, in the shape of `weight`, updated in place; None for SGD.
    """

    weight: torch.Tensor
    gradient: torch.Tensor
    is_accumulated: bool
    copy: torch.Tensor | None
    squares: torch.Tensor | None

    @property
    def stride(self) -> int:
        """Elements between two rows of the copy and of the gradient."""
        return self.gradient.stride(0) if self.gradient.dim() == 2 else self.gradient.numel()

    @property
    def width(self) -> int:
        """K; N for a bias."""
        return self.weight.shape[-1]

    def row(self, first_block: int) -> list[int]:
        """Return the parameter's row of the table that the kernel reads."""
        return [
            self.weight.data_ptr(),
            0 if self.copy is None else self.copy.data_ptr(),
            self.gradient.data_ptr(),
            0 if self.squares is None else self.squares.data_ptr(),
            self.weight.numel(),
            self.width,
            self.stride,
            first_block,
            int(self.is_accumulated),
        ]


class WeightUpdate:
    """Updates parameters by their gradients, with SGD or Adagrad.

    dtype: of the products. epsilon: of Adagrad. The addresses of all tensors are kept: they must not be moved.
    """

    def __init__(self, parameters: Sequence[DenseParameter], dtype: torch.dtype, epsilon: float) -> None:
        device = parameters[0].weight.device
        self._parameters = parameters  # keeps the tensors alive
        self._dtype = _TRITON_TYPES[dtype]
        self._epsilon = epsilon
        self._is_adagrad = parameters[0].squares is not None
        table: list[list[int]] = []
        blocks: list[int] = []
        for number, parameter in enumerate(parameters):
            table.append(parameter.row(len(blocks)))
            blocks += [number] * triton.cdiv(parameter.weight.numel(), BLOCK)
        self._table = torch.tensor(table, device=device)  # int64 (P, columns)
        self._blocks = torch.tensor(blocks, dtype=torch.int32, device=device)

    def run(self, rate: torch.Tensor) -> None:
        """Update all parameters. rate: float32 scalar on the device."""
        _update_weights_kernel[(len(self._blocks),)](
            self._table,
            self._blocks,
            rate,
            self._epsilon,
            DTYPE=self._dtype,
            ADAGRAD=self._is_adagrad,
            BLOCK=BLOCK,
            num_warps=WARPS,
        )


@triton.jit
def _update_weights_kernel(
    table,  # int64 [P, columns], the parameters
    blocks,  # int32, the parameter of each program instance
    rate,  # float32 []
    epsilon,
    DTYPE: tl.constexpr,
    ADAGRAD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Update BLOCK weights of one parameter."""
    parameter = table + tl.load(blocks + tl.program_id(0)) * _COLUMNS
    weight = tl.load(parameter + _WEIGHT).to(tl.pointer_type(tl.float32))
    copy = tl.load(parameter + _COPY)
    gradient = tl.load(parameter + _GRADIENT)
    width = tl.load(parameter + _WIDTH).to(tl.int32)
    stride = tl.load(parameter + _STRIDE).to(tl.int32)
    block = tl.program_id(0) - tl.load(parameter + _FIRST_BLOCK).to(tl.int32)
    position = block * BLOCK + tl.arange(0, BLOCK)
    in_matrix = position < tl.load(parameter + _COUNT)
    padded = position // width * stride + position % width
    if tl.load(parameter + _IS_ACCUMULATED) != 0:
        source = gradient.to(tl.pointer_type(tl.float32)) + padded
        change = tl.load(source, mask=in_matrix, other=0.0)
        tl.store(source, tl.zeros_like(change), mask=in_matrix)
    else:
        change = tl.load(gradient.to(tl.pointer_type(DTYPE)) + padded, mask=in_matrix, other=0.0).to(tl.float32)
    if ADAGRAD:
        target = tl.load(parameter + _SQUARES).to(tl.pointer_type(tl.float32)) + position
        squares = tl.load(target, mask=in_matrix, other=0.0) + change * change
        tl.store(target, squares, mask=in_matrix)
        change = adagrad_direction(change, squares, epsilon)
    value = tl.load(weight + position, mask=in_matrix, other=0.0) - tl.load(rate) * change
    tl.store(weight + position, value, mask=in_matrix)
    if copy != 0:
        tl.store(copy.to(tl.pointer_type(DTYPE)) + padded, value.to(DTYPE), mask=in_matrix)
