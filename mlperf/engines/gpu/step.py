"""The training step on a GPU: matrix products by the library, everything between them in a few Triton kernels.

The rows of a batch cross to the device as the file has them, in one copy beside the step before, and are decoded
there. A step is captured once as a CUDA graph and replayed. Nothing waits for the host but a bounded lead.

B samples, T tables, D embedding dimension, N and K widths of layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from mlperf.data.batch import RawBatch, RowSource
from mlperf.data.binary import invalid_row_error
from mlperf.data.schema import COLUMNS
from mlperf.data.source import BatchSource
from mlperf.engines.gpu import interaction as gpu_interaction
from mlperf.engines.gpu import layers as gpu_layers
from mlperf.engines.gpu.interaction import DENSE_WIDTH, NO_PLACE, PLACES
from mlperf.engines.gpu.launch import dot_type, launch
from mlperf.engines.gpu.upload import Upload
from mlperf.engines.protocol import LossSums, has_fast_ways, show_broken_weights
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.embedding.tables import EmbeddingTables
from mlperf.models.layers.mlp import linear_layers
from mlperf.models.loss import Loss
from mlperf.optim.optimizers import Optimizer

_MOST_FEATURES = 32  # of the kernels' tiles
_MOST_COLUMNS = 256  # likewise
_MOST_HIDDEN = 1024  # inputs of the last layer, which one program reads whole


def serves(model: DLRM_Net) -> bool:
    """Return whether these classes can run `model`: plain tables, dot interaction, ReLU, sizes that fit."""
    architecture = model.architecture
    return (
        has_fast_ways(model)
        and len(architecture.rows_per_table) < _MOST_FEATURES
        and architecture.dimension <= _MOST_COLUMNS
        and sum(architecture.rows_per_table) < 2**31
        and model.top_widths[-2] <= _MOST_HIDDEN
    )


def _padded(width: int) -> int:
    """Return the width of a matrix whose rows begin where the library can read them fast."""
    return -(-width // 8) * 8


def _power_of_two(count: int) -> int:
    return max(16, 1 << (count - 1).bit_length())


def _steps(samples: int) -> int:
    """Return how many tiles a program that sums over samples takes: few programs add up less, many end sooner."""
    return max(1, min(8, samples // 8192))


class _Layer:
    """A linear layer and its ReLU: weight [N, K] and bias [N] float32, and copies in the products' type.

    The copies' rows are padded with zeros to the width of the layer's input.
    """

    def __init__(self, linear: nn.Linear, input_width: int, dtype: torch.dtype) -> None:
        self.weight, self.bias = linear.weight.data, linear.bias.data
        self.copy = torch.zeros(len(self.weight), input_width, dtype=dtype, device=self.weight.device)
        self.copy[:, : self.weight.shape[1]] = self.weight
        self.bias_copy = self.bias.to(dtype, copy=True)
        self.d_bias = torch.zeros_like(self.bias)  # added to, and cleared by the update

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the output [B, N] for `inputs` [B, K padded]."""
        return torch._addmm_activation(self.bias_copy, inputs, self.copy.t(), use_gelu=False)

    def backward(
        self,
        gradient: torch.Tensor,
        output: torch.Tensor,
        inputs: torch.Tensor,
        rate: torch.Tensor,
        *,
        further: bool = True,
    ) -> torch.Tensor:
        """Update the layer and return the gradient of `inputs`, or with `further` False nothing of use.

        gradient [B, N]: of `output`, overwritten with that before the ReLU.
        """
        samples, width = gradient.shape
        rows, steps, columns = 32, _steps(samples), 128
        grid = (-(-samples // (rows * steps)), -(-width // columns))
        arguments = (gradient, output, self.d_bias, samples, steps, width)
        launch(gpu_layers.relu_backward, grid, *arguments, ROWS=rows, COLUMNS=columns)
        returned = gradient @ self.copy if further else gradient
        _update(self.weight, self.copy, gradient.t() @ inputs, rate)
        _update(self.bias, self.bias_copy, self.d_bias, rate, clear=True)
        return returned


def _update(
    weight: torch.Tensor, copy: torch.Tensor, gradient: torch.Tensor, rate: torch.Tensor, *, clear: bool = False
) -> None:
    width, stride = (weight.shape[1], copy.shape[1]) if weight.dim() == 2 else (weight.numel(), copy.numel())
    count, block = weight.numel(), 1024
    constants = {"K": width, "STRIDE": stride, "CLEAR": clear, "BLOCK": block}
    launch(gpu_layers.update_weights, (-(-count // block),), weight, copy, gradient, rate, count, **constants)


@dataclass
class _Forward:
    """What a forward pass leaves: values go into each layer (bottom MLP's inputs and output, top MLP's inputs)."""

    values: list[torch.Tensor]
    labels: torch.Tensor  # float32 [B]
    flat_rows: torch.Tensor  # int32 [B, T]


class GpuScorer:
    """Evaluates a model that `serves` accepts.

    precision: fp32, tf32 or bf16, of products and activations. max_ind_range: of the batches to come.
    """

    def __init__(self, model: DLRM_Net, precision: str, max_ind_range: int) -> None:
        assert isinstance(model.tables, EmbeddingTables)
        self.model = model
        self.tables = model.tables
        self.device = model.tables.device
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        # A weight's gradient is a sum over the batch, of which the library makes parts: they are added in float32.
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        architecture = model.architecture
        # Ids are int32: a larger modulus leaves those that are valid as they are.
        self.modulus = max_ind_range if 0 < max_ind_range < 2**31 else -1
        self.threshold = float(architecture.loss_threshold)
        self.width = _padded(model.top_widths[0])
        widths = [DENSE_WIDTH, *architecture.mlp_bot[1:]]
        self.bottom = [
            _Layer(layer, width, self.dtype)
            for layer, width in zip(linear_layers(model.bot_l), widths, strict=False)
        ]
        *hidden, last = linear_layers(model.top_l)
        widths = [self.width, *model.top_widths[1:]]
        self.top = [_Layer(layer, width, self.dtype) for layer, width in zip(hidden, widths, strict=False)]
        self.last_weight, self.last_bias = last.weight.data, last.bias.data
        rows = torch.tensor([0, *architecture.rows_per_table])
        self.limits = rows[1:].to(self.device, torch.int32)
        self.starts = rows.cumsum(0)[:-1].to(self.device, torch.int32)
        self.first = torch.zeros((), dtype=torch.int64, device=self.device)
        self.invalid = torch.full((), NO_PLACE, dtype=torch.int64, device=self.device)
        self.source: RowSource | None = None
        self.upload = Upload(self.device)
        features = _power_of_two(len(architecture.rows_per_table) + 1)
        columns = _power_of_two(architecture.dimension)
        self.interaction = {
            "T": len(architecture.rows_per_table),
            "D": architecture.dimension,
            "WIDTH": self.width,
            "ITSELF": architecture.interaction_itself,
            "FP": features,
            "DP": columns,
            "DOT": dot_type(self.dtype),
            "PRECISION": "tf32" if precision == "tf32" else "ieee",
            # With 16 values of the features a thread none has to leave its register.
            "warps": min(8, max(1, features * columns // 512)),
        }

    def batches(self, data: BatchSource, epoch: int, first: int = 0) -> Iterator[RawBatch]:
        """Return the rows of `epoch` from batch `first` on, as the file has them."""
        assert hasattr(data, "raw_batches"), "only files have rows"
        batches: Iterator[RawBatch] = data.raw_batches(epoch, first)
        return batches

    def score(self, batch: RawBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the probabilities of a click and the labels, float32 [B] each, on the device."""
        self._note(batch)
        scores = self._score(self.upload.copy(batch.rows))
        self.upload.done()
        return scores

    def _score(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        done = self.forward(rows)
        hidden, samples = done.values[-1], len(rows)
        probability = torch.empty(samples, device=self.device)
        sizes = self.last_sizes(hidden)
        launch(
            gpu_layers.score,
            (-(-samples // sizes["BLOCK"]),),
            *(hidden, self.last_weight, self.last_bias, probability, samples, self.threshold),
            **sizes,
        )
        return probability, done.labels

    def check(self) -> None:
        """Wait for the device. RunError if a row since the last check held an invalid label or id."""
        place = int(self.invalid)
        if place != NO_PLACE:
            assert self.source is not None
            raise invalid_row_error(self.source, place // PLACES, place % PLACES)

    def forward(self, rows: torch.Tensor) -> _Forward:
        """Decode `rows` int32 [B, 40] and run the model up to its last layer."""
        samples, tables = len(rows), len(self.limits)
        dense = torch.empty(samples, DENSE_WIDTH, dtype=self.dtype, device=self.device)
        labels = torch.empty(samples, device=self.device)
        flat_rows = torch.empty(samples, tables, dtype=torch.int32, device=self.device)
        block = 32
        launch(
            gpu_interaction.decode,
            (-(-samples // block),),
            *(rows, self.limits, self.starts, self.first, dense, labels, flat_rows, self.invalid, samples),
            MODULUS=self.modulus,
            TABLES=tables,
            BLOCK=block,
        )
        values = [dense]
        for layer in self.bottom:
            values.append(layer.forward(values[-1]))
        interacted = torch.empty(samples, self.width, dtype=self.dtype, device=self.device)
        arguments = (self.tables.weight, flat_rows, values[-1], interacted)
        launch(gpu_interaction.interact, (samples,), *arguments, **self.interaction)
        values.append(interacted)
        for layer in self.top:
            values.append(layer.forward(values[-1]))
        return _Forward(values, labels, flat_rows)

    def last_sizes(self, hidden: torch.Tensor) -> dict[str, int]:
        """Return the sizes of the last layer, as its kernels take them."""
        inputs = self.last_weight.numel()
        padded = _power_of_two(inputs)
        return {"N": inputs, "STRIDE": hidden.shape[1], "NP": padded, "BLOCK": min(32, 4096 // padded)}

    def _note(self, batch: RawBatch) -> None:
        self.source = batch.source
        self.first.fill_(batch.first_row)


class GpuStep(GpuScorer):
    """Trains such a model by SGD, one batch a step."""

    def __init__(
        self, model: DLRM_Net, loss: Loss, optimizer: Optimizer, precision: str, max_ind_range: int
    ) -> None:
        super().__init__(model, precision, max_ind_range)
        assert optimizer.kind == "sgd", "only SGD updates a weight from its gradient alone"
        self.loss = loss
        self.optimizer = optimizer
        self.sums = LossSums.zeros(self.device)
        self.rate = torch.zeros((), device=self.device)
        self.d_last_weight = torch.zeros_like(self.last_weight)
        self.d_last_bias = torch.zeros_like(self.last_bias)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._graph_rows = torch.empty(0, COLUMNS, dtype=torch.int32)

    def warm_up(self, batch_size: int) -> None:
        """Predict, take steps of rate 0, which leave the weights, and on a GPU capture one."""
        rows = torch.zeros(batch_size, COLUMNS, dtype=torch.int32, device=self.device)
        self._score(rows)
        self.rate.zero_()
        for _ in range(2):
            self._step(rows)
        if self.device.type == "cuda":
            self._graph_rows = rows
            self._capture()
        self.sums.clear()

    def _capture(self) -> None:
        """Record a step on `_graph_rows`: what it allocates is the graph's from here on."""
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._step(self._graph_rows)

    def train(self, batch: RawBatch, rate: float | None) -> None:
        """Train on `batch` with learning rate `rate`."""
        assert rate is not None, "gradients are not summed over batches here"
        self._note(batch)
        self.rate.fill_(rate)
        rows = self.upload.copy(batch.rows)
        if self._graph is not None and len(rows) == len(self._graph_rows):
            self._graph_rows.copy_(rows)
            self._graph.replay()
        else:
            self._step(rows)
        self.upload.done()
        self.optimizer.note_step(rate)

    def check(self) -> None:
        """As an evaluation does; and make a weight that is not a number show in the loss, where a ReLU hid it."""
        super().check()
        show_broken_weights((*self.bottom, *self.top), self.sums)

    def _step(self, rows: torch.Tensor) -> None:
        done = self.forward(rows)
        values, bottoms = done.values, len(self.bottom)
        gradient = self._last_layer(values[-1], done.labels)
        for number in reversed(range(len(self.top))):
            inputs, output = values[bottoms + 1 + number], values[bottoms + 2 + number]
            gradient = self.top[number].backward(gradient, output, inputs, self.rate)
        gradient = self._interaction(done.flat_rows, values[bottoms], gradient)
        for number in reversed(range(bottoms)):
            gradient = self.bottom[number].backward(
                gradient, values[number + 1], values[number], self.rate, further=number > 0
            )

    def _last_layer(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Add to the sums, update the last layer and return the gradient of `hidden`."""
        gradient = torch.empty_like(hidden)
        sizes, steps = self.last_sizes(hidden), _steps(len(hidden))
        launch(
            gpu_layers.last_layer,
            (-(-len(hidden) // (sizes["BLOCK"] * steps)),),
            *(hidden, self.last_weight, self.last_bias, labels, gradient, self.d_last_weight, self.d_last_bias),
            *(self.sums.both, len(hidden), steps, *self.loss.weights, self.threshold),
            MSE=self.loss.kind == "mse",
            **sizes,
        )
        _update(self.last_weight, self.last_weight, self.d_last_weight, self.rate, clear=True)
        _update(self.last_bias, self.last_bias, self.d_last_bias, self.rate, clear=True)
        return gradient

    def _interaction(self, flat_rows: torch.Tensor, bottom: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Update the tables and return the gradient of the bottom MLP's output [B, D]."""
        block, dimension = self.tables.weight, self.tables.dimension
        samples, tables = flat_rows.shape
        d_bottom = torch.empty_like(bottom)
        d_rows = torch.empty(samples * tables, dimension, dtype=self.dtype, device=self.device)
        arguments = (block, flat_rows, bottom, gradient, d_bottom, d_rows)
        launch(gpu_interaction.interact_backward, (samples,), *arguments, **self.interaction)
        keys, order = flat_rows.flatten().sort()
        sizes = {name: self.interaction[name] for name in ("D", "DP", "DOT", "warps")}
        chunk, count = 32, samples * tables
        launch(
            gpu_interaction.update_rows,
            (-(-count // chunk),),
            *(block, keys, order, d_rows, self.rate, count),
            CHUNK=chunk,
            **sizes,
        )
        return d_bottom
