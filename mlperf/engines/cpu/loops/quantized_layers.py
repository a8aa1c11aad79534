"""Around the matrix products of layers in 8 bits: to codes, and back to values with bias and ReLU.

B samples, N values of a row, C codes of a row, which are N rounded up to whole groups. Codes, scales and offsets
are those of `codes`. A product is the int32 sum of the products of codes of values and of weights. With
column_sums[n], the sum of the weights of output n, an output is

    weight_scale * scale * product + offset * column_sums[n] + bias[n].
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import carray, njit

from mlperf.engines.cpu.loops.codes import write_codes
from mlperf.engines.cpu.loops.intrinsics import FAST, float32_array, int8_array, int32_array, share, thread
from mlperf.engines.cpu.loops.parallel import Address, Arguments, Integer, ParallelLoop, Real, arguments


@arguments
class Encode(Arguments):
    """Arguments of `encode`."""

    values: Address  # float32 [B, N]
    codes: Address  # int8 [B, C], written
    scales: Address  # float32 [B, 2], written: scale and offset
    samples: Integer  # B
    width: Integer  # N
    stride: Integer  # C


def _encode(pointer: Any) -> None:
    args = carray(pointer, 1)[0]
    samples, width = args.samples, args.width
    values, scales = float32_array(args.values, samples, width), float32_array(args.scales, samples, 2)
    codes = int8_array(args.codes, samples, args.stride)
    start, stop = share(samples)
    for sample in range(start, stop):
        scale, offset = write_codes(values[sample], codes[sample], width)
        scales[sample, 0] = scale
        scales[sample, 1] = offset


@cache
def encode() -> ParallelLoop[Encode]:
    """Return the loop that writes the codes of float32 values."""
    return ParallelLoop(_encode, Encode)


@arguments
class Decode(Arguments):
    """Arguments of `decode` and `decode_crossed`.

    If `codes` is not 0, the outputs become codes. `decode` then needs only one row of `values` for each thread;
    `decode_crossed` always writes both.
    """

    products: Address  # int32 [B, N]
    scales: Address  # float32 [B, 2], of the inputs of the layer
    column_sums: Address  # float32 [N]
    bias: Address  # float32 [N]
    values: Address  # float32 [B, N], written
    codes: Address  # int8 [B, C], written, or 0
    new_scales: Address  # float32 [B, 2], written with the codes
    x0: Address  # float32 [B, N], input of a cross network; used by `decode_crossed` only
    x: Address  # float32 [B, N], input of its layer; used by `decode_crossed` only
    weight_scale: Real
    samples: Integer  # B
    width: Integer  # N
    stride: Integer  # C
    relu: Integer  # whether a ReLU follows; not used by `decode_crossed`


@njit(fastmath=FAST)
def _decode_row(
    products: Any, scale: Any, offset: Any, column_sums: Any, bias: Any, relu: Any, values: Any
) -> None:
    if relu:
        for column in range(len(values)):
            value = scale * np.float32(products[column])
            value += offset * column_sums[column] + bias[column]
            values[column] = np.float32(0) if value < 0 else value  # a NaN stays a NaN
    else:
        for column in range(len(values)):
            value = scale * np.float32(products[column])
            values[column] = value + (offset * column_sums[column] + bias[column])


def _decode(pointer: Any) -> None:
    args = carray(pointer, 1)[0]
    samples, width = args.samples, args.width
    products, scales = int32_array(args.products, samples, width), float32_array(args.scales, samples, 2)
    column_sums, bias = float32_array(args.column_sums, 1, width), float32_array(args.bias, 1, width)
    values, new_scales = float32_array(args.values, samples, width), float32_array(args.new_scales, samples, 2)
    codes = int8_array(args.codes, samples, args.stride)
    relu = args.relu != 0
    start, stop = share(samples)
    for sample in range(start, stop):
        row = values[thread() if args.codes else sample]
        scale, offset = np.float32(args.weight_scale) * scales[sample, 0], scales[sample, 1]
        _decode_row(products[sample], scale, offset, column_sums[0], bias[0], relu, row)
        if args.codes:
            scale, offset = write_codes(row, codes[sample], width)
            new_scales[sample, 0] = scale
            new_scales[sample, 1] = offset


@cache
def decode() -> ParallelLoop[Decode]:
    """Return the loop that computes the outputs of a linear layer from its products."""
    return ParallelLoop(_decode, Decode)


@njit(fastmath=FAST)
def _decode_crossed_row(
    products: Any,
    scale: Any,
    offset: Any,
    column_sums: Any,
    bias: Any,
    x0: Any,
    x: Any,
    values: Any,
) -> None:
    for column in range(len(values)):
        up = scale * np.float32(products[column])
        up += offset * column_sums[column] + bias[column]
        values[column] = x0[column] * up + x[column]


def _decode_crossed(pointer: Any) -> None:
    args = carray(pointer, 1)[0]
    samples, width = args.samples, args.width
    products, scales = int32_array(args.products, samples, width), float32_array(args.scales, samples, 2)
    column_sums, bias = float32_array(args.column_sums, 1, width), float32_array(args.bias, 1, width)
    values, new_scales = float32_array(args.values, samples, width), float32_array(args.new_scales, samples, 2)
    x0, x = float32_array(args.x0, samples, width), float32_array(args.x, samples, width)
    codes = int8_array(args.codes, samples, args.stride)
    start, stop = share(samples)
    for sample in range(start, stop):
        scale, offset = np.float32(args.weight_scale) * scales[sample, 0], scales[sample, 1]
        _decode_crossed_row(
            products[sample],
            scale,
            offset,
            column_sums[0],
            bias[0],
            x0[sample],
            x[sample],
            values[sample],
        )
        scale, offset = write_codes(values[sample], codes[sample], width)
        new_scales[sample, 0] = scale
        new_scales[sample, 1] = offset


@cache
def decode_crossed() -> ParallelLoop[Decode]:
    """Return the loop that computes the outputs of a layer of a cross network, x0 * up + x, from those of up."""
    return ParallelLoop(_decode_crossed, Decode)
