"""Stochastic rounding in compiled loops: the same bits as `mlperf.optim.rounding`, which defines them."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import register_jitable

from mlperf.engines.cpu.loops.intrinsics import generated
from mlperf.optim.rounding import KEY_STEPS, MULTIPLIERS, ROUNDS, VALUES_PER_CALL

_MASK = np.uint64(0xFFFFFFFF)
_HIGH = np.uint64(32)
_FIRST_MULTIPLIER, _SECOND_MULTIPLIER = map(np.uint64, MULTIPLIERS)
_FIRST_KEY_STEP, _SECOND_KEY_STEP = map(np.uint64, KEY_STEPS)

# Words of the generator for each call.
_WORDS = 4


@register_jitable
def random_words(dimension: int) -> int:
    """Return the number of uint32 that `draw` writes for a row of `dimension` values."""
    return -(-dimension // VALUES_PER_CALL) * _WORDS


@njit
def draw(words: Any, row: Any, step: Any, seed: Any) -> None:
    """Write the random words of a row to `words`, uint32 [1, random_words].

    In memory (little-endian), their 16-bit halves are in the order of the columns that take them.
    """
    for call in range(words.shape[1] // _WORDS):
        c0, c1 = np.uint64(row) & _MASK, np.uint64(row) >> _HIGH
        c2, c3 = np.uint64(call), np.uint64(step) & _MASK
        low, high = np.uint64(seed) & _MASK, np.uint64(seed) >> _HIGH
        for _ in range(ROUNDS):
            first, second = c0 * _FIRST_MULTIPLIER, c2 * _SECOND_MULTIPLIER
            c0, c1 = (second >> _HIGH) ^ c1 ^ low, second & _MASK
            c2, c3 = (first >> _HIGH) ^ c3 ^ high, first & _MASK
            low, high = (low + _FIRST_KEY_STEP) & _MASK, (high + _SECOND_KEY_STEP) & _MASK
        words[0, _WORDS * call] = np.uint32(c0)
        words[0, _WORDS * call + 1] = np.uint32(c1)
        words[0, _WORDS * call + 2] = np.uint32(c2)
        words[0, _WORDS * call + 3] = np.uint32(c3)


@generated
def round_to_bfloat16(typing: Any, value: Any, random: Any) -> Any:
    """Return a float32 as bfloat16 bits, rounded by 16 random bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(32)
        bits = builder.bitcast(arguments[0], word)
        rounded = builder.lshr(builder.add(bits, builder.zext(arguments[1], word)), word(16))
        is_nan = builder.fcmp_unordered("uno", arguments[0], arguments[0])
        return builder.trunc(builder.select(is_nan, word(0x7FC0), rounded), ir.IntType(16))

    return types.uint16(types.float32, types.uint16), generate


@generated
def round_to_float16(typing: Any, value: Any, random: Any) -> Any:
    """Return a float32 as float16 bits, rounded by 16 random bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, real = ir.IntType(32), ir.FloatType()
        random = builder.zext(arguments[1], word)
        bits = builder.bitcast(arguments[0], word)
        magnitude = builder.and_(bits, word(0x7FFFFFFF))
        # 13 bits of the fraction are cut off, and the exponent's bias is 15 instead of 127.
        cut = builder.lshr(builder.add(magnitude, builder.lshr(random, word(3))), word(13))
        normal = builder.sub(cut, word(127 - 15 << 10))
        normal = builder.select(builder.icmp_unsigned(">", normal, word(0x7C00)), word(0x7C00), normal)
        # Below 2^-14: multiples of 2^-24, and 16 bits more, whose sum with the random ones may carry.
        is_small = builder.icmp_unsigned("<", magnitude, word(127 - 14 << 23))
        small = builder.bitcast(builder.select(is_small, magnitude, word(0)), real)
        fixed = builder.fptosi(builder.fmul(small, ir.Constant(real, 2.0**40)), word)
        subnormal = builder.lshr(builder.add(fixed, random), word(16))
        result = builder.select(is_small, subnormal, normal)
        result = builder.select(builder.icmp_unsigned(">", magnitude, word(0x7F800000)), word(0x7E00), result)
        sign = builder.and_(builder.lshr(bits, word(16)), word(0x8000))
        return builder.trunc(builder.or_(result, sign), ir.IntType(16))

    return types.uint16(types.float32, types.uint16), generate
