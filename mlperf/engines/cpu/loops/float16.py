"""Float16 values as float32, in compiled loops.

Float16 values are handled as their bits, uint16, like bfloat16: numba has no such type on a CPU.
"""

from __future__ import annotations

import platform
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import config

from mlperf.engines.cpu.loops.intrinsics import generated


def _converts_in_hardware() -> bool:
    """Return whether the code is compiled for a CPU with an instruction that converts float16.

    Without one, LLVM calls a function of the C compiler's library, which numba does not provide.
    """
    if platform.machine().lower() in ("aarch64", "arm64"):
        return True
    chosen: Any = config
    if chosen.CPU_FEATURES is not None:  # NUMBA_CPU_FEATURES
        return "+f16c" in chosen.CPU_FEATURES.split(",")
    if chosen.CPU_NAME is not None:  # NUMBA_CPU_NAME: another CPU than this one
        return False
    return bool(llvmlite.binding.get_host_cpu_features().get("f16c"))


def _with_instruction(builder: Any, bits: Any) -> Any:
    return builder.fpext(builder.bitcast(bits, ir.HalfType()), ir.FloatType())


def _with_arithmetic(builder: Any, bits: Any) -> Any:
    """Convert with operations for which every CPU has vector instructions."""
    word, real = ir.IntType(32), ir.FloatType()
    wide = builder.zext(bits, word)
    sign = builder.shl(builder.and_(wide, word(0x8000)), word(16))
    magnitude = builder.and_(wide, word(0x7FFF))
    shifted = builder.shl(magnitude, word(13))
    normal = builder.add(shifted, word(127 - 15 << 23))  # the exponent's bias is 127 instead of 15
    # Infinities and NaN have the largest exponent of either type.
    special = builder.or_(shifted, word(0x7F800000))
    # Below 2^-14, a float16 is a multiple of 2^-24.
    multiple = builder.fmul(builder.sitofp(magnitude, real), ir.Constant(real, 2.0**-24))
    subnormal = builder.bitcast(multiple, word)
    result = builder.select(builder.icmp_unsigned(">=", magnitude, word(0x7C00)), special, normal)
    result = builder.select(builder.icmp_unsigned("<", magnitude, word(0x0400)), subnormal, result)
    return builder.bitcast(builder.or_(result, sign), real)


def _intrinsic(convert: Any) -> Any:
    """Return a function for compiled code: float16 bits as a float32."""

    def from_float16(typing: Any, bits: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return convert(builder, arguments[0])

        return types.float32(types.uint16), generate

    return generated(from_float16)


from_float16_by_arithmetic = _intrinsic(_with_arithmetic)
from_float16 = _intrinsic(_with_instruction) if _converts_in_hardware() else from_float16_by_arithmetic
