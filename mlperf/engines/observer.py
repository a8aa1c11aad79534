"""Observers of the parts of a step: the profiler and the time breakdown.

The methods of a step that are its parts are replaced by ones that tell the observer when they begin and end. A
step that is not observed spends no time on this.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from functools import wraps
from typing import Any, Protocol

import torch
from torch.profiler import record_function

READING = "reading"

# On a GPU, a profile shows the backward pass as a whole: its parts are switched in the thread that runs it.
BACKWARD_PASS = "backward pass"
LOSS_GRADIENT = "gradient of the loss"


class Observer(Protocol):
    """Is told which part of a step runs. Parts may be nested."""

    def begin(self, part: str) -> None:
        """Begin a part."""
        ...

    def end(self) -> None:
        """End the part that began last."""
        ...

    def switch(self, part: str) -> None:
        """End the part that began last, and begin another in its place."""
        ...


class Observed(Protocol):
    """A step or scorer with parts.

    ranges: the name of the part of each method; parts may be nested. observer: is told which part runs, also by
    the parts that are no methods; None: nobody is told.
    """

    observer: Observer | None

    @property
    def ranges(self) -> Mapping[str, str]:
        """The parts and their methods."""
        ...

    def batches(self, data: Any, epoch: int, first: int = 0) -> Iterator[Any]:
        """Return the batches of `epoch` from number `first` on."""
        ...


class ProfilerRanges:
    """Shows the parts as ranges in a profile of PyTorch.

    device: on a GPU, the backward pass has a thread of its own, and a range cannot end in another thread than it
    began: `switch` does nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self._switches = device.type == "cpu"
        self._open: list[record_function] = []

    def begin(self, part: str) -> None:
        """Begin a range."""
        self._open.append(record_function(part).__enter__())

    def end(self) -> None:
        """End the range that began last."""
        self._open.pop().__exit__(None, None, None)

    def switch(self, part: str) -> None:
        """End the range that began last, and begin another in its place."""
        if self._switches:
            self.end()
            self.begin(part)


def observe(target: object, parts: Mapping[str, str], observer: Observer) -> None:
    """Replace the methods of `target` that are `parts` by observed ones.

    parts: the name of the part of each method. The name of a method may be a path, such as "optimizer.step".
    """
    for path, part in parts.items():
        *owners, method = path.split(".")
        owner = target
        for name in owners:
            owner = getattr(owner, name)
        setattr(owner, method, observed(getattr(owner, method), part, observer))


def observe_step(step: Observed, observer: Observer) -> None:
    """Tell `observer` which of the parts of a step or scorer runs. Waiting for a batch is the part `READING`."""
    observe(step, step.ranges, observer)
    step.batches = _observed_iterator(step.batches, observer)  # type: ignore[method-assign]
    step.observer = observer


def observed(function: Callable[..., Any], part: str, observer: Observer) -> Callable[..., Any]:
    """Return `function` as a part."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        observer.begin(part)
        try:
            return function(*args, **kwargs)
        finally:
            observer.end()

    return call


def _observed_iterator(make: Callable[..., Iterator[Any]], observer: Observer) -> Callable[..., Iterator[Any]]:
    nothing = object()

    @wraps(make)
    def iterate(*args: Any, **kwargs: Any) -> Iterator[Any]:
        items = make(*args, **kwargs)
        try:
            while True:
                observer.begin(READING)
                try:
                    item = next(items, nothing)
                finally:
                    observer.end()
                if item is nothing:
                    return
                yield item
        finally:
            if isinstance(items, Generator):
                items.close()  # ends reading ahead

    return iterate


class BackwardParts:
    """Tells an observer from which part of the model the backward pass goes to which.

    It is one part of the step, entered with `observer.begin`, until a gradient arrives that `then` waits for.
    observer: None if nobody observes; nothing is done then.
    """

    def __init__(self, observer: Observer | None) -> None:
        self._observer = observer

    def then(self, tensor: torch.Tensor, part: str) -> None:
        """Begin `part` once the gradient of `tensor` is known."""
        observer = self._observer
        if observer is not None and tensor.requires_grad:
            tensor.register_hook(lambda gradient: observer.switch(part))
