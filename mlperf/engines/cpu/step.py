"""The training step on a CPU: matrix products by the library, everything between them in a few fused loops.

Gradients are written out by hand, each weight is updated as soon as its gradient is there, and a row of a table is
read where it is needed: nothing is recorded, zeroed or copied for later.

B samples, T tables, D embedding dimension, N and K widths of layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from mlperf.data.batch import Batch
from mlperf.data.source import BatchSource
from mlperf.engines.cpu import interaction as cpu_interaction
from mlperf.engines.cpu import loops as cpu_loops
from mlperf.engines.cpu import parallel, products
from mlperf.engines.protocol import LossSums, has_fast_ways, made_up_batch, show_broken_weights
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.embedding.tables import EmbeddingTables
from mlperf.models.layers.mlp import linear_layers
from mlperf.models.loss import Loss
from mlperf.optim.optimizer import Optimizer
from mlperf.optim.sgd import SGD

# The compiler unrolls the interaction by the number of tables: more than this go the general way.
_MOST_TABLES = 32


def serves(model: DLRM_Net) -> bool:
    """Return whether these classes can run `model`: plain tables, dot interaction, ReLU."""
    architecture = model.architecture
    return (
        has_fast_ways(model)
        and len(architecture.rows_per_table) <= _MOST_TABLES
        and products.available()
        and parallel.openmp() is not None
    )


class _Layer:
    """A linear layer and its ReLU. weight [N, K] and bias [N] are float32; products are in `dtype`."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        self.weight, self.bias = linear.weight.data, linear.bias.data
        self.low = dtype == torch.bfloat16
        self._copy = self.weight.to(dtype)  # the weight itself for float32

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the output [B, N] for `inputs` [B, K]."""
        return products.relu_linear(inputs, self._copy, self.bias.to(inputs.dtype))

    def backward(
        self,
        gradient: torch.Tensor,
        output: torch.Tensor,
        inputs: torch.Tensor,
        rate: float,
        *,
        further: bool = True,
    ) -> torch.Tensor:
        """Update the layer and return the gradient of `inputs` [B, K], or with `further` False nothing of use.

        gradient [B, N]: of `output`, overwritten with that before the ReLU.
        """
        samples, width = gradient.shape
        cpu_loops.relu_backward()(gradient, output, self.bias, samples, width, rate, int(self.low))
        returned = products.input_gradient(gradient, self._copy) if further else gradient
        change = products.weight_gradient(gradient, inputs, self._copy)
        cpu_loops.weight_update()(self.weight, self._copy, change, self.weight.numel(), rate, int(self.low))
        return returned


class _Room:
    """Memory that is taken once and used in every step, for the largest batch so far."""

    def __init__(self) -> None:
        self._flat: dict[str, torch.Tensor] = {}

    def take(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Return memory of this shape, with what the last step left in it."""
        count = math.prod(shape)
        if name not in self._flat or len(self._flat[name]) < count:
            self._flat[name] = torch.empty(count, dtype=dtype)
        return self._flat[name][:count].view(*shape)


class CpuScorer:
    """Evaluates a model that `serves` accepts. precision: fp32 or bf16, of matrix products and activations."""

    def __init__(self, model: DLRM_Net, precision: str) -> None:
        assert isinstance(model.tables, EmbeddingTables)
        architecture = model.architecture
        self.device = model.tables.device
        self.tables = model.tables
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.low = int(self.dtype == torch.bfloat16)
        self.bottom = [_Layer(layer, self.dtype) for layer in linear_layers(model.bot_l)]
        *hidden, last = linear_layers(model.top_l)
        self.top = [_Layer(layer, self.dtype) for layer in hidden]
        self.last_weight, self.last_bias = last.weight.data, last.bias.data
        self.threshold = float(architecture.loss_threshold)
        self.interacted_width = model.top_widths[0]
        sizes = (len(architecture.rows_per_table), architecture.dimension)
        self.interact = cpu_interaction.make_forward(*sizes, architecture.interaction_itself)
        self.scratch = torch.empty(torch.get_num_threads() * cpu_interaction.scratch_floats(*sizes))
        self.room = _Room()

    def batches(self, data: BatchSource, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Return the batches of `epoch` from number `first` on."""
        return data.batches(epoch, first)

    def check(self) -> None:
        """Batches were checked as they were read."""

    def score(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the probabilities of a click and the labels, float32 [B] each."""
        hidden = self.forward(batch)[-1]
        probability = torch.empty(batch.size)
        arguments = (hidden, self.last_weight, self.last_bias, probability)
        cpu_loops.score()(*arguments, *hidden.shape, self.threshold, self.low)
        return probability, batch.labels.squeeze(1)

    def forward(self, batch: Batch) -> list[torch.Tensor]:
        """Return what goes into each layer [B, K]: inputs and output of the bottom MLP, inputs of the top MLP."""
        values = [batch.dense.to(self.dtype)]
        for layer in self.bottom:
            values.append(layer.forward(values[-1]))
        interacted = self.room.take("interacted", (batch.size, self.interacted_width), self.dtype)
        tables = self.tables
        arguments = (batch.indices, tables.first_row, tables.weight, values[-1], interacted, self.scratch)
        self.interact(*arguments, batch.size, len(tables.weight), self.low)
        values.append(interacted)
        for layer in self.top:
            values.append(layer.forward(values[-1]))
        return values


class CpuStep(CpuScorer):
    """Trains such a model by SGD, one batch a step."""

    def __init__(self, model: DLRM_Net, loss: Loss, optimizer: Optimizer, precision: str) -> None:
        super().__init__(model, precision)
        assert isinstance(optimizer, SGD), "only SGD updates a weight from its gradient alone"
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.sums = LossSums.zeros(self.device)
        sizes = (len(self.tables.rows_per_table), self.tables.dimension)
        self.interact_backward = cpu_interaction.make_backward(*sizes, model.architecture.interaction_itself)
        self.update_rows = cpu_interaction.make_table_update(self.tables.dimension)
        self.partial_sums = cpu_loops.partial_sums(self.last_weight.numel())

    def warm_up(self, batch_size: int) -> None:
        """Take a step of rate 0: the weights stay."""
        batch = made_up_batch(self.model, batch_size)
        self._step(batch, 0.0)
        self.sums.clear()

    def check(self) -> None:
        """Make a weight that is not a number show in the loss: the library's ReLU turns it into 0."""
        show_broken_weights((*self.bottom, *self.top), self.sums)

    def train(self, batch: Batch, rate: float | None) -> None:
        """Train on `batch` with learning rate `rate`."""
        assert rate is not None, "gradients are not summed over batches here"
        self._step(batch, rate)
        self.optimizer.note_step(rate)

    def _step(self, batch: Batch, rate: float) -> None:
        values = self.forward(batch)
        gradient = self._last_layer(values[-1], batch.labels, rate)
        bottoms = len(self.bottom)
        for number in reversed(range(len(self.top))):
            inputs, output = values[bottoms + 1 + number], values[bottoms + 2 + number]
            gradient = self.top[number].backward(gradient, output, inputs, rate)
        gradient = self._interaction(batch, values[bottoms], gradient, rate)
        for number in reversed(range(bottoms)):
            gradient = self.bottom[number].backward(
                gradient, values[number + 1], values[number], rate, further=number > 0
            )

    def _last_layer(self, hidden: torch.Tensor, labels: torch.Tensor, rate: float) -> torch.Tensor:
        """Add to the sums, update the last layer and return the gradient of `hidden` [B, N]."""
        width = hidden.shape[1]
        gradient = self.room.take("hidden", hidden.shape, self.dtype)
        kind = 0 if self.loss.kind == "mse" else 1
        partial = self.partial_sums.zero_()
        arguments = (hidden, self.last_weight, self.last_bias, labels, gradient, partial)
        cpu_loops.last_layer()(*arguments, *hidden.shape, kind, *self.loss.weights, self.threshold, self.low)
        total = partial.sum(0)  # (N + 3,)
        self.last_weight.view(-1).add_(total[:width], alpha=-rate)
        self.last_bias.add_(total[width], alpha=-rate)
        self.sums.both.add_(total[width + 1 :])
        return gradient

    def _interaction(
        self, batch: Batch, bottom: torch.Tensor, gradient: torch.Tensor, rate: float
    ) -> torch.Tensor:
        """Update the tables and return the gradient of the bottom MLP's output [B, D]."""
        tables = self.tables
        where = (batch.indices, tables.first_row, tables.weight)
        rows = self.room.take("rows", (batch.size, len(tables.rows_per_table), tables.dimension), torch.float32)
        grad_bottom = self.room.take("bottom", bottom.shape, self.dtype)
        arguments = (*where, bottom, gradient, grad_bottom, rows, self.scratch)
        self.interact_backward(*arguments, batch.size, len(tables.weight), self.low)
        self.update_rows(*where, rows, rows.shape[1], batch.size, len(tables.weight), rate)
        return grad_bottom
