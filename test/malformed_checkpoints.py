"""Contents that PyTorch saves without complaint, but that are not those of a checkpoint from which a run resumes.

Each differs from `well_formed` in one place, some in two.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from dlrm_models import make_model

from mlperf.optim.optimizer import make_optimizer

OPTIMIZERS = ("sgd", "adagrad", "rwsadagrad")
BATCHES, BATCH_SIZE, SEED = 5, 10, 9  # of the run that saved `well_formed`, which accumulates no gradients

# Changes contents in place.
Change = Callable[[dict[str, Any]], object]

_WHOLE_NUMBERS = (
    *("epoch", "iter", "nbatches", "nepochs", "nbatches_test"),
    *("continuation.step", "continuation.samples", "continuation.seed"),
)
_REAL_NUMBERS = (
    *("train_loss", "total_loss", "test_acc", "test_auc"),
    *("continuation.best_accuracy", "continuation.best_auc"),
)
_FRACTIONS = tuple(name for name in _REAL_NUMBERS if "loss" not in name)
_MAPPINGS = ("state_dict", "opt_state_dict", "opt_state_dict.state", "continuation", "model_flags")
_CONTROLS = "\x1b]0;owned\x07\x1b[2J\r\n\x9b\u202e"

_OF_NO_ENTRY: dict[str, Any] = {
    "None": None,
    "text": "x",
    "empty text": "",
    "digits": "3",
    "control characters": _CONTROLS,
    "long text": "x" * 1_000_000,
    "bytes": b"\xff",
    "a list": [1],
    "an empty list": [],
    "a tuple": (1, 2),
    "a dict": {"a": 1},
    "a dict of a dict": {"a": {"b": {"c": [1, {"d": None}]}}},
    "a tensor": torch.tensor(1),
    "a tensor of two": torch.tensor([1.0, 2.0]),
    "an empty tensor": torch.zeros(0),
    "a complex number": np.complex128(1 + 2j),
}
_NO_NUMBER: dict[str, Any] = {"True": True, "False": np.bool_(False), **_OF_NO_ENTRY}
_NO_WHOLE_NUMBER: dict[str, Any] = {
    **_NO_NUMBER,
    **{str(number)[:20]: number for number in (-1, -(1 << 63), 1 << 63, 1 << 70, 10**400)},
    **{str(number): number for number in (0.5, 3.0, -3.0, 1e300, math.nan, math.inf, -math.inf)},
    "a scalar of NumPy with a fraction": np.float64(0.5),
    "a negative scalar of NumPy": np.int64(-1),
    "a large scalar of NumPy": np.uint64(1 << 63),
    "a tensor of -1": torch.tensor(-1),
    "a tensor of a fraction": torch.tensor(0.5),
}
_NO_REAL_NUMBER: dict[str, Any] = {
    **_NO_NUMBER,
    **{str(number)[:20]: number for number in (-2.0, -1e-9, math.inf, 10**400, 1e39)},
    "an infinite scalar of NumPy": np.float32(math.inf),
}
_NO_MAPPING: dict[str, Any] = {
    **{name: value for name, value in _NO_NUMBER.items() if not name.startswith("a dict")},
    "0": 0,
    "a dict with a number as key": {1: 2},
}
_NO_FLAG: dict[str, Any] = {
    name: value for name, value in _NO_NUMBER.items() if name not in ("None", "digits", "empty text")
}


def _overlapping(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor of the same shape whose rows overlap, in a storage of the same size."""
    return tensor.reshape(-1).as_strided(tensor.shape, (1,) * tensor.dim())


def _in_larger_storage(tensor: torch.Tensor) -> torch.Tensor:
    """Return one row or value, expanded to the shape of `tensor`, in a storage with enough elements."""
    return torch.ones(2 * tensor.numel() + 2)[:1].expand(tensor.shape)


_OTHER_TYPES = (
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.float64, torch.float16),
    *(torch.bfloat16, torch.complex64, torch.complex128, torch.float8_e4m3fn),
)
_WRONG_TENSORS: dict[str, Callable[[torch.Tensor], Any]] = {
    **{str(dtype).removeprefix("torch."): partial(torch.Tensor.to, dtype=dtype) for dtype in _OTHER_TYPES},
    "a scalar": lambda tensor: torch.tensor(0.5),
    "of one value": lambda tensor: torch.full((1,), 0.5) if tensor.numel() > 1 else torch.zeros(2),
    "of one row": lambda tensor: torch.full((1, *tensor.shape[1:]), 0.5) if len(tensor) > 1 else tensor[:0],
    "of one more dimension": lambda tensor: torch.full((1, *tensor.shape), 0.5),
    "of one column more": lambda tensor: torch.full((*tensor.shape, 1), 0.5),
    "empty": lambda tensor: tensor[:0].clone(),
    "a row short": lambda tensor: tensor[:-1].clone(),
    "a row long": lambda tensor: torch.cat([tensor, tensor[:1]]),
    "expanded to terabytes": lambda tensor: torch.zeros(1, 4).expand(1 << 40, 4),
    "one value, expanded": lambda tensor: torch.full((1,), 0.5).expand(*tensor.shape[:-1], 1 + tensor.shape[-1]),
    "on the meta device": lambda tensor: tensor.to("meta"),
    "negated without being computed": lambda tensor: torch._neg_view(-tensor),
    "conjugated without being computed": lambda tensor: tensor.to(torch.complex64).conj(),
    "NaN": lambda tensor: torch.where(torch.arange(tensor.numel()).view(tensor.shape) == 0, math.nan, tensor),
    "infinite": lambda tensor: torch.where(torch.arange(tensor.numel()).view(tensor.shape) == 0, math.inf, tensor),
    "sparse": lambda tensor: tensor.to_sparse(),
    "sparse by rows": lambda tensor: tensor.reshape(len(tensor), -1).to_sparse_csr(),
    "quantized": lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
    "a buffer": lambda tensor: torch.nn.Buffer(tensor[:-1].clone()),
    "a list": lambda tensor: tensor.tolist(),
    "in a list": lambda tensor: [tensor],
    "in a dict": lambda tensor: {"a": tensor},
    "None": lambda tensor: None,
    "text": lambda tensor: _CONTROLS,
    "a number": lambda tensor: 0.5,
}
# Only of tensors with several rows: those of one row are what they seem.
_WRONG_VIEWS = {"one value of a larger storage, expanded": _in_larger_storage}
_WRONG_MATRICES = {"with overlapping rows": _overlapping, **_WRONG_VIEWS}

_NAMES: dict[str, Any] = {
    "a number": 3,
    "empty": "",
    "of control characters": _CONTROLS,
    "of a million characters": "x" * 1_000_000,
    "of two lines": "a\nTraceback (most recent call last):\nb",
    "a path": "../../etc/passwd",
    "an attribute": "__class__",
    "with a prefix": "module.emb_l.0.weight",
    "not Unicode": "\ud800",
}


def well_formed(optimizer: str) -> dict[str, Any]:
    """Return the contents of a checkpoint of `make_model()` and an optimizer after batch 3 of the third epoch."""
    model = make_model()
    state = make_optimizer(optimizer, model).state_dict()
    for entries in state["state"].values():
        for name, value in entries.items():
            entries[name] = torch.tensor(13.0) if name == "step" else value + 0.5
    return {
        "epoch": 2,
        "nepochs": 4,
        "nbatches": BATCHES,
        "nbatches_test": 6,
        "state_dict": {name: value.clone() for name, value in model.state_dict().items()},
        "iter": 3,
        "train_loss": 0.5,
        "total_loss": 0.0,
        "test_acc": 0.75,
        "test_auc": np.float64(0.8),
        "opt_state_dict": state,
        "continuation": {
            "seed": SEED,
            "shuffled": True,
            "step": 13,
            "samples": 130,
            "best_accuracy": 0.75,
            "best_auc": 0.875,
        },
        "model_flags": {"--optimizer": optimizer, "--loss-threshold": "0.0", "--arch-interaction-itself": None},
    }


def malformed(seed: int, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield `count` distinct malformed contents with their names, which begin with the name of the optimizer.

    First come the contents with one change, in an order drawn from `seed`, then those with two changes.
    """
    draw = random.Random(seed)
    single = [(optimizer, name, change) for optimizer in OPTIMIZERS for name, change in _changes(optimizer)]
    draw.shuffle(single)
    for optimizer, name, change in single[:count]:
        yield f"{optimizer}: {name}", _changed(optimizer, change)
    seen: set[tuple[str, str]] = set()
    while len(seen) < count - len(single):
        optimizer, name, change = draw.choice(single)
        other, other_name, second = draw.choice(single)
        if optimizer == other and name != other_name and (name, other_name) not in seen:
            try:
                contents = _changed(optimizer, change, second)
            except (LookupError, TypeError, AttributeError, RuntimeError):  # no second change after the first
                continue
            seen.add((name, other_name))
            yield f"{optimizer}: {name}; {other_name}", contents


def number_of_single_changes() -> int:
    """Return how many malformed contents have one change."""
    return sum(1 for optimizer in OPTIMIZERS for _ in _changes(optimizer))


def _changed(optimizer: str, *changes: Change) -> dict[str, Any]:
    contents = well_formed(optimizer)
    for change in changes:
        change(contents)
    return contents


def _changes(optimizer: str) -> Iterator[tuple[str, Change]]:
    """Yield all changes of contents with this optimizer. Those of numbers and flags do not depend on it."""
    if optimizer == "adagrad":
        yield from _changes_of_entries()
    state = well_formed(optimizer)["opt_state_dict"]["state"]
    weights = well_formed(optimizer)["state_dict"]
    paths: list[tuple[Any, ...]] = [("state_dict", name) for name in weights] if optimizer == "sgd" else []
    paths += [("opt_state_dict", "state", number, name) for number in state for name in state[number]]
    for path in paths:
        if path[-1] == "step":
            yield from ((f"{_join(path)} is {name}", _set(path, value)) for name, value in _NO_STEP.items())
            continue
        tensor = _at(well_formed(optimizer), path)
        views = {} if len(tensor) == 1 else _WRONG_VIEWS if tensor.dim() == 1 else _WRONG_MATRICES
        wrong = {**_WRONG_TENSORS, **views}
        if path[0] == "opt_state_dict":
            wrong["negative"] = torch.Tensor.neg
        for name, change in wrong.items():
            yield f"{_join(path)} is {name}", _apply(path, change)
    if optimizer != "sgd":
        yield from _changes_of_optimizer(state)


def _changes_of_entries() -> Iterator[tuple[str, Change]]:
    for names, values in (
        (_WHOLE_NUMBERS, _NO_WHOLE_NUMBER),
        (_REAL_NUMBERS, _NO_REAL_NUMBER),
        (_FRACTIONS, {"more than 1": 1.5}),
        (_MAPPINGS, _NO_MAPPING),
        (("continuation.shuffled",), {**_OF_NO_ENTRY, "2": 2, "0": 0, "a real number": 0.5}),
        (("model_flags.--optimizer", "model_flags.--loss-threshold"), _NO_FLAG),
        (("continuation.step",), {"ahead": 14, "behind": 12, "0": 0}),
        (("continuation.samples",), {"too many": 131, "too few": 100, "0": 0}),
        (("continuation.seed",), {"beyond 32 bits": 1 << 32}),
        (("epoch",), {"the number of epochs": 4}),
        (("iter",), {"beyond the epoch": BATCHES + 1, "0": 0}),
        (("nbatches",), {"0": 0}),
    ):
        for name, (label, value) in itertools.product(names, values.items()):
            yield f"{name} is {label}", _set(tuple(name.split(".")), value)
    for label, name in _NAMES.items():
        for where in ((), ("state_dict",), ("continuation",), ("model_flags",)):
            yield f"{_join(where)} also has a name {label}", _set((*where, name), "x")
        for path in (("state_dict", "emb_l.0.weight"), ("state_dict", "top_l.2.bias"), ("continuation", "seed")):
            yield f"{_join(path)} has the name {label}", _rename(path, name)
    for name in ("epoch", "iter", "nbatches", "state_dict", "opt_state_dict"):
        yield f"{name} is missing", _remove((name,))
    for name in ("seed", "step", "samples", "best_accuracy", "best_auc"):
        yield f"continuation.{name} is missing", _remove(("continuation", name))


# The number of steps is a scalar or, in files of some versions of PyTorch, a tensor.
_NO_STEP: dict[str, Any] = {
    name: value
    for name, value in {
        **_NO_WHOLE_NUMBER,
        "a complex tensor": torch.tensor(13j),
        "wrong": torch.tensor(3.0),
    }.items()
    if name not in ("3.0", "a tensor")
}


def _changes_of_optimizer(state: dict[int, dict[str, torch.Tensor]]) -> Iterator[tuple[str, Change]]:
    groups = ("opt_state_dict", "param_groups")
    count = len(state)
    group = well_formed("adagrad")["opt_state_dict"]["param_groups"][0]
    for label, params in {
        **{"duplicates": [*range(count), 0], "a number too many": [*range(count + 1)], "empty": []},
        **{"a number too few": [*range(count - 1)], "reversed": [*range(count)][::-1], "None": None, "text": "x"},
        **{"from 1": [*range(1, count + 1)], "negative": [*range(-1, count - 1)], "a tensor": torch.arange(count)},
        **{"with True": [0, True, *range(2, count)], "real numbers": [float(number) for number in range(count)]},
        "huge": [1 << 70] * count,
    }.items():
        yield f"{_join(groups)}.params is {label}", _set((*groups, 0, "params"), params)
    for label, value in {
        **{"a dict": group, "empty": [], "None": None, "numbers": [1, 2], "text": "x", "a number": 3},
        **{"twice the same": [group, group], "without params": [{"lr": 0.1}], "of lists": [[]]},
    }.items():
        yield f"{_join(groups)} is {label}", _set(groups, value)
    for name, value in (("weight_decay", 0.1), ("eps", 1.0), ("lr_decay", 0.5), ("maximize", True), ("eps", "x")):
        yield f"{_join(groups)}.{name} is {value}", _set((*groups, 0, name), value)
    for number in (0, count - 1):
        path = ("opt_state_dict", "state", number)
        yield f"{_join(path)} is missing", _remove(path)
        for label, value in {**_OF_NO_ENTRY, "a number": 1, "empty": {}}.items():
            yield f"{_join(path)} is {label}", _set(path, value)
        kept = next(name for name in state[number] if name != "step")
        for label, name in _NAMES.items():
            yield f"{_join((*path, kept))} has the name {label}", _rename((*path, kept), name)
            yield f"{_join(path)} also has a name {label}", _set((*path, name), torch.zeros(2))
    for key in (count, -1, "0", 1 << 62):
        yield f"opt_state_dict.state also has {key!r}", _set(("opt_state_dict", "state", key), dict(state[0]))
    for label, name in _NAMES.items():
        yield f"opt_state_dict also has a name {label}", _set(("opt_state_dict", name), "x")
    for name in ("state", "param_groups"):
        yield f"opt_state_dict.{name} is missing", _remove(("opt_state_dict", name))


def _join(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path)) or "the checkpoint"


def _at(contents: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        contents = contents[key]
    return contents


def _set(path: tuple[Any, ...], value: Any) -> Change:
    def change(contents: dict[str, Any]) -> None:
        _at(contents, path[:-1])[path[-1]] = value

    return change


def _apply(path: tuple[Any, ...], function: Callable[[torch.Tensor], Any]) -> Change:
    def change(contents: dict[str, Any]) -> None:
        _at(contents, path[:-1])[path[-1]] = function(_at(contents, path))

    return change


def _remove(path: tuple[Any, ...]) -> Change:
    def change(contents: dict[str, Any]) -> None:
        del _at(contents, path[:-1])[path[-1]]

    return change


def _rename(path: tuple[Any, ...], name: Any) -> Change:
    def change(contents: dict[str, Any]) -> None:
        holder = _at(contents, path[:-1])
        holder[name] = holder.pop(path[-1])

    return change
