"""SGD, Adagrad and row-wise Adagrad over the MLPs and the flat block of embedding rows.

R rows of all tables, D embedding dimension, L ids looked up, U distinct rows among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.embedding.blocks import Lookup
from mlperf.util.errors import RunError

KINDS = ("sgd", "adagrad", "rwsadagrad")
_EPSILON = 1e-10


class _RowUpdater:
    """Updates the rows of one block [R, W] that a batch touched; the others have no gradient and stay."""

    def __init__(self, kind: str, block: torch.Tensor) -> None:
        self.kind = kind
        self.block = block
        # Adagrad accumulates squares per value, row-wise Adagrad their mean per row.
        width = {"sgd": 0, "adagrad": block.shape[1], "rwsadagrad": 1}[kind]
        self.accumulator = block.new_zeros(len(block), width)
        self.gradients: list[tuple[torch.Tensor, torch.Tensor]] = []

    def add(self, rows: torch.Tensor, gradients: torch.Tensor) -> None:
        """Note gradients [L, W] of `rows` [L] for the next step; a row may occur any number of times."""
        self.gradients.append((rows, gradients))

    def step(self, rate: float) -> None:
        rows = torch.cat([rows for rows, _ in self.gradients])
        gradients = torch.cat([gradients for _, gradients in self.gradients])
        self.gradients.clear()
        if self.kind == "sgd":
            self.block.index_add_(0, rows, gradients, alpha=-rate)
            return
        distinct, position = rows.unique(return_inverse=True)
        summed = gradients.new_zeros(len(distinct), gradients.shape[1])  # (U, W)
        summed.index_add_(0, position, gradients)
        squares = summed.square()
        if self.kind == "rwsadagrad":
            squares = squares.mean(1, keepdim=True)
        squares += self.accumulator[distinct]
        self.accumulator[distinct] = squares
        self.block.index_add_(0, distinct, summed / (squares.sqrt() + _EPSILON), alpha=-rate)


class _DenseUpdater:
    """Updates the parameters of the MLPs from their `.grad`, as torch.optim does.

    It is ours because torch.optim brings in PyTorch's compiler, a second of every start.
    """

    def __init__(self, kind: str, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.parameters = parameters
        self._values = [parameter.data for parameter in parameters]
        self.sums = [] if kind == "sgd" else [torch.zeros_like(parameter.data) for parameter in parameters]
        self.steps = 0
        self.rate = 0.0

    def step(self, rate: float) -> None:
        gradients = [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for parameter in self.parameters
        ]
        if self.sums:
            torch._foreach_addcmul_(self.sums, gradients, gradients, 1.0)
            roots = torch._foreach_sqrt(self.sums)
            torch._foreach_add_(roots, _EPSILON)
            torch._foreach_addcdiv_(self._values, gradients, roots, -rate)
        else:
            torch._foreach_add_(self._values, gradients, alpha=-rate)
        for parameter in self.parameters:
            parameter.grad = None
        self.note_step(rate)

    def note_step(self, rate: float) -> None:
        """Count a step."""
        self.steps += 1
        self.rate = rate

    def states(self) -> Iterator[tuple[torch.nn.Parameter, dict[str, torch.Tensor]]]:
        """Yield what Adagrad remembers of each parameter, as torch.optim.Adagrad has it."""
        for parameter, squares in zip(self.parameters, self.sums, strict=False):
            yield parameter, {"step": torch.tensor(float(self.steps)), "sum": squares}

    def group(self) -> dict[str, Any]:
        """Return the settings of torch.optim's class that does the same."""
        if self.sums:
            return {
                "lr": self.rate,
                "lr_decay": 0,
                "eps": _EPSILON,
                "weight_decay": 0,
                "initial_accumulator_value": 0,
            }
        return {"lr": self.rate, "momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False}


class Optimizer:
    """One optimizer for the whole model.

    Usage per batch: `add(lookup)` after the backward pass; `step(rate)` when enough batches are summed.
    """

    def __init__(self, kind: str, model: DLRM_Net) -> None:
        self.kind = kind
        self.model = model
        self.rows = {block: _RowUpdater(kind, block.values) for block in model.tables.blocks}
        self.dense = _DenseUpdater(kind, model.dense_parameters())

    @torch.no_grad()
    def add(self, lookup: Lookup) -> None:
        """Add the gradients of one batch; those of the MLPs are summed in `.grad` by the backward pass."""
        for found in lookup.gradients():
            self.rows[found.block].add(found.rows, found.gradients)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Apply all gradients added since the last step, with learning rate `rate`."""
        for updater in self.rows.values():
            updater.step(rate)
        self.dense.step(rate)

    def note_step(self, rate: float) -> None:
        """Note a step of SGD that was taken elsewhere."""
        self.dense.note_step(rate)

    def state_dict(self) -> dict[str, Any]:
        """Return the state in PyTorch's format, parameters numbered as in the model: tables, then MLPs."""
        numbers = self._numbers()
        state = {numbers[parameter]: state for parameter, state in self.dense.states()}
        state.update({number: {self._row_key(): view} for number, view in self._row_states()})
        return {"state": state, "param_groups": [{**self.dense.group(), "params": list(numbers.values())}]}

    def load_state_dict(self, saved: dict[str, Any], source: str) -> None:
        """Restore what `state_dict` returned. RunError if it is another optimizer's."""
        state = saved.get("state", {})
        numbers = self._numbers()
        try:
            for number, view in self._row_states():
                view.copy_(state[number][self._row_key()])
            for parameter, own in self.dense.states():
                own["sum"].copy_(state[numbers[parameter]]["sum"])
                self.dense.steps = int(state[numbers[parameter]]["step"])
        except (KeyError, RuntimeError) as error:
            raise RunError(
                f"{source}: holds no state of --optimizer={self.kind} for this model; continue with the "
                "optimizer it was saved with"
            ) from error

    def _row_key(self) -> str:
        return "momentum" if self.kind == "rwsadagrad" else "sum"

    def _numbers(self) -> dict[torch.nn.Parameter, int]:
        return {parameter: number for number, parameter in enumerate(self.model.parameters())}

    def _row_states(self) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield the number in the state_dict and the accumulator of each parameter that is trained by rows."""
        if self.kind == "sgd":
            return
        numbers = self._numbers()
        for block, updater in self.rows.items():
            sizes = [len(parameter) for parameter in block.parameters]
            for parameter, view in zip(block.parameters, updater.accumulator.split(sizes), strict=True):
                per_value = self.kind == "adagrad" and parameter.dim() > 1
                yield numbers[parameter], view if per_value else view.squeeze(1)
