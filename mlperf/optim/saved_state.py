"""Check of a saved state of an optimizer, in the format of torch.optim, before any of it is used."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch

from mlperf.util.divided_tensor import range_here
from mlperf.util.errors import RunError
from mlperf.util.printable import shown, shown_name
from mlperf.util.tensors import difference, is_plain

# Settings of the classes of torch.optim that change the updates. The others are the learning rate, which the
# schedule gives, initial values, and the choice of an implementation.
_DECISIVE = ("momentum", "weight_decay", "nesterov", "lr_decay", "eps", "maximize")
_MAX_STEPS = 1 << 53  # float64 represents all whole numbers up to here


def check_structure(saved: Mapping[Any, Any], parameters: int, where: str) -> None:
    """Check that `saved` has a state for some of the parameters 0 to `parameters` - 1, and groups of all of them.

    RunError, beginning with `where`.
    """
    for name in saved:
        if name not in ("state", "param_groups"):
            raise RunError(f"{where} has the unknown entry {shown_name(name)}")
    state, groups = saved.get("state"), saved.get("param_groups")
    if not isinstance(state, dict):
        raise RunError(f"{where}.state is {shown(state)}, must be a dict")
    for number, entries in state.items():
        if type(number) is not int or not 0 <= number < parameters:
            raise RunError(
                f"{where}.state has an entry {shown(number)}; the parameters have numbers from 0 to "
                f"{parameters - 1}"
            )
        if not isinstance(entries, dict):
            raise RunError(f"{where}.state.{number} is {shown(entries)}, must be a dict")
    if not isinstance(groups, list) or not groups or not all(isinstance(group, dict) for group in groups):
        raise RunError(f"{where}.param_groups is {shown(groups)}, must be a list of dicts")
    numbers: list[Any] = []
    for group in groups:
        if not isinstance(group.get("params"), list):
            raise RunError(f"{where}.param_groups: params is {shown(group.get('params'))}, must be a list")
        numbers += group["params"]
    if any(type(number) is not int for number in numbers) or numbers != list(range(parameters)):
        raise RunError(
            f"{where}.param_groups has the parameters {shown(numbers)}, must have the numbers from 0 to "
            f"{parameters - 1} in this order"
        )


def check_settings(saved: Mapping[Any, Any], own: Mapping[str, Any], where: str) -> None:
    """Raise RunError, beginning with `where`, if settings that change the updates differ from the `own` ones."""
    for group in saved["param_groups"]:
        for name in _DECISIVE:
            value, expected = group.get(name, own.get(name, 0)), own.get(name, 0)
            if not isinstance(value, bool | int | float) or value != expected:
                raise RunError(f"{where}.param_groups: {name} is {shown(value)}, this optimizer uses {expected}")


def check_tensors(
    state: Mapping[int, Mapping[Any, Any]],
    expected: Mapping[int, Mapping[str, torch.Tensor]],
    dense: Collection[int],
    where: str,
) -> None:
    """Check the saved tensors against those that the optimizer keeps: `expected`, by parameter and name.

    dense: numbers of the parameters whose steps are counted; their counts must be equal. RunError, beginning with
    `where`.
    """
    steps: set[int] = set()
    for number, entries in state.items():
        tensors = expected.get(number, {})
        for name, value in entries.items():
            place = f"{where}.state.{number}.{shown_name(name)}"
            if name == "step":
                count = step_count(value)
                if count is None:
                    raise RunError(f"{place} is {shown(value)}, must be a whole number from 0 to {_MAX_STEPS}")
                steps |= {count} if number in dense else set()
            elif name in tensors:
                found = difference(value, tensors[name])
                if found is not None:
                    raise RunError(f"{place} {found}")
            elif value is not None:
                raise RunError(f"{place} is {shown(value)}, which this optimizer does not keep")
    if len(steps) > 1:
        raise RunError(f"{where}.state has different numbers of steps: {', '.join(map(str, sorted(steps)[:5]))}")


def check_sums(sums: torch.Tensor, where: str) -> None:
    """Raise RunError, beginning with `where`, unless the values, sums of squares, are finite and not negative."""
    low, high = range_here(sums)
    if not (low >= 0 and high < math.inf):
        raise RunError(f"{where} has negative or infinite values or NaN, which sums of squares cannot be")


def step_count(value: object) -> int | None:
    """Return a number of steps, which may be a tensor without dimensions. None if it is no whole number >= 0."""
    if isinstance(value, torch.Tensor):
        if not is_plain(value) or value.dim() or value.is_complex() or value.dtype == torch.bool:
            return None
        value = value.item()
        if isinstance(value, float) and value.is_integer():
            value = int(value)
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not 0 <= int(value) <= _MAX_STEPS:
        return None
    return int(value)
