"""Interface of the optimizers, which update dense parameters from their `.grad` and tables row by row.

R rows, W values in a row, L rows read by a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn

from mlperf.models.layers.embedding.rows import Lookup, RowGradients, RowParameter
from mlperf.models.layers.embedding.shards import ShardedTable
from mlperf.optim.rounding import random_bits, round_stochastically
from mlperf.optim.saved_state import check_settings, check_structure, check_sums, check_tensors, step_count
from mlperf.registry import OPTIMIZERS, load
from mlperf.settings.training import EPSILON
from mlperf.util.errors import RunError
from mlperf.util.printable import shown_name

Fill = Callable[[Iterable[tuple[torch.Tensor, torch.Tensor]]], None]

_SHOWN_NAMES = 3
_ROUNDED_TOGETHER = 1 << 16  # rows, to limit temporary memory: a random value takes 64 bits while it is computed
_SAME_OPTIMIZER = "pass the --optimizer with which it was saved"


class Trainable(Protocol):
    """The part of a model that an optimizer uses."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return all parameters, in the order of their numbers in an optimizer's state_dict."""
        ...

    def row_parameters(self) -> Sequence[RowParameter]:
        """Return the parameters trained row by row."""
        ...

    def dense_parameters(self) -> Sequence[nn.Parameter]:
        """Return the parameters trained from their `.grad`."""
        ...

    def sharded_tables(self) -> Sequence[ShardedTable]:
        """Return the tables that are divided among the processes, which come before `parameters()`.

        Another optimizer updates them by the same rule.
        """
        ...


class Optimizer(ABC):
    """Updates the weights of a model: `add(lookup)` after each backward pass, `step(rate)` when a step is due.

    seed: of the stochastic rounding of tables in 16 bits. epsilon: Adagrad adds it to the square root of its sums.

    A subclass defines the two updates and, if it has state, returns it from `dense_state` and `row_state`. It is
    registered in mlperf.registry.OPTIMIZERS under the name used by --optimizer. torch.optim is not used because it
    imports PyTorch's compiler, which adds a second to every start.
    """

    # Float32 values of state for each weight, for each value of a table, and for each row of a table (used for the
    # memory check).
    state_per_weight = 0
    state_per_value = 0
    state_per_row = 0

    def __init__(self, model: Trainable, seed: int = 0, epsilon: float = EPSILON) -> None:
        self.row_parameters = model.row_parameters()
        self.dense_parameters = model.dense_parameters()
        self.dense_values = [parameter.data for parameter in self.dense_parameters]
        self.seed = seed
        self.epsilon = epsilon
        self.steps = 0
        self.rate = 0.0
        self.sharded_tables = model.sharded_tables()
        numbered: list[nn.Parameter | ShardedTable] = [*self.sharded_tables, *model.parameters()]
        self._numbers = {parameter: number for number, parameter in enumerate(numbered)}
        self._found: dict[RowParameter, list[RowGradients]] = {rows: [] for rows in self.row_parameters}

    @abstractmethod
    def update_rows(
        self, parameter: RowParameter, rows: torch.Tensor, gradients: torch.Tensor, rate: float
    ) -> None:
        """Update `rows` int64 [L] of `parameter` by their `gradients` [L, W]; a row may occur more than once."""

    @abstractmethod
    def update_dense(self, gradients: list[torch.Tensor], rate: float) -> None:
        """Update `dense_values` by their `gradients`, in place."""

    @abstractmethod
    def group(self) -> dict[str, Any]:
        """Return the settings that the corresponding torch.optim class saves in `param_groups`."""

    def dense_state(self) -> Iterator[tuple[nn.Parameter, dict[str, torch.Tensor]]]:
        """Yield the state tensors of each dense parameter, by their names in a state_dict."""
        return iter(())

    def row_state(self) -> Iterator[tuple[nn.Parameter | ShardedTable, dict[str, torch.Tensor]]]:
        """Yield the state tensors of each parameter trained row by row, by their names in a state_dict."""
        return iter(())

    @torch.no_grad()
    def add(self, lookup: Lookup) -> None:
        """Add the row gradients of one batch, after the backward pass has added dense gradients to `.grad`."""
        for found in lookup.gradients():
            self._found[found.parameter].append(found)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Apply all gradients added since the last step, with learning rate `rate`, and clear them."""
        for parameter, found in self._found.items():
            rows = torch.cat([one.rows for one in found])
            gradients = torch.cat([one.gradients for one in found])
            found.clear()
            self.update_rows(parameter, rows, gradients, rate)
        self.update_dense(
            [torch.zeros_like(one) if one.grad is None else one.grad for one in self.dense_parameters], rate
        )
        for dense in self.dense_parameters:
            dense.grad = None
        self.note_step(rate)

    def subtract(self, parameter: RowParameter, rows: torch.Tensor, directions: torch.Tensor, rate: float) -> None:
        """Subtract `rate` times `directions`, float32 [L, W], from `rows`, int64 [L].

        Rows in 16 bits are rounded stochastically; they may occur only once.
        """
        values = parameter.values
        if values.dtype == torch.float32:
            values.index_add_(0, rows, directions, alpha=-rate)
            return
        for some, change in zip(rows.split(_ROUNDED_TOGETHER), directions.split(_ROUNDED_TOGETHER), strict=True):
            updated = torch.sub(values[some].float(), change, alpha=rate)
            bits = random_bits(some, values.shape[1], seed=self.seed, step=self.steps)
            values[some] = round_stochastically(updated, values.dtype, bits)

    @contextmanager
    def preserved(self, rows: torch.Tensor) -> Iterator[None]:
        """Context for steps with learning rate 0 that warm up an engine: restores what they change at the end.

        They change the state of the dense parameters and of `rows`, int64 [L], and can change the sign of zeros in
        `rows`.
        """
        dense = [tensor for _, kept in self.dense_state() for tensor in kept.values()]
        before = [tensor.clone() for tensor in dense]
        tables = [*self.row_tensors(), *(parameter.values for parameter in self.row_parameters)]
        rows_before = [tensor[rows] for tensor in tables]
        try:
            yield
        finally:
            for tensor, value in zip(dense, before, strict=True):
                tensor.copy_(value)
            for tensor, value in zip(tables, rows_before, strict=True):
                tensor[rows] = value

    def row_tensors(self) -> Iterable[torch.Tensor]:
        """Return the tensors of `row_state` in whole: [R, any] for each parameter trained row by row."""
        return ()

    def continue_at(self, step: int) -> None:
        """Continue after `step` steps.

        A state for each weight has the number too, in float32, which rounds numbers from 2^24 on.
        """
        if not self.state_per_weight or self.steps == int(_float32(step)):
            self.steps = step

    def note_step(self, rate: float) -> None:
        """Count a step; called directly by engines that apply the update themselves."""
        self.steps += 1
        self.rate = rate

    def state_dict(self) -> dict[str, Any]:
        """Return the state in the format of torch.optim, with parameters numbered in the order of the model."""
        state: dict[int, dict[str, torch.Tensor]] = {}
        for parameter, kept in self.dense_state():
            state[self._numbers[parameter]] = {"step": _float32(self.steps), **kept}
        for rows, kept in self.row_state():
            state[self._numbers[rows]] = kept
        return {"state": state, "param_groups": [{**self.group(), "params": list(self._numbers.values())}]}

    def check_state_dict(self, saved: Mapping[Any, Any] | None, source: str) -> None:
        """Check everything in a `state_dict` but the elements of its tensors.

        saved: None if there is none, which suffices for an optimizer that keeps no state. RunError, naming
        `source`, if it is damaged, belongs to another optimizer or model, or if settings that change the updates
        differ.
        """
        where = f"{source}: cannot resume: opt_state_dict"
        if saved is not None:
            check_structure(saved, len(self._numbers), where)
        state = {} if saved is None else saved["state"]
        self._check_names(state, source)
        if saved is not None:
            check_settings(saved, self.group(), where)
        dense = [self._numbers[parameter] for parameter in self.dense_parameters]
        check_tensors(state, self._kept(), dense, where)

    def load_state_dict(self, saved: Mapping[Any, Any] | None, source: str, fill: Fill | None = None) -> None:
        """Restore a `state_dict`. RunError as for `check_state_dict`; the state is unchanged then.

        RunError also if an element cannot be one of a state; the state is undefined then. fill: copies the second
        tensor of each pair to the first.
        """
        self.check_state_dict(saved, source)
        if saved is None:
            return
        kept, state = self._kept(), saved["state"]
        pairs = [(own[name], state[number][name]) for number, own in kept.items() for name in own]
        if fill is not None:
            fill(pairs)
        else:
            for tensor, found in pairs:
                tensor.copy_(found)
        for number, own in kept.items():
            for name, tensor in own.items():
                check_sums(tensor, f"{source}: cannot resume: opt_state_dict.state.{number}.{name}")
        for parameter, _ in self.dense_state():
            self.steps = step_count(state[self._numbers[parameter]]["step"]) or 0

    def _kept(self) -> dict[int, dict[str, torch.Tensor]]:
        """Return the state tensors by the number of their parameter and their name."""
        return {self._numbers[parameter]: kept for parameter, kept in (*self.dense_state(), *self.row_state())}

    def _check_names(self, state: Mapping[int, Mapping[Any, Any]], source: str) -> None:
        """Raise RunError unless `state` has the tensors that this optimizer keeps for each parameter it trains."""
        kept = self._kept()
        dense = {self._numbers[parameter] for parameter, _ in self.dense_state()}
        trained: list[nn.Parameter | ShardedTable] = [*self.dense_parameters, *self.sharded_tables]
        trained += [one for rows in self.row_parameters for one in rows.parameters]
        for number in (self._numbers[parameter] for parameter in trained):
            saved = state.get(number, {})
            found = {name for name, value in saved.items() if isinstance(value, torch.Tensor)} - {"step"}
            expected = kept.get(number, {}).keys()
            if found - expected:
                names = ", ".join(sorted(shown_name(name) for name in found - expected)[:_SHOWN_NAMES])
                raise RunError(
                    f"{source}: contains the state of another optimizer than {type(self).__name__} ({names}); "
                    f"{_SAME_OPTIMIZER}"
                )
            if expected - saved.keys() or (number in dense and "step" not in saved):
                raise self._no_state(source)

    def _no_state(self, source: str) -> RunError:
        return RunError(f"{source}: contains no state of {type(self).__name__} for this model; {_SAME_OPTIMIZER}")


def sum_rows(rows: torch.Tensor, gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the distinct `rows`, int64 [U], and the sums of their gradients, float32 [U, W].

    rows: int64 [L], a row may occur more than once. gradients: float32 [L, W].
    """
    distinct, position = rows.unique(return_inverse=True)  # (U,), (L,)
    summed = gradients.new_zeros(len(distinct), gradients.shape[1])
    return distinct, summed.index_add_(0, position, gradients)


def _float32(number: int) -> torch.Tensor:
    """Return a number of steps as torch.optim saves it."""
    return torch.tensor(float(number))


def make_optimizer(name: str, model: Trainable, seed: int = 0, epsilon: float = EPSILON) -> Optimizer:
    """Return the optimizer with the --optimizer name `name`, for `model`. seed, epsilon: as for Optimizer."""
    optimizer: Optimizer = load(OPTIMIZERS[name])(model, seed, epsilon)
    return optimizer
