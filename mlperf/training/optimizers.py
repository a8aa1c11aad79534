"""SGD, Adagrad and row-wise Adagrad over the MLPs and the flat block of embedding rows.

R rows of all tables, D embedding dimension, L ids looked up, U distinct rows among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from mlperf.errors import RunError
from mlperf.model.dlrm import DLRM_Net
from mlperf.model.embedding.blocks import Lookup

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


class Optimizer:
    """One optimizer for the whole model, its dense part PyTorch's own.

    Usage per batch: `add(lookup)` after the backward pass; `step(rate)` when enough batches are summed.
    """

    def __init__(self, kind: str, model: DLRM_Net) -> None:
        self.kind = kind
        self.model = model
        self.rows = {block: _RowUpdater(kind, block.values) for block in model.tables.blocks}
        parameters = model.dense_parameters()
        self.dense: torch.optim.Optimizer
        if kind == "sgd":
            self.dense = torch.optim.SGD(parameters, lr=0.0)
        else:
            self.dense = torch.optim.Adagrad(parameters, lr=0.0, eps=_EPSILON)

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
        for group in self.dense.param_groups:
            group["lr"] = rate
        self.dense.step()
        self.dense.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the state in PyTorch's format, parameters numbered as in the model: tables, then MLPs."""
        numbers = self._numbers()
        state = {
            numbers[parameter]: dict(self.dense.state[parameter])
            for parameter in self.model.dense_parameters()
            if self.dense.state[parameter]
        }
        state.update({number: {self._row_key(): view} for number, view in self._row_states()})
        group = self.dense.state_dict()["param_groups"][0]
        return {"state": state, "param_groups": [{**group, "params": list(numbers.values())}]}

    def load_state_dict(self, saved: dict[str, Any], source: str) -> None:
        """Restore what `state_dict` returned. RunError if it is another optimizer's."""
        state = saved.get("state", {})
        numbers = self._numbers()
        try:
            for number, view in self._row_states():
                view.copy_(state[number][self._row_key()])
            for parameter in self.model.dense_parameters():
                for key, value in self.dense.state[parameter].items():
                    value.copy_(state[numbers[parameter]][key])
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
