"""Eight bytes of text at a time, in compiled loops."""

from __future__ import annotations

import numba
import numpy as np

from mlperf.data.text.blocks import Bytes

_BYTES = np.uint64(0x0101010101010101)
_LOW_NIBBLES = np.uint64(0x0F0F0F0F0F0F0F0F)


@numba.njit(nogil=True, cache=True, inline="always")
def eight_bytes(text: Bytes, position: np.uint64) -> np.uint64:
    """Read a little-endian word, which compiles to one load. Unsigned indices need no check for negative ones."""
    word = np.uint64(text[position])
    word |= np.uint64(text[position + np.uint64(1)]) << np.uint64(8)
    word |= np.uint64(text[position + np.uint64(2)]) << np.uint64(16)
    word |= np.uint64(text[position + np.uint64(3)]) << np.uint64(24)
    word |= np.uint64(text[position + np.uint64(4)]) << np.uint64(32)
    word |= np.uint64(text[position + np.uint64(5)]) << np.uint64(40)
    word |= np.uint64(text[position + np.uint64(6)]) << np.uint64(48)
    return word | np.uint64(text[position + np.uint64(7)]) << np.uint64(56)


@numba.njit(nogil=True, cache=True, inline="always")
def eight_digits(word: np.uint64) -> tuple[bool, np.uint64]:
    """Return whether all eight bytes are hexadecimal digits, and their value, the first byte the highest digit.

    The value of a digit is its low nibble, plus 9 for a letter, which has bit 6 set. The bytes are digits if these
    values, written as digits with letters in lower case, give the same bytes again.
    """
    letter = (word >> np.uint64(6)) & _BYTES
    digit = (word & _LOW_NIBBLES) + letter * np.uint64(9)
    above_nine = ((digit + _BYTES * np.uint64(6)) >> np.uint64(4)) & _BYTES
    written = digit + _BYTES * np.uint64(48) + above_nine * np.uint64(39)
    good = written == (word | letter << np.uint64(5)) and digit & ~_LOW_NIBBLES == np.uint64(0)
    pairs = (digit << np.uint64(4) | digit >> np.uint64(8)) & np.uint64(0x00FF00FF00FF00FF)
    fours = (pairs << np.uint64(8) | pairs >> np.uint64(16)) & np.uint64(0x0000FFFF0000FFFF)
    return good, (fours << np.uint64(16) | fours >> np.uint64(32)) & np.uint64(0xFFFFFFFF)
