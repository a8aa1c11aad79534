"""The natural logarithm in float32 as NumPy computes it on x86 CPUs with AVX2 or AVX-512, to the bit, on any CPU.

NumPy computes ln(x) = ln(m) + k ln(2), x = 2^k m, with a rational function of m - 1 and fused multiply-adds (its
loops_exponent_log). The result is up to 4 units in the last place off, and on CPUs without AVX2 NumPy calls the C
library, which differs in 4 % of the integers up to 2^20. So `np.log` cannot be used to reproduce files.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic

# Coefficients of NumPy's approximation of ln(1 + x), sqrt(1/2) - 1 < x <= sqrt(2) - 1: numerator and denominator.
_P1, _P2, _P3, _P4, _P5 = map(
    np.float32, (1.0, 2.112677543073053, 1.4800006335765065, 0.3808837741388408, 0.02589979117907923)
)
_Q1, _Q2, _Q3, _Q4, _Q5 = map(
    np.float32,
    (2.6126775430731092, 2.4530060717847364, 0.986494295851942, 0.15464763749839067, 0.005875095403124574),
)
_ZERO, _ONE = np.float32(0), np.float32(1)
_LN2, _SQRT_HALF = np.float32(0.6931471805599453), np.float32(0.7071067811865476)
_generated: Any = intrinsic  # numba's type hints do not know the arguments of the compiled function
_MANTISSA_BITS, _HALF_BITS = np.uint32(0x7FFFFF), np.uint32(126 << 23)


@_generated
def _fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a * b + c, rounded once. Where the CPU has no such instruction, the C library computes it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


@_generated
def float_bits(typing_context: Any, value: Any) -> Any:
    """Return the bits of a float32 as uint32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.uint32))

    return types.uint32(types.float32), generate


@_generated
def _float_of_bits(typing_context: Any, bits: Any) -> Any:
    """Return the float32 with the bits of a uint32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), generate


@numba.njit("float32(float32)", nogil=True, cache=True, inline="always")
def natural_logarithm(value: np.float32) -> np.float32:
    """Return ln(value) for a normal, positive float32."""
    bits = float_bits(value)
    exponent = np.float32(np.int32(bits >> np.uint32(23)) - np.int32(126))
    x = _float_of_bits((bits & _MANTISSA_BITS) | _HALF_BITS)  # in [1/2, 1)
    if x <= _SQRT_HALF:
        x += x
        exponent -= _ONE
    x -= _ONE
    numerator = _fma(_fma(_fma(_fma(_P5, x, _P4), x, _P3), x, _P2), x, _P1)
    numerator = _fma(numerator, x, _ZERO)
    denominator = _fma(_fma(_fma(_fma(_fma(_Q5, x, _Q4), x, _Q3), x, _Q2), x, _Q1), x, _ONE)
    return np.float32(_fma(exponent, _LN2, numerator / denominator))
