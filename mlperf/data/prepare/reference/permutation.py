"""The permutation of NumPy's legacy shuffle, as the new position of each row.

`numpy.random.seed(seed); numpy.random.shuffle(rows)` exchanges row i = n - 1, n - 2, ..., 1 with row j, drawn
uniformly from 0 to i: 32 random bits at a time, of which as many are kept as i has, until the value is at most i.
The draws do not depend on what is shuffled, so the positions alone can be shuffled, with 4 bytes per row.
"""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np
import numpy.typing as npt

from mlperf.util.progress import Progress
from mlperf.util.threads import Threads

Positions = npt.NDArray[np.uint32]

MAX_ROWS = 1 << 32  # numbers are uint32; with more rows the legacy generator draws 64 bits at a time
_DRAWS_AT_ONCE = 1 << 20
PIECE_ROWS = 1 << 28  # rows of the inverse in memory, 1 GiB


def shuffled_rows(rows: int, seed: int) -> Positions:
    """Return which row comes to each position, uint32 [rows]; equal to shuffling numpy.arange(rows).

    rows: 1 to 2^32.
    """
    order = np.arange(rows, dtype=np.uint32)
    stream = np.random.RandomState(seed)
    accepted = np.empty(_DRAWS_AT_ONCE, np.uint32)
    progress = Progress("computing the permutation", order.nbytes)
    last = rows - 1  # the positions after it are final
    while last > 0:
        draws = stream.randint(0, 1 << 32, _DRAWS_AT_ONCE, np.uint32)
        exchanged = _exchange(order, last, draws, accepted)
        last -= exchanged
        progress.add(4 * exchanged, exchanged)
    progress.close()
    return order


@numba.njit("int64(uint32[::1], int64, uint32[::1], uint32[::1])", nogil=True, cache=True)
def _exchange(order: Positions, last: int, draws: Positions, accepted: Positions) -> int:
    """Exchange the rows at positions `last`, `last` - 1, ... with drawn ones; return the number of exchanges.

    The first loop only collects the draws that are not rejected: without branches in between, the second one can
    wait for several exchanges far apart in memory at a time.
    """
    count, position = 0, np.uint32(last)
    mask = np.uint32(0)
    while mask < position:
        mask = np.uint32(mask << np.uint32(1) | np.uint32(1))
    for draw in draws:
        if position == 0:
            break
        value = draw & mask
        accepted[count] = value
        if value <= position:
            count += 1
            position -= np.uint32(1)
            if position <= mask >> np.uint32(1):
                mask >>= np.uint32(1)
    for number in range(count):
        other = accepted[number]
        row = order[last - number]
        order[last - number] = order[other]
        order[other] = row
    return count


def inverse_pieces(order: Positions, threads: int, piece_rows: int = PIECE_ROWS) -> Iterator[Positions]:
    """Yield the position of each row, uint32, in pieces of up to `piece_rows` rows, which the next one overwrites.

    Each piece takes a pass over `order`, so that random writes stay within it.
    """
    piece = np.empty(min(piece_rows, len(order)), np.uint32)
    bounds = np.linspace(0, len(order), threads + 1).astype(np.int64)
    with Threads(threads) as pool:
        for first in range(0, len(order), len(piece)):
            part = piece[: len(order) - first]

            def invert(thread: int, first: int = first, part: Positions = part) -> None:
                _invert(order, bounds[thread], bounds[thread + 1], first, part)

            list(pool.map(invert, range(threads)))
            yield part


@numba.njit("(uint32[::1], int64, int64, int64, uint32[::1])", nogil=True, cache=True)
def _invert(order: Positions, start: int, stop: int, first_row: int, positions: Positions) -> None:
    """Store the positions from `start` to `stop` of the rows `first_row` to `first_row` + len(positions)."""
    first, rows = np.uint32(first_row), np.uint64(len(positions))
    for position in range(start, stop):
        row = np.uint32(order[position] - first)  # of smaller rows, more than 2^31
        if row < rows:
            positions[row] = np.uint32(position)
