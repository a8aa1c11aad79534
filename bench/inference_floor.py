"""A lower bound of scoring: the matrix products alone, and the time to read the rows of the tables."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch

from inference_contenders import Variant
from inference_subject import Subject
from mlperf.engines.cpu import int8_layer, products
from mlperf.engines.cpu.loops.codes import padded_codes
from mlperf.models.dlrm import top_widths
from mlperf.models.layers.embedding.quantized import row_bytes
from training_baselines import GPU_WIDTH_MULTIPLE, captured

# On a CPU, products of more samples are computed in parts, whose results stay in the cache.
_PART = 512


class InferenceFloor:
    """The products of a model for batches of one size, without biases, activations and conversions.

    The products use the library that is fastest for the precision. Those of the interaction are left out: a loop
    or kernel computes them while it reads the rows, faster than `torch.bmm`. On a GPU, widths are rounded up to a
    multiple of 16. seconds_of_tables: time to read the rows, at copy bandwidth.
    """

    def __init__(self, subject: Subject, variant: Variant, size: int, bandwidth: float) -> None:
        architecture, device = subject.architecture, subject.model.tables.device
        self._device, self._variant = device, variant
        on_gpu = device.type == "cuda"
        part = size if on_gpu else min(size, _PART)
        self._repeats = size / part
        self._products: list[Callable[[], object]] = []
        for widths in (architecture.mlp_bot, top_widths(architecture)):
            for fan_in, fan_out in pairwise(widths):
                self._add(part, fan_in, fan_out)
        if architecture.has_cross_network:
            width, rank = top_widths(architecture)[0], architecture.cross_rank
            for _ in range(architecture.cross_layers):
                self._add(part, width, rank)
                self._add(part, rank, width)
        dimension = architecture.feature_size
        stored = 4 * dimension if variant.table_bits == 32 else row_bytes(dimension, variant.table_bits)
        ids = sum(architecture.ids_per_table or [1] * len(architecture.rows_per_table))
        self.seconds_of_tables = size * ids * stored / bandwidth
        self.products = captured(self._run, device)

    def _add(self, samples: int, fan_in: int, fan_out: int) -> None:
        if self._device.type == "cuda":
            fan_in = -(-fan_in // GPU_WIDTH_MULTIPLE) * GPU_WIDTH_MULTIPLE
        inputs, weight = (torch.randn(rows, fan_in, device=self._device) for rows in (samples, fan_out))
        if self._variant.mlp == "int8" and int8_layer.unavailable() is None:
            codes, weights = (
                torch.zeros(rows, padded_codes(fan_in), dtype=torch.int8) for rows in (samples, fan_out)
            )
            out = torch.empty(samples, fan_out, dtype=torch.int32)
            self._products.append(lambda: torch._int_mm(codes, weights.t(), out=out))
        elif self._variant.mlp == "fp16":
            packed = torch.ops.quantized.linear_prepack_fp16(weight, None)
            self._products.append(lambda: torch.ops.quantized.linear_dynamic_fp16(inputs, packed))
        else:
            dtype = torch.bfloat16 if self._variant.mlp == "bf16" else torch.float32
            left, right = inputs.to(dtype), weight.to(dtype)
            if self._device.type == "cuda":
                self._products.append(lambda: left @ right.t())
            else:
                self._products.append(lambda: products.linear(left, right))

    def _run(self) -> None:
        for product in self._products:
            product()

    def seconds(self, of_products: float) -> float:
        """Return the bound for a batch, if the products of a part take `of_products` seconds."""
        return of_products * self._repeats + self.seconds_of_tables
