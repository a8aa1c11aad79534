"""NumPy's legacy random generator for compiled code: the same numbers as `numpy.random.RandomState`.

MT19937 (Matsumoto and Nishimura 1998) with 53-bit doubles; normal numbers by Marsaglia's polar method, in pairs.
"""

from __future__ import annotations

import math
import threading

import numba
import numpy as np
import numpy.typing as npt

from mlperf.util.threads import raise_if_set

_LENGTH = 624
_SHIFT = 397
_NUMBERS_PER_CALL = 1 << 24  # of compiled code, which Ctrl-C cannot interrupt

# State: 624 words; [position in the words]; [1.0 if the second number of a normal pair is pending, that number].
State = tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64], npt.NDArray[np.float64]]


def state_of(stream: np.random.RandomState) -> State:
    """Return a copy of the state of a stream."""
    state = stream.get_state(legacy=False)
    assert isinstance(state, dict)
    words, position = state["state"]["key"], state["state"]["pos"]
    return words.copy(), np.array([position]), np.array([float(state["has_gauss"]), state["gauss"]])


def set_state(stream: np.random.RandomState, state: State) -> None:
    """Set the state of a stream."""
    words, position, pair = state
    stream.set_state(("MT19937", words, int(position[0]), int(pair[0]), float(pair[1])))


def copy_of(state: State) -> State:
    """Return an independent copy of a state."""
    return state[0].copy(), state[1].copy(), state[2].copy()


@numba.njit(nogil=True, cache=True, inline="always")
def _twisted(word: np.uint32, next_word: np.uint32, distant_word: np.uint32) -> np.uint32:
    bits = (word & np.uint32(0x80000000)) | (next_word & np.uint32(0x7FFFFFFF))
    return np.uint32(distant_word ^ (bits >> np.uint32(1)) ^ (np.uint32(0x9908B0DF) * (bits & np.uint32(1))))


@numba.njit(nogil=True, cache=True)
def _twist(words: npt.NDArray[np.uint32]) -> None:
    """Compute the next 624 words. Three loops avoid indices modulo the length."""
    for number in range(_LENGTH - _SHIFT):
        words[number] = _twisted(words[number], words[number + 1], words[number + _SHIFT])
    for number in range(_LENGTH - _SHIFT, _LENGTH - 1):
        words[number] = _twisted(words[number], words[number + 1], words[number + _SHIFT - _LENGTH])
    words[_LENGTH - 1] = _twisted(words[_LENGTH - 1], words[0], words[_SHIFT - 1])


@numba.njit(nogil=True, cache=True, inline="always")
def _next_word(words: npt.NDArray[np.uint32], position: npt.NDArray[np.int64]) -> np.uint32:
    if position[0] == _LENGTH:
        _twist(words)
        position[0] = 0
    position[0] += 1
    return _tempered(words[position[0] - 1])


@numba.njit(nogil=True, cache=True, inline="always")
def _tempered(word: np.uint32) -> np.uint32:
    word ^= word >> np.uint32(11)
    word ^= (word << np.uint32(7)) & np.uint32(0x9D2C5680)
    word ^= (word << np.uint32(15)) & np.uint32(0xEFC60000)
    return np.uint32(word ^ (word >> np.uint32(18)))


@numba.njit(nogil=True, cache=True, inline="always")
def uniform(words: npt.NDArray[np.uint32], position: npt.NDArray[np.int64]) -> float:
    """Return the next number of `RandomState.random_sample`."""
    high = np.int64(_next_word(words, position) >> np.uint32(5))
    low = np.int64(_next_word(words, position) >> np.uint32(6))
    return (high * 67108864.0 + low) / 9007199254740992.0


@numba.njit(nogil=True, cache=True)
def normal(words: npt.NDArray[np.uint32], position: npt.NDArray[np.int64], pair: npt.NDArray[np.float64]) -> float:
    """Return the next number of `RandomState.standard_normal`."""
    if pair[0] != 0:
        pair[0] = 0.0
        return pair[1]
    square = 0.0
    first = second = 0.0
    while square >= 1.0 or square == 0.0:
        first = 2.0 * uniform(words, position) - 1.0
        second = 2.0 * uniform(words, position) - 1.0
        square = first * first + second * second
    factor = math.sqrt(-2.0 * math.log(square) / square)
    pair[0] = 1.0
    pair[1] = factor * first
    return factor * second


def skip(state: State, count: int) -> None:
    """Skip `count` uniform numbers."""
    for start in range(0, count, _NUMBERS_PER_CALL):
        skip_at_once(state[0], state[1], min(_NUMBERS_PER_CALL, count - start))


def fill(state: State, numbers: npt.NDArray[np.float64], cancelled: threading.Event | None = None) -> None:
    """Fill a contiguous array with uniform numbers, like `RandomState.random_sample` with its shape.

    Cancelled if `cancelled` is set meanwhile.
    """
    flat = numbers.reshape(-1)
    for start in range(0, len(flat), _NUMBERS_PER_CALL):
        raise_if_set(cancelled)
        _fill(state[0], state[1], flat[start : start + _NUMBERS_PER_CALL])


@numba.njit(nogil=True, cache=True)
def skip_at_once(words: npt.NDArray[np.uint32], position: npt.NDArray[np.int64], count: int) -> None:
    """Skip `count` uniform numbers in one call."""
    remaining = 2 * count  # words
    while remaining > 0:
        if position[0] == _LENGTH:
            _twist(words)
            position[0] = 0
        step = min(remaining, _LENGTH - position[0])
        position[0] += step
        remaining -= step


@numba.njit(nogil=True, cache=True)
def _fill(words: npt.NDArray[np.uint32], position: npt.NDArray[np.int64], flat: npt.NDArray[np.float64]) -> None:
    for index in range(len(flat)):
        flat[index] = uniform(words, position)


def fill_below(state: State, limit: int, numbers: npt.NDArray[np.int32]) -> None:
    """Fill a contiguous array with integers from [0, limit), like `RandomState.randint` with its shape in int64.

    limit: from 1 to 2^31. A limit of 1 draws nothing.
    """
    flat = numbers.reshape(-1)
    if limit == 1:
        flat[:] = 0
        return
    mask = (1 << (limit - 1).bit_length()) - 1
    for start in range(0, len(flat), _NUMBERS_PER_CALL):
        part = flat[start : start + _NUMBERS_PER_CALL]
        _fill_below(state[0], state[1], np.uint32(limit - 1), np.uint32(mask), part)


@numba.njit("void(uint32[::1], int64[::1], uint32, uint32, int32[::1])", nogil=True, cache=True)
def _fill_below(
    words: npt.NDArray[np.uint32],
    position: npt.NDArray[np.int64],
    largest: np.uint32,
    mask: np.uint32,
    flat: npt.NDArray[np.int32],
) -> None:
    """Take the low bits of each word and reject those above `largest`, without a branch for the rejection."""
    tempered = np.empty(_LENGTH, np.uint32)
    filled = 0
    while filled < len(flat):
        if position[0] == _LENGTH:
            _twist(words)
            position[0] = 0
        first = position[0]
        for number in range(first, _LENGTH):
            tempered[number] = _tempered(words[number]) & mask
        number = first
        while number < _LENGTH and filled < len(flat):
            word = tempered[number]
            flat[filled] = word
            filled += word <= largest
            number += 1
        position[0] = number
