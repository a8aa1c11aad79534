"""Work that some processes do while the others wait, such as preparing the data of a run.

A wait has no time limit: preparing the Terabyte data takes longer than a collective operation may. A process that
waits handles signals, and the watch (`watch.py`) ends it if another fails.
"""

from __future__ import annotations

import pickle
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from mlperf.distributed.agreement import decided_by_first, values_of_all
from mlperf.distributed.launchers import find_launch
from mlperf.distributed.processes import current
from mlperf.distributed.store import keys_of

T = TypeVar("T")

_TICK = 0.05  # seconds between two looks at a counter at first; a long wait looks once in a second
_LONG_TICK = 1.0


def first_then_others(work: Callable[[], T], reuse: Callable[[T], T | None] | None = None) -> T:
    """Return `work()` of this process: rank 0 works first, then the first process of each other node, then all.

    What `work` creates if it is missing is created once if the nodes share the folder, else once on each node.
    Every process must call it, and waits until all have worked.

    reuse: returns the result of an earlier process, sent to this one with pickle, as this one can use it; None if
    this one must work itself.
    """
    own = current()
    if own.size == 1:
        return work()
    turn = _Turn()
    if not own.is_first:
        turn.wait_for(own.nodes if own.local_rank else 1)
    result = None if reuse is None else next(filter(None, map(reuse, turn.results())), None)
    if result is None:
        result = work()
        if reuse is not None:
            turn.publish(result)
    turn.finished()
    turn.wait_for(own.size)
    return result


def once_for_each(copy: str, work: Callable[[], None]) -> None:
    """Call `work` in the first of the processes with the same `copy`, a text that identifies a copy of some data.

    Every process must call it, and waits until all have worked.
    """
    if current().size == 1:
        work()
        return
    is_first = values_of_all(copy).index(copy) == current().rank
    turn = _Turn()
    if is_first:
        work()
    turn.finished()
    turn.wait_for(current().size)


class _Turn:
    """A counter of the processes that have finished their work."""

    def __init__(self) -> None:
        launch = find_launch()
        assert launch is not None, "several processes need a launcher"
        self._name = decided_by_first(lambda: str(uuid.uuid4()))
        self._store = keys_of("turns", launch)

    def publish(self, result: object) -> None:
        """Make a result known to the processes that work later."""
        self._store.set(f"{self._name}/{current().rank}", pickle.dumps(result).hex())

    def results(self) -> Iterator[Any]:
        """Yield the published results of lower ranks."""
        for rank in range(current().rank):
            key = f"{self._name}/{rank}"
            if self._store.check([key]):
                yield pickle.loads(bytes.fromhex(self._store.get(key).decode()))

    def finished(self) -> None:
        """Count this process."""
        self._store.add(self._name, 1)

    def wait_for(self, count: int) -> None:
        """Wait until `count` processes have finished."""
        tick = _TICK
        while self._store.add(self._name, 0) < count:
            time.sleep(tick)
            tick = min(1.1 * tick, _LONG_TICK)
