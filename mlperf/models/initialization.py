"""Initial weights.

Drawn from NumPy's legacy stream, they reproduce published runs, so the order of the draws must not change. Drawn
from a generator on the device of the tables, they have the same distributions and need no host memory.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.cross import CrossInteraction
from mlperf.models.layers.embedding.interface import EmbeddingTable
from mlperf.models.layers.embedding.shards import ShardedTable
from mlperf.models.layers.mlp import linear_layers

# Float64 numbers drawn at a time, so that large weights need no float64 copy and Ctrl-C is not delayed.
_CHUNK = 1 << 22


def initialize(
    model: DLRM_Net, stream: np.random.RandomState, *, mlp_init: str, embedding_init: str, seed: int
) -> None:
    """Fill `model` in place: the tables one by one, then layer by layer the bottom MLP, interaction and top MLP.

    mlp_init: "normal", weights normal(0, sqrt(2 / (fan_in + fan_out))) and biases normal(0, sqrt(1 / fan_out));
    "uniform", both uniform in [0, 1); or "pytorch", both uniform in ±sqrt(1 / fan_in). A cross network has weights
    normal(0, sqrt(2 / (fan_in + fan_out))) and biases of 0, whatever `mlp_init` is. Tables are uniform in their
    `initial_ranges` (±sqrt(1 / rows) unless they are compressed), drawn from `stream` (embedding_init "numpy") or
    on their device from `seed` ("device").
    """
    device = model.tables.device
    generator = torch.Generator(device).manual_seed(seed) if embedding_init == "device" else None
    for table in model.tables:
        if isinstance(table, ShardedTable):
            _fill_shards(table, stream if generator is None else generator)
            continue
        assert isinstance(table, EmbeddingTable)
        for weight, low, high in table.initial_ranges():
            if generator is not None:
                _fill_on_device(weight.view(-1), generator, low, high)
            else:
                _fill_uniform(weight.flatten(), stream, low, high)
    for layer in linear_layers(model.bot_l):
        _fill_linear(layer, stream, mlp_init)
    if isinstance(model.interaction, CrossInteraction):
        _fill_cross_network(model.interaction, stream)
    for layer in linear_layers(model.top_l):
        _fill_linear(layer, stream, mlp_init)


def _fill_shards(table: ShardedTable, source: np.random.RandomState | torch.Generator) -> None:
    """Draw a whole table piece by piece, and keep what this process stores of it."""
    rows, dimension = table.weight.shape
    low, high = table.initial_range
    step = max(1, _CHUNK // dimension)
    for first in range(0, rows, step):
        shape = (min(step, rows - first), dimension)
        if isinstance(source, torch.Generator):
            piece = torch.empty(shape, device=source.device).uniform_(low, high, generator=source)
        else:
            piece = torch.from_numpy(source.uniform(low, high, size=shape).astype(np.float32))
        for part in table.weight.parts:
            part.copy_rows(piece, first)


def _fill_on_device(flat: torch.Tensor, generator: torch.Generator, low: float, high: float) -> None:
    """Fill a table with uniform values in [low, high), drawn on its device in float32.

    Rows in 16 bits are rounded to the nearest value: drawn in bfloat16, they would have only 256 different values.
    On a GPU, the numbers depend on the size of the call. A float32 table is drawn in one call, so that its values
    stay those of earlier versions.
    """
    if flat.dtype != torch.float32:
        for piece in flat.split(_CHUNK):
            piece.copy_(torch.empty_like(piece, dtype=torch.float32).uniform_(low, high, generator=generator))
        return
    for piece in flat.split(_CHUNK if flat.device.type == "cpu" else max(1, len(flat))):
        piece.uniform_(low, high, generator=generator)


def _fill_uniform(flat: torch.Tensor, stream: np.random.RandomState, low: float, high: float) -> None:
    for start in range(0, len(flat), _CHUNK):
        piece = flat[start : start + _CHUNK]
        drawn = stream.uniform(low, high, size=len(piece))
        piece.copy_(torch.from_numpy(drawn.astype(np.float32)))


@torch.no_grad()
def _fill_linear(layer: nn.Linear, stream: np.random.RandomState, mlp_init: str) -> None:
    fan_out, fan_in = layer.weight.shape
    scales = {layer.weight: np.sqrt(2 / (fan_in + fan_out)), layer.bias: np.sqrt(1 / fan_out)}
    for parameter, scale in scales.items():
        if mlp_init == "normal":
            _fill_normal(parameter, stream, scale)
        elif mlp_init == "uniform":
            _fill_uniform(parameter.view(-1), stream, 0.0, 1.0)
        else:
            limit = np.sqrt(1 / max(1, fan_in))
            _fill_uniform(parameter.view(-1), stream, -limit, limit)


@torch.no_grad()
def _fill_cross_network(network: CrossInteraction, stream: np.random.RandomState) -> None:
    for down, up in network.layers():
        for weight in (down.weight, up.weight):
            _fill_normal(weight, stream, np.sqrt(2 / sum(weight.shape)))
        up.bias.zero_()


def _fill_normal(parameter: torch.Tensor, stream: np.random.RandomState, scale: float) -> None:
    flat = parameter.view(-1)
    for start in range(0, len(flat), _CHUNK):
        piece = flat[start : start + _CHUNK]
        drawn = stream.normal(0.0, scale, size=len(piece))
        piece.copy_(torch.from_numpy(drawn.astype(np.float32)))
