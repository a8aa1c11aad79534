"""Streams of references with a given distribution of LRU stack distances (Hassan et al., AINA 2007).

The stack distance of a reference is its place, counted from 1 at the top, on a stack to whose top every
reference moves; 0 is a reference that was not there yet. The stack is kept as numbered slots, the latest
highest, of which a Fenwick tree counts the occupied ones: O(log n) a reference, memory linear in the distinct
references.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt

from mlperf.util.errors import RunError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StackDistances:
    """A distribution. accesses: int64 [n], what is referred to, in the order of first reference.

    distances: int64 [k], increasing, the first being 0. cumulative: float64 [k], up to 1.
    """

    accesses: IntArray
    distances: IntArray
    cumulative: FloatArray

    @classmethod
    def of_trace(cls, trace: IntArray, *, padding: bool = False) -> StackDistances:
        """Return the distribution of a trace, int64 [L] of at least one reference.

        padding: count as many new references more as an average one of the trace is referred to again, so that a
        generator comes to all of them sooner.
        """
        distinct, first, numbers = np.unique(trace, return_index=True, return_inverse=True)
        found = _profile(numbers.astype(np.int64), len(distinct))
        if padding:
            added = int(np.ceil(len(found) / max(int(found.max()), 1)))
            found = np.concatenate((found, np.zeros(added, np.int64)))
        distances, counts = np.unique(found, return_counts=True)
        return cls(trace[np.sort(first)], distances, counts.cumsum() / len(found))

    @classmethod
    def read(cls, path: Path) -> StackDistances:
        """Return the distribution in a file of three lines. RunError that names what is wrong with it."""
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(f"{path}: no distribution can be read: {error}") from None
        if len(lines) != 3:
            raise RunError(
                f"{path}: has {len(lines)} lines; allowed are three: accesses, distances, probabilities"
            )
        kinds = (("distinct accesses", np.int64), ("stack distances", np.int64), ("probabilities", np.float64))
        values = []
        for number, (line, (what, kind)) in enumerate(zip(lines, kinds, strict=True), start=1):
            try:
                values.append(np.array([kind(word) for word in line.split(",")]))
            except (ValueError, OverflowError):
                raise RunError(f"{path}: line {number}: not {what} separated by commas") from None
        accesses, distances, cumulative = values
        if len(distances) != len(cumulative):
            raise RunError(f"{path}: line 3: {len(cumulative)} probabilities for {len(distances)} distances")
        if (accesses < 0).any() or distances[0] != 0 or (np.diff(distances) <= 0).any():
            raise RunError(f"{path}: accesses must be at least 0, and distances increase from 0 on")
        if cumulative[0] <= 0 or (np.diff(cumulative) < 0).any() or abs(cumulative[-1] - 1) > 1e-6:
            raise RunError(f"{path}: line 3: cumulative probabilities must rise from above 0 to 1")
        cumulative[-1] = 1.0
        return cls(accesses, distances, cumulative)

    def text(self) -> str:
        """Return the three lines of a file."""
        return "".join(
            ", ".join(map(str, values)) + "\n"
            for values in (self.accesses.tolist(), self.distances.tolist(), self.cumulative.tolist())
        )


class TraceGenerator:
    """Draws references with the distances of a distribution, from `generator`.

    While fewer references are on the stack than a distance asks for, the distances that can be are drawn
    with their shares of the whole. Accesses that were all used start again from the first, unless `padding`:
    then only references on the stack are drawn from there on.
    """

    def __init__(self, given: StackDistances, generator: np.random.Generator, *, padding: bool = False) -> None:
        self._given = given
        self._generator = generator
        self._padding = padding
        # An access that a file names twice is one place on the stack.
        self._distinct, numbers = np.unique(given.accesses, return_inverse=True)
        self._numbers = numbers.astype(np.int64)
        self._stack = _new_stack(len(self._distinct))
        self._used = np.zeros(1, np.int64)

    def draw(self, count: int) -> IntArray:
        """Return the next `count` references, int64."""
        given = self._given
        numbers = _generate(
            self._generator.random(count),
            *self._stack,
            self._used,
            self._numbers,
            given.distances,
            given.cumulative,
            self._padding,
        )
        references: IntArray = self._distinct[numbers]
        return references


# A stack: the Fenwick tree over the slots; the slot of each reference, -1: none; the reference in each slot, -1:
# none; [the next free slot, references on the stack].
Stack = tuple[IntArray, IntArray, IntArray, IntArray]


def _new_stack(references: int) -> Stack:
    slots = 2 * references + 2
    return (
        np.zeros(slots + 1, np.int64),
        np.full(references, -1, np.int64),
        np.full(slots, -1, np.int64),
        np.zeros(2, np.int64),
    )


@numba.njit(cache=True)
def _add(tree: IntArray, slot: int, change: int) -> None:
    node = slot + 1
    while node < len(tree):
        tree[node] += change
        node += node & -node


@numba.njit(cache=True)
def _occupied_up_to(tree: IntArray, slot: int) -> int:
    count = 0
    node = slot + 1
    while node > 0:
        count += tree[node]
        node -= node & -node
    return count


@numba.njit(cache=True)
def _slot_of_rank(tree: IntArray, rank: int) -> int:
    """Return the slot of the occupied one number `rank`, from 1 at the bottom."""
    step = 1
    while 2 * step < len(tree):
        step *= 2
    node = 0
    while step > 0:
        if node + step < len(tree) and tree[node + step] < rank:
            node += step
            rank -= tree[node]
        step //= 2
    return node


@numba.njit(cache=True)
def _move_to_top(tree: IntArray, slot_of: IntArray, in_slot: IntArray, counts: IntArray, reference: int) -> None:
    old = slot_of[reference]
    if old >= 0:
        _add(tree, old, -1)
        in_slot[old] = -1
    else:
        counts[1] += 1
    if counts[0] == len(in_slot):
        # All slots were used once: close the gaps. This happens after at least n references.
        kept = 0
        for slot in range(len(in_slot)):
            if in_slot[slot] >= 0:
                moved = in_slot[slot]
                in_slot[slot] = -1
                in_slot[kept] = moved
                slot_of[moved] = kept
                kept += 1
        counts[0] = kept
        tree[:] = 0
        for slot in range(kept):
            tree[slot + 1] = 1
        for node in range(1, len(tree)):
            parent = node + (node & -node)
            if parent < len(tree):
                tree[parent] += tree[node]
    slot_of[reference] = counts[0]
    in_slot[counts[0]] = reference
    _add(tree, counts[0], 1)
    counts[0] += 1


def _profile(numbers: IntArray, references: int) -> IntArray:
    """Return the stack distance of each reference of a trace, given as numbers below `references`."""
    distances: IntArray = _distances(numbers, *_new_stack(references))
    return distances


@numba.njit(cache=True)
def _distances(
    numbers: IntArray, tree: IntArray, slot_of: IntArray, in_slot: IntArray, counts: IntArray
) -> IntArray:
    distances = np.zeros(len(numbers), np.int64)
    for place in range(len(numbers)):
        reference = numbers[place]
        if slot_of[reference] >= 0:
            distances[place] = counts[1] - _occupied_up_to(tree, slot_of[reference]) + 1
        _move_to_top(tree, slot_of, in_slot, counts, reference)
    return distances


@numba.njit(cache=True)
def _generate(
    uniform: FloatArray,
    tree: IntArray,
    slot_of: IntArray,
    in_slot: IntArray,
    counts: IntArray,
    used: IntArray,
    accesses: IntArray,
    distances: IntArray,
    cumulative: FloatArray,
    padding: bool,
) -> IntArray:
    drawn = np.empty(len(uniform), np.int64)
    for place in range(len(uniform)):
        share = uniform[place]
        if padding and used[0] >= len(accesses) and cumulative[0] < 1.0:
            share = cumulative[0] + (1.0 - cumulative[0]) * share
        if counts[1] < distances[-1]:
            reachable = np.searchsorted(distances, counts[1], side="right") - 1
            share = min(share, 1.0) * cumulative[reachable]
        distance = distances[np.searchsorted(cumulative, share)]
        if distance == 0:
            reference = accesses[used[0] % len(accesses)]
            used[0] += 1
        else:
            reference = in_slot[_slot_of_rank(tree, counts[1] - distance + 1)]
        _move_to_top(tree, slot_of, in_slot, counts, reference)
        drawn[place] = reference
    return drawn
