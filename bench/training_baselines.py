"""What `measure_training.py` compares with: a lower bound of the training step, and plain PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn

from mlperf.data.batch import Batch
from mlperf.engines.cpu import products
from mlperf.models.dlrm import ROW_TYPES, Architecture, top_widths
from mlperf.models.reference import ReferenceDLRM
from mlperf.optim.optimizer import Optimizer
from mlperf.registry import OPTIMIZERS, load

Step = Callable[[], object]
GPU_WIDTH_MULTIPLE = 16
RATE = 1e-4  # low, because training on the same batches repeatedly must not diverge


class Floor:
    """Lower bound of a step: its matrix products, forward and backward, and the time to move the embedding rows.

    The products use the same library as the step for these sizes, without biases, activations or updates. On a
    GPU, widths are rounded up to a multiple of 16, because odd widths select slow kernels, and the products of the
    interaction are left out: a fused kernel computes them while it moves the embedding rows.
    `seconds_of_tables`: time to read the rows of `batch`, and to read and write them and their optimizer state for
    the update, at copy bandwidth. Of several ids per table, equal ones count once in the update. state_per_row:
    float32 values of state per embedding row.
    """

    def __init__(
        self,
        architecture: Architecture,
        batch: Batch,
        dtype: torch.dtype,
        device: torch.device,
        state_per_row: int = 0,
    ) -> None:
        self._device = device
        self._products: list[Step] = []
        tables, dimension = len(architecture.rows_per_table), architecture.dimension
        batch_size = batch.size
        for first, widths in ((True, architecture.mlp_bot), (False, top_widths(architecture))):
            for number, (fan_in, fan_out) in enumerate(pairwise(widths)):
                self._add_layer(batch_size, fan_in, fan_out, dtype, needs_input_grad=not (first and number == 0))
        for _ in range(architecture.cross_layers if architecture.has_cross_network else 0):
            width, rank = top_widths(architecture)[0], architecture.cross_rank
            self._add_layer(batch_size, width, rank, dtype, needs_input_grad=True)
            self._add_layer(batch_size, rank, width, dtype, needs_input_grad=True)
        row_bytes = ROW_TYPES[architecture.embedding_precision].itemsize * dimension
        updated = rows_updated(batch) * 2 * (row_bytes + 4 * state_per_row)
        self.seconds_of_tables = (batch.indices.numel() * row_bytes + updated) / copy_bandwidth(device)
        if device.type == "cuda" or architecture.has_cross_network:
            return
        features = torch.randn(batch_size, tables + 1, dimension, device=device).to(dtype)
        pairs = torch.bmm(features, features.transpose(1, 2))
        self._products.append(lambda: torch.bmm(features, features.transpose(1, 2)))
        self._products.append(lambda: torch.bmm(pairs, features))

    def _add_layer(
        self, batch_size: int, fan_in: int, fan_out: int, dtype: torch.dtype, *, needs_input_grad: bool
    ) -> None:
        def random(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, device=self._device).to(dtype)

        if self._device.type == "cuda":
            fan_in = -(-fan_in // GPU_WIDTH_MULTIPLE) * GPU_WIDTH_MULTIPLE
        inputs, weight, gradient = random(batch_size, fan_in), random(fan_out, fan_in), random(batch_size, fan_out)
        if self._device.type == "cpu":
            self._products.append(lambda: products.linear(inputs, weight))
            self._products.append(lambda: products.weight_gradient(gradient, inputs, weight))
            if needs_input_grad:
                self._products.append(lambda: products.input_gradient(gradient, weight))
            return
        self._products.append(lambda: inputs @ weight.t())
        self._products.append(lambda: gradient.t() @ inputs)
        if needs_input_grad:
            self._products.append(lambda: gradient @ weight)

    def __call__(self) -> None:
        """Compute all products once."""
        for product in self._products:
            product()


def rows_updated(batch: Batch) -> int:
    """Return the number of rows that an update with `batch` reads and writes."""
    if batch.ids_per_table is None:
        return batch.indices.numel()
    of_tables = batch.indices.split([batch.size * count for count in batch.ids_per_table])
    return sum(len(ids.unique()) for ids in of_tables)


def captured(step: Step, device: torch.device) -> Step:
    """Return `step`, on a GPU as one CUDA graph, so that the bound does not include the launch overhead."""
    if device.type != "cuda":
        return step
    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def copy_bandwidth(device: torch.device) -> float:
    """Return the bandwidth of copying a tensor: bytes read and written per second."""
    source = torch.ones(1 << (26 if device.type == "cpu" else 28), device=device)
    target = torch.empty_like(source)
    seconds = timed(lambda: target.copy_(source), 10, device)
    return 2 * source.nbytes / sorted(seconds)[5]


def timed(step: Callable[[], object], count: int, device: torch.device) -> list[float]:
    """Return the duration of each of `count` calls in seconds, on a GPU measured with CUDA events."""
    seconds = []
    if device.type == "cuda":
        events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        events[0].record()
        for event in events[1:]:
            step()
            event.record()
        torch.cuda.synchronize()
        return [before.elapsed_time(after) / 1e3 for before, after in pairwise(events)]
    for _ in range(count):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return seconds


def state_per_row(optimizer: str, architecture: Architecture) -> int:
    """Return the float32 values that an optimizer keeps for each embedding row."""
    kind: type[Optimizer] = load(OPTIMIZERS[optimizer])
    return kind.state_per_value * architecture.feature_size + kind.state_per_row


# The optimizers of torch.optim with the updates of this project's, by their --optimizer names.
PLAIN_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
}


class PlainStep:
    """A training step with plain PyTorch: modules, optimizer, loss and autocast.

    optimizer: a key of PLAIN_OPTIMIZERS. compiled: use torch.compile for everything except the embedding tables.
    """

    def __init__(
        self,
        architecture: Architecture,
        batch: Batch,
        precision: str,
        device: torch.device,
        rate: float,
        *,
        optimizer: str = "sgd",
        compiled: bool = False,
    ) -> None:
        with torch.device(device):
            self.model = ReferenceDLRM.new(architecture, sparse=True)
        self._dense = DenseStep(self.model, batch, precision, device, rate, optimizer, compiled=compiled)

    def __call__(self) -> torch.Tensor:
        """Train on the batch. Returns the mean loss before the update."""
        return self._dense.train(self._pooled)

    def _pooled(self, batch: Batch) -> torch.Tensor:
        _, *ids = self.model.inputs(batch).values()
        return self.model.pooled(*ids)


class DenseStep:
    """A training step with PyTorch, whatever the embedding tables are.

    model: the optimizer updates all its parameters. Other arguments as for PlainStep.
    """

    def __init__(
        self,
        model: ReferenceDLRM,
        batch: Batch,
        precision: str,
        device: torch.device,
        rate: float,
        optimizer: str,
        *,
        compiled: bool = False,
    ) -> None:
        self._predict = torch.compile(model.predict) if compiled else model.predict
        self._batch = batch.to(device)
        self._precision = precision
        self._device = device
        self._optimizer = PLAIN_OPTIMIZERS[optimizer](model.parameters(), lr=rate)
        self._loss = nn.BCELoss()

    def train(self, pooled: Callable[[Batch], torch.Tensor]) -> torch.Tensor:
        """Train on the batch and return the mean loss. pooled: looks up its ids and returns float32 [B, T, D]."""
        self._optimizer.zero_grad()
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            probability = self._predict(self._batch.dense, pooled(self._batch))
        loss: torch.Tensor = self._loss(probability.float(), self._batch.labels)
        loss.backward()
        self._optimizer.step()
        return loss.detach()
