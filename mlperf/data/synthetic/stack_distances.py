"""Traces of references with a given distribution of LRU stack distances (Hassan et al., AINA 2007).

Every reference moves to the top of a stack. Its stack distance is its position before that, counted from 1 at the
top, or 0 if it was not on the stack. The stack is stored in numbered slots, the most recent reference in the last
one, and a Fenwick tree counts the occupied slots: O(log n) for each reference, memory linear in the number of
distinct references.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt

from mlperf.util.errors import RunError
from mlperf.util.files import read_regular
from mlperf.util.threads import raise_if_set

_REFERENCES_PER_CALL = 1 << 16  # of compiled code, which Ctrl-C cannot interrupt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StackDistances:
    """A distribution of stack distances.

    accesses: int64 [n], the distinct references in order of first appearance.
    distances: int64 [k], increasing from 0.
    cumulative: float64 [k], probability of a distance up to each of `distances`; the last is 1.
    """

    accesses: IntArray
    distances: IntArray
    cumulative: FloatArray

    @classmethod
    def of_trace(cls, trace: IntArray, *, padding: bool = False) -> StackDistances:
        """Return the distribution of a trace, int64 [L], L at least 1.

        padding: count L / (largest distance) additional new references, so that a generator reaches all references
            sooner.
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
        """Read a distribution from a file of three lines. RunError naming the line if it is invalid."""
        try:
            lines = read_regular(path, allow_pipes=True).decode().splitlines()
        except OSError as error:
            raise RunError(f"{path}: cannot read a distribution: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise RunError(f"{path}: cannot read a distribution: {error}") from None
        if len(lines) != 3:
            raise RunError(f"{path}: has {len(lines)} lines; expected 3: accesses, distances, probabilities")
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
        # A NaN meets no condition.
        if not (cumulative[0] > 0 and (np.diff(cumulative) >= 0).all() and abs(cumulative[-1] - 1) <= 1e-6):
            raise RunError(f"{path}: line 3: cumulative probabilities must rise from above 0 to 1")
        cumulative[-1] = 1.0
        return cls(accesses, distances, cumulative)

    def text(self) -> str:
        """Return the three lines of a distribution file."""
        return "".join(
            ", ".join(map(str, values)) + "\n"
            for values in (self.accesses.tolist(), self.distances.tolist(), self.cumulative.tolist())
        )


class TraceGenerator:
    """Draws references whose stack distances follow a distribution.

    Distances larger than the stack are excluded, and the remaining probabilities are renormalized. When all
    accesses have been used, they start again from the first or, with `padding`, only references on the stack are
    drawn from then on.
    """

    def __init__(
        self, distribution: StackDistances, generator: np.random.Generator, *, padding: bool = False
    ) -> None:
        self._distribution = distribution
        self._generator = generator
        self._padding = padding
        # An access that is listed twice has one position on the stack.
        self._distinct, numbers = np.unique(distribution.accesses, return_inverse=True)
        self._numbers = numbers.astype(np.int64)
        self._stack = _new_stack(len(self._distinct))
        self._used = np.zeros(1, np.int64)

    def draw(self, count: int, cancelled: threading.Event | None = None) -> IntArray:
        """Return the next `count` references, int64. Cancelled if `cancelled` is set meanwhile."""
        distribution = self._distribution
        references = np.empty(count, np.int64)
        for start in range(0, count, _REFERENCES_PER_CALL):
            raise_if_set(cancelled)
            part = references[start : start + _REFERENCES_PER_CALL]
            numbers = _generate(
                self._generator.random(len(part)),
                *self._stack,
                self._used,
                self._numbers,
                distribution.distances,
                distribution.cumulative,
                self._padding,
            )
            part[:] = self._distinct[numbers]
        return references


# A stack: the Fenwick tree over the slots; the slot of each reference, or -1; the reference in each slot, or -1;
# [next free slot, number of references on the stack].
Stack = tuple[IntArray, IntArray, IntArray, IntArray]


def _new_stack(references: int) -> Stack:
    slots = 2 * references + 2
    return (
        np.zeros(slots + 1, np.int64),
        np.full(references, -1, np.int64),
        np.full(slots, -1, np.int64),
        np.zeros(2, np.int64),
    )


@numba.njit(nogil=True, cache=True)
def _add(tree: IntArray, slot: int, change: int) -> None:
    """Add `change` to the count of a slot."""
    node = slot + 1
    while node < len(tree):
        tree[node] += change
        node += node & -node


@numba.njit(nogil=True, cache=True)
def _occupied_up_to(tree: IntArray, slot: int) -> int:
    """Return the number of occupied slots up to and including `slot`."""
    count = 0
    node = slot + 1
    while node > 0:
        count += tree[node]
        node -= node & -node
    return count


@numba.njit(nogil=True, cache=True)
def _slot_of_rank(tree: IntArray, rank: int) -> int:
    """Return the occupied slot with the given rank, counted from 1 at the lowest slot."""
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


@numba.njit(nogil=True, cache=True)
def _move_to_top(tree: IntArray, slot_of: IntArray, in_slot: IntArray, counts: IntArray, reference: int) -> None:
    """Move a reference to the next free slot, which is the top of the stack."""
    old = slot_of[reference]
    if old >= 0:
        _add(tree, old, -1)
        in_slot[old] = -1
    else:
        counts[1] += 1
    if counts[0] == len(in_slot):
        # All slots have been used: close the gaps. At least n references are drawn between two compactions.
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
    """Return the stack distance of each reference of a trace of numbers below `references`."""
    distances, stack = np.zeros(len(numbers), np.int64), _new_stack(references)
    for start in range(0, len(numbers), _REFERENCES_PER_CALL):
        part = slice(start, start + _REFERENCES_PER_CALL)
        _find_distances(numbers[part], *stack, distances[part])
    return distances


@numba.njit(nogil=True, cache=True)
def _find_distances(
    numbers: IntArray, tree: IntArray, slot_of: IntArray, in_slot: IntArray, counts: IntArray, distances: IntArray
) -> None:
    """Set the stack distances of the next references of a trace; those of first references stay 0."""
    for index in range(len(numbers)):
        reference = numbers[index]
        if slot_of[reference] >= 0:
            distances[index] = counts[1] - _occupied_up_to(tree, slot_of[reference]) + 1
        _move_to_top(tree, slot_of, in_slot, counts, reference)


@numba.njit(nogil=True, cache=True)
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
    for index in range(len(uniform)):
        probability = uniform[index]
        if padding and used[0] >= len(accesses) and cumulative[0] < 1.0:
            probability = cumulative[0] + (1.0 - cumulative[0]) * probability
        if counts[1] < distances[-1]:
            reachable = np.searchsorted(distances, counts[1], side="right") - 1
            probability = min(probability, 1.0) * cumulative[reachable]
        distance = distances[np.searchsorted(cumulative, probability)]
        if distance == 0:
            reference = accesses[used[0] % len(accesses)]
            used[0] += 1
        else:
            reference = in_slot[_slot_of_rank(tree, counts[1] - distance + 1)]
        _move_to_top(tree, slot_of, in_slot, counts, reference)
        drawn[index] = reference
    return drawn
