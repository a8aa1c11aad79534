"""Score batches on the CPU with MLPs and cross network in 8 bits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mlperf.engines.cpu.int8_layer import Codes, Encoder, Int8Layer
from mlperf.engines.cpu.quantized_scorer import QuantizedScorer
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.cross import CrossInteraction
from mlperf.models.layers.mlp import layers_with_weights


class Int8Scorer(QuantizedScorer):
    """Evaluates a model whose linear layers are quantized to 8 bits. Arguments as for QuantizedScorer.

    All batches use the same memory. Each part of the network begins with an encoder, which turns float32 values
    into codes; its layers pass codes on, and the last one returns float32 values. The cross network returns both.
    """

    def __init__(self, model: DLRM_Net, ids_per_table: Sequence[int] | None = None) -> None:
        super().__init__(model, ids_per_table)
        bottom_widths, top_widths = model.architecture.mlp_bot, model.top_widths
        rank = model.architecture.cross_rank if self.has_cross else 0
        widest = max(*bottom_widths, *top_widths, rank)
        self._size = 0  # samples for which the layers are prepared
        self._products = torch.empty(self.capacity * widest, dtype=torch.int32)
        self._rows = torch.empty(torch.get_num_threads(), widest)
        self._encode_dense, codes = self._encoder(bottom_widths[0])
        self._bottom, self._bottom_output = self._mlp(layers_with_weights(model.bot_l), codes, bottom_widths)
        self._encode_features, codes = self._encoder(top_widths[0])
        self._cross: list[Int8Layer] = []
        if isinstance(model.interaction, CrossInteraction):
            codes, self._crossed = self._add_cross(model.interaction, codes, rank)
        *hidden, _ = layers_with_weights(model.top_l)
        self._top, self._top_output = self._mlp(hidden, codes, top_widths)

    def _encoder(self, width: int) -> tuple[Encoder, Codes]:
        codes = Codes.empty(self.capacity, width)
        return Encoder(codes, width), codes

    def _mlp(
        self, layers: Sequence[nn.Module], inputs: Codes, widths: Sequence[int]
    ) -> tuple[list[Int8Layer], torch.Tensor]:
        """Return the layers of an MLP, and the memory of its output, float32 [capacity, width]."""
        added: list[Int8Layer] = []
        output = torch.empty(self.capacity, widths[len(layers)])
        for layer, width in zip(layers, widths[1:], strict=False):
            if layer is layers[-1]:
                added.append(Int8Layer(layer, inputs, None, output, self._products, relu=True))
                continue
            outputs = Codes.empty(self.capacity, width)
            added.append(Int8Layer(layer, inputs, outputs, self._rows, self._products, relu=True))
            inputs = outputs
        return added, output

    def _add_cross(self, network: CrossInteraction, codes: Codes, rank: int) -> tuple[Codes, torch.Tensor]:
        """Add the layers of a cross network, and return the codes and the values of its output.

        codes: of its input.
        """
        x = x0 = self.features.output(self.capacity)
        for down, up in zip(network.V, network.W, strict=True):
            between, outputs = Codes.empty(self.capacity, rank), Codes.empty(self.capacity, x.shape[1])
            output = torch.empty_like(x)
            self._cross.append(Int8Layer(down, codes, between, self._rows, self._products))
            self._cross.append(Int8Layer(up, between, outputs, output, self._products, crossed=(x0, x)))
            codes, x = outputs, output
        return codes, x

    def run_bottom(self, dense: torch.Tensor) -> torch.Tensor:
        """Return the output of the bottom MLP, float32 [B, D]."""
        self._resize(len(dense))
        if not self._bottom:
            return dense.contiguous()
        self._encode_dense.run(dense.contiguous())
        for layer in self._bottom:
            layer.run()
        return self._bottom_output[: len(dense)]

    def _resize(self, samples: int) -> None:
        if samples != self._size:
            for layer in (*self._bottom, *self._cross, *self._top):
                layer.resize(samples)
            self._size = samples

    def run_cross(self, joined: torch.Tensor) -> torch.Tensor:
        """Return the output of the cross network, float32 [B, width], for its input."""
        self._encode_features.run(joined)
        for layer in self._cross:
            layer.run()
        return self._crossed[: len(joined)]

    def run_top(self, values: torch.Tensor) -> torch.Tensor:
        """Return the inputs of the last layer, float32 [B, N]. With a cross network, its codes are the input."""
        if not self._top:
            return values
        if not self.has_cross:
            self._encode_features.run(values)
        for layer in self._top:
            layer.run()
        return self._top_output[: len(values)]
