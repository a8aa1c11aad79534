"""XXH64, the hash of words, in compiled code.

Source: Yann Collet, "xxHash fast digest algorithm", version 0.1.1, section "XXH64 Algorithm Description".
"""

from __future__ import annotations

import numba
import numpy as np

from mlperf.data.text.memory import byte_at, chosen, word_at
from mlperf.util.compiled_sources import compiled_with

_PRIME_1 = np.uint64(0x9E3779B185EBCA87)
_PRIME_2 = np.uint64(0xC2B2AE3D27D4EB4F)
_PRIME_3 = np.uint64(0x165667B19E3779F9)
_PRIME_4 = np.uint64(0x85EBCA77C2B2AE63)
_PRIME_5 = np.uint64(0x27D4EB2F165667C5)


@numba.njit(nogil=True, cache=True, inline="always")
def _rotated(value: np.uint64, bits: int) -> np.uint64:
    return value << np.uint64(bits) | value >> np.uint64(64 - bits)


@numba.njit(nogil=True, cache=True, inline="always")
def _round(accumulator: np.uint64, lane: np.uint64) -> np.uint64:
    return _rotated(accumulator + lane * _PRIME_2, 31) * _PRIME_1


@numba.njit(nogil=True, cache=True, inline="always")
def _merged(accumulator: np.uint64, other: np.uint64) -> np.uint64:
    return (accumulator ^ _round(np.uint64(0), other)) * _PRIME_1 + _PRIME_4


@numba.njit(nogil=True, cache=True, inline="always")
def _stripes(begin: int, end: int) -> np.uint64:
    """Return the hash of the whole stripes of 32 bytes, before the rest is added."""
    first, second = _PRIME_1 + _PRIME_2, _PRIME_2
    third, fourth = np.uint64(0), np.uint64(0) - _PRIME_1
    while end - begin >= 32:
        first = _round(first, word_at(begin))
        second = _round(second, word_at(begin + 8))
        third = _round(third, word_at(begin + 16))
        fourth = _round(fourth, word_at(begin + 24))
        begin += 32
    value = _rotated(first, 1) + _rotated(second, 7) + _rotated(third, 12) + _rotated(fourth, 18)
    return _merged(_merged(_merged(_merged(value, first), second), third), fourth)


@numba.njit(nogil=True, cache=True, inline="always")
def _with_word(value: np.uint64, address: int) -> np.uint64:
    return _rotated(value ^ _round(np.uint64(0), word_at(address)), 27) * _PRIME_1 + _PRIME_4


@numba.njit(nogil=True, cache=True)
@compiled_with("mlperf.data.columns", "mlperf.data.text")
def word_hash(begin: int, end: int) -> np.uint64:
    """Return XXH64 with seed 0 of the bytes from address `begin` to `end`, which is excluded."""
    value = _stripes(begin, end) if end - begin >= 32 else _PRIME_5
    value += np.uint64(end - begin)
    begin += (end - begin) & ~31
    while end - begin >= 16:
        value = _with_word(value, begin)
        begin += 8
    # The rest without branches, because lengths of words vary: up to 8 bytes after the word are read.
    rest = end - begin
    value = chosen(rest >= 8, _with_word(value, begin), value)
    begin += rest & 8
    half = word_at(begin) & np.uint64(0xFFFFFFFF)
    with_half = _rotated(value ^ half * _PRIME_1, 23) * _PRIME_2 + _PRIME_3
    value = chosen(rest & 4 != 0, with_half, value)
    begin += rest & 4
    for place in range(3):
        with_byte = _rotated(value ^ np.uint64(byte_at(begin + place)) * _PRIME_5, 11) * _PRIME_1
        value = chosen(place < rest & 3, with_byte, value)
    value = (value ^ value >> np.uint64(33)) * _PRIME_2
    value = (value ^ value >> np.uint64(29)) * _PRIME_3
    return value ^ value >> np.uint64(32)
