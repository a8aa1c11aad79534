"""Checkpoints that PyTorch reads without complaint, but whose contents cannot be those of a checkpoint.

Each must be refused in one line, or give what the well-formed one gives: an entry that is not used, or a value
that can be converted without loss, harms nothing.
"""

from __future__ import annotations

import io
import math
import os
import random
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hostile.checkpoints import attack_with, undamaged
from hostile.materials import Checkpoint, golden_checkpoint, own_checkpoint, prepared_data
from hostile.oracle import Outcome
from hostile.pool import Case, Server
from hostile.tensors import TENSORS

# Changes the contents in place, or returns others.
Change = Callable[[dict[str, Any]], object]

_WHOLE_NUMBERS = ("epoch", "iter", "nbatches", "continuation.step", "continuation.samples", "continuation.seed")
_REAL_NUMBERS = ("train_loss", "test_acc", "test_auc", "continuation.best_accuracy", "continuation.best_auc")
_MAPPINGS = ("state_dict", "opt_state_dict", "continuation", "model_flags")


class RunsCode:
    """Creates a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("witness",)


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def _doubled(depth: int) -> list[Any]:
    """A few bytes in a file, but 2 ** depth items for whoever visits all of them."""
    value: list[Any] = [0]
    for _ in range(depth):
        value = [value, value]
    return value


def _cycle() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


_OF_NO_FIELD: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "text": lambda: "x",
    "text with control characters": lambda: "\x1b]0;owned\x07\x1b[2J",
    "long text": lambda: "x" * 1_000_000,
    "bytes": lambda: b"\xff",
    "a list": lambda: [1],
    "an empty list": list,
    "a tuple": lambda: (1, 2),
    "a dict": lambda: {"a": 1},
    "a dict of numbers": lambda: {1: 2},
    "a set": lambda: {1},
    "a complex number": lambda: 1 + 2j,
    "two numbers": lambda: torch.tensor([1.0, 2.0]),
    "a meta tensor": lambda: torch.zeros(2, device="meta"),
    "a sparse tensor": lambda: torch.eye(3).to_sparse(),
    "an array": lambda: np.zeros(3),
    "a cycle": _cycle,
    "200 levels": lambda: _nested(200),
    "2 ** 60 items": lambda: _doubled(60),
    "code": RunsCode,
    "a function": lambda: os.getcwd,
    "a class": lambda: Path,
    "a module": lambda: torch.nn.Linear(2, 2),
}
_NO_WHOLE_NUMBER: dict[str, Callable[[], Any]] = {
    **{str(number): partial(int, number) for number in (-1, -(2**63), 2**63, 2**70, 10**400)},
    **{str(number): partial(float, number) for number in (0.5, math.nan, math.inf, -math.inf, -3.0, 1e300)},
    "half as a scalar": lambda: np.float64(0.5),
    "half as a tensor": lambda: torch.tensor(0.5),
    "minus one as a tensor": lambda: torch.tensor(-1),
}
_NO_REAL_NUMBER: dict[str, Callable[[], Any]] = {
    "10 ** 400": lambda: 10**400,
    "infinity": lambda: math.inf,
    "minus two": lambda: -2.0,
    "a complex tensor": lambda: torch.tensor(1j),
}


def changes() -> Iterator[tuple[str, Change]]:
    """Yield all changes with their names."""
    fields = (
        (_WHOLE_NUMBERS, {**_OF_NO_FIELD, **_NO_WHOLE_NUMBER}),
        (_REAL_NUMBERS, {**_OF_NO_FIELD, **_NO_REAL_NUMBER}),
        (_MAPPINGS, {**_OF_NO_FIELD, "zero": lambda: 0, "yes": lambda: True}),
        (("continuation.shuffled",), {**_OF_NO_FIELD, "two": lambda: 2, "a real number": lambda: 0.5}),
        (("model_flags.--activation-function", "model_flags.--loss-threshold"), {**_OF_NO_FIELD, "1": lambda: 1}),
    )
    for names, values in fields:
        for name in names:
            for label, make in values.items():
                yield f"{name} is {label}", partial(_set, name, make)
    for label, change in TENSORS.items():
        for where in ("state_dict", "opt_state_dict"):
            yield f"a tensor of {where} is {label}", partial(_change_tensor, where, change)
    for label, name in _NAMES.items():
        for where in ("", "state_dict", "opt_state_dict", "continuation", "model_flags"):
            yield f"a name in {where or 'the checkpoint'} is {label}", partial(_rename, where, name)
            yield f"another name in {where or 'the checkpoint'} is {label}", partial(_add, where, name)
    for key in ("epoch", "iter", "nbatches", "state_dict", "opt_state_dict"):
        yield f"{key} is missing", partial(_remove, key)
    for label, make in {**_OF_NO_FIELD, "an optimizer": _an_optimizer}.items():
        yield f"the checkpoint is {label}", lambda contents, make=make: make()  # type: ignore[misc]
    yield "the checkpoint is ordered", OrderedDict
    yield "the checkpoint has defaults", lambda contents: defaultdict(int, contents)


_NAMES: dict[str, Any] = {
    "a number": 3,
    "None": None,
    "a tuple": ("a", "b"),
    "bytes": b"weight",
    "empty": "",
    "of control characters": "\x1b[31m\x00\r\n\x9b",
    "of a million characters": "x" * 1_000_000,
    "of two lines": "a\nTraceback (most recent call last):\nb",
    "a path": "../../etc/passwd",
    "an attribute": "__class__",
    "a module's": "module.emb_l.0.weight",
    "not Unicode": "\ud800",
}


def cases(count: int, seed: int, folder: Path, server: Server) -> Iterator[Case]:
    """Yield `count` cases; some are saved in PyTorch's older format."""
    data = prepared_data(folder, server)
    files = [own_checkpoint(name, folder, data, server) for name in ("adagrad", "rwsadagrad")]
    files.append(golden_checkpoint(data))
    expected = {file.name: undamaged(file, folder, server) for file in files}
    every = list(changes())
    random.Random(seed).shuffle(every)
    for number in range(count):
        draw = random.Random(f"{seed}/{number}")
        name, change = every[number % len(every)]
        file = draw.choice(files[: 2 if "continuation" in name or "model_flags" in name or "opt_" in name else 3])
        run = partial(_attack, file, change, draw.random() < 0.2, draw.randrange(1000), expected[file.name])
        yield Case("malformed contents", f"{number}: {file.name}, {name}", run)


def _attack(
    file: Checkpoint, change: Change, legacy: bool, index: int, expected: Outcome, server: Server, folder: Path
) -> str:
    saved = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of prototypes in PyTorch
        contents = torch.load(file.path, weights_only=False)
        contents["_index"] = index  # of the tensor or name that is changed
        other = change(contents)
        contents.pop("_index", None)
        torch.save(contents if other is None else other, saved, _use_new_zipfile_serialization=not legacy)
    return attack_with(file, saved.getvalue(), expected, server, folder)


def _an_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)


def _within(contents: dict[str, Any], path: str) -> dict[Any, Any]:
    """Return the mapping at a path such as "continuation", the contents themselves for ""."""
    found: dict[Any, Any] = contents[path] if path else contents
    return found


def _set(name: str, make: Callable[[], Any], contents: dict[str, Any]) -> None:
    where, _, key = name.rpartition(".")
    _within(contents, where)[key] = make()


def _remove(key: str, contents: dict[str, Any]) -> None:
    del contents[key]


def _change_tensor(where: str, change: Callable[[torch.Tensor], Any], contents: dict[str, Any]) -> None:
    holders = list(_tensor_holders(contents[where]))
    if holders:
        holder, key = holders[contents["_index"] % len(holders)]
        holder[key] = change(holder[key])


def _tensor_holders(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the containers below `value` that hold a tensor, with its key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if isinstance(item, torch.Tensor):
            yield value, key
        yield from _tensor_holders(item)


def _rename(where: str, name: Any, contents: dict[str, Any]) -> None:
    mapping = _within(contents, where)
    if names := [key for key in mapping if key not in ("_index", "continuation", "model_flags")]:
        mapping[name] = mapping.pop(names[contents["_index"] % len(names)])


def _add(where: str, name: Any, contents: dict[str, Any]) -> None:
    _within(contents, where)[name] = torch.zeros(2) if "state_dict" in where else "x"
