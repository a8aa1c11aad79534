"""SGD, Adagrad and row-wise Adagrad over the MLPs and the flat block of embedding rows.

R rows of all tables, D embedding dimension, L ids looked up, U distinct rows among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from mlperf.errors import RunError
from mlperf.model.dlrm import DLRM_Net
from mlperf.model.embedding.tables import Lookup

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
        self.tables = _RowUpdater(kind, model.tables.weight)
        self.learns_pooling = model.architecture.weighted_pooling == "learned"
        pooling = model.tables.pooling_weight
        self.pooling = _RowUpdater(kind, pooling) if self.learns_pooling and pooling is not None else None
        parameters = model.dense_parameters()
        self.dense: torch.optim.Optimizer
        if kind == "sgd":
            self.dense = torch.optim.SGD(parameters, lr=0.0)
        else:
            self.dense = torch.optim.Adagrad(parameters, lr=0.0, eps=_EPSILON)

    @torch.no_grad()
    def add(self, lookup: Lookup) -> None:
        """Add the gradients of one batch; those of the MLPs are summed in `.grad` by the backward pass."""
        gradients = lookup.row_gradients()  # (L, D)
        weight = self.model.tables.pooling_weight
        if weight is not None:
            if self.pooling is not None:
                rows = self.model.tables.weight.index_select(0, lookup.rows)
                self.pooling.add(lookup.rows, (gradients * rows).sum(1, keepdim=True))
            gradients = gradients * weight.index_select(0, lookup.rows)
        self.tables.add(lookup.rows, gradients)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Apply all gradients added since the last step, with learning rate `rate`."""
        self.tables.step(rate)
        if self.pooling is not None:
            self.pooling.step(rate)
        for group in self.dense.param_groups:
            group["lr"] = rate
        self.dense.step()
        self.dense.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the state in PyTorch's format, parameters numbered as in the model: tables, then MLPs."""
        dense = self.dense.state_dict()
        first_dense = self._first_dense_number()
        state = {first_dense + number: value for number, value in dense["state"].items()}
        state.update({number: {self._row_key(): view} for number, view in self._row_states()})
        group = dense["param_groups"][0]
        count = first_dense + len(group["params"])
        return {"state": state, "param_groups": [{**group, "params": list(range(count))}]}

    def load_state_dict(self, saved: dict[str, Any], source: str) -> None:
        """Restore what `state_dict` returned. RunError if it is another optimizer's."""
        state = saved.get("state", {})
        first_dense = self._first_dense_number()
        try:
            for number, view in self._row_states():
                view.copy_(state[number][self._row_key()])
            for number, parameter in enumerate(self.model.dense_parameters()):
                for key, value in self.dense.state[parameter].items():
                    value.copy_(state[first_dense + number][key])
        except (KeyError, RuntimeError) as error:
            raise RunError(
                f"{source}: holds no state of --optimizer={self.kind} for this model; continue with the "
                "optimizer it was saved with"
            ) from error

    def _row_key(self) -> str:
        return "momentum" if self.kind == "rwsadagrad" else "sum"

    def _first_dense_number(self) -> int:
        tables = len(self.model.tables.rows_per_table)
        return tables if self.model.tables.pooling_weight is None else 2 * tables

    def _row_states(self) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield the number in the state_dict and the accumulator of each table, then of pooling weights."""
        if self.kind == "sgd":
            return
        sizes = self.model.tables.rows_per_table
        for number, view in enumerate(self.tables.accumulator.split(sizes)):
            yield number, view.squeeze(1) if self.kind == "rwsadagrad" else view
        if self.pooling is not None:
            for number, view in enumerate(self.pooling.accumulator.split(sizes), len(sizes)):
                yield number, view.squeeze(1)
