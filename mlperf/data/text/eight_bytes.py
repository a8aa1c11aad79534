"""Eight bytes of text at a time, in compiled loops.

A word is a little-endian uint64: the first byte of the text is its lowest.
"""

from __future__ import annotations

import numba
import numpy as np

from mlperf.data.text.blocks import Bytes
from mlperf.data.text.memory import word_at, zero_bytes

ONES = np.uint64(0x0101010101010101)  # times a byte: eight of it
_LOW_NIBBLES = np.uint64(0x0F0F0F0F0F0F0F0F)
_HIGH_BITS = np.uint64(0x8080808080808080)
_ZEROS = np.uint64(0x3030303030303030)  # eight digits 0 as text


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
    letter = (word >> np.uint64(6)) & ONES
    digit = (word & _LOW_NIBBLES) + letter * np.uint64(9)
    above_nine = ((digit + ONES * np.uint64(6)) >> np.uint64(4)) & ONES
    written = digit + ONES * np.uint64(48) + above_nine * np.uint64(39)
    good = written == (word | letter << np.uint64(5)) and digit & ~_LOW_NIBBLES == np.uint64(0)
    pairs = (digit << np.uint64(4) | digit >> np.uint64(8)) & np.uint64(0x00FF00FF00FF00FF)
    fours = (pairs << np.uint64(8) | pairs >> np.uint64(16)) & np.uint64(0x0000FFFF0000FFFF)
    return good, (fours << np.uint64(16) | fours >> np.uint64(32)) & np.uint64(0xFFFFFFFF)


@numba.njit(nogil=True, cache=True, inline="always")
def eight_decimal_digits(word: np.uint64) -> tuple[bool, np.uint64]:
    """Return whether all eight bytes are decimal digits, and their value, the first byte the highest digit."""
    digit = word ^ _ZEROS
    good = (digit | (digit + ONES * np.uint64(6))) & ~_LOW_NIBBLES == np.uint64(0)
    pairs = (digit * np.uint64(10) + (digit >> np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)
    fours = (pairs * np.uint64(100) + (pairs >> np.uint64(16))) & np.uint64(0x0000FFFF0000FFFF)
    return good, (fours * np.uint64(10000) + (fours >> np.uint64(32))) & np.uint64(0xFFFFFFFF)


@numba.njit(nogil=True, cache=True, inline="always")
def padded_digits(address: int, count: int) -> np.uint64:
    """Return the word of the `count` characters at an address, 1 to 8, with digits 0 in front of them."""
    shift = np.uint64(64 - 8 * count)
    return word_at(address) << shift | _ZEROS & ((np.uint64(1) << shift) - np.uint64(1))


@numba.njit(nogil=True, cache=True, inline="always")
def bytes_found(word: np.uint64, one: np.uint64, other: np.uint64) -> np.uint64:
    """Return a word whose lowest bit that is set is in the first byte that is one of two; 0 if there is none.

    one, other: eight times a byte. A subtraction of 1 borrows from the high bit of bytes that are 0, and of bytes
    above the first of them, which therefore alone counts.
    """
    to_one, to_other = word ^ one, word ^ other
    return ((to_one - ONES) & ~to_one | (to_other - ONES) & ~to_other) & _HIGH_BITS


@numba.njit(nogil=True, cache=True, inline="always")
def first_of_two(address: int, one: np.uint64, other: np.uint64) -> int:
    """Return the address of the first byte, from `address` on, that is one of two; there must be one.

    one, other: eight times a byte. The first 16 bytes are compared without a branch: lengths of fields vary.
    """
    found = bytes_found(word_at(address), one, other)
    next_found = bytes_found(word_at(address + 8), one, other)
    place = zero_bytes(found)
    place = place if found != np.uint64(0) else 8 + zero_bytes(next_found)
    if found | next_found == np.uint64(0):
        while found == np.uint64(0):
            address += 8
            found = bytes_found(word_at(address + 8), one, other)
        place = 8 + zero_bytes(found)
    return address + place
