"""Score batches on the CPU with quantized MLPs: what 8 and 16 bits have in common.

B samples, T tables, D embedding dimension, N inputs of the last layer.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import torch

from mlperf.data.batch import Batch
from mlperf.data.source import BatchSource
from mlperf.engines.cpu.features import Features, make_features
from mlperf.engines.cpu.loops import last_layer
from mlperf.engines.cpu.workspace import Workspace
from mlperf.engines.layerwise import forward_ranges
from mlperf.engines.observer import Observer
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.cross import CrossInteraction
from mlperf.models.layers.mlp import layers_with_weights
from mlperf.models.layers.quantized_linear import float_weight_and_bias

# Samples per thread that pass through all layers before the next ones, so that results stay in the cache.
_SAMPLES_PER_THREAD = 512

# Up to this many samples, the last layer takes less time than to start the other threads.
_ALONE = 16


class QuantizedScorer(ABC):
    """Evaluates a model whose linear layers are quantized. The rows of its tables may be quantized too.

    The last layer, which is too narrow for a matrix product, takes its inputs in float32.

    capacity: number of samples that are scored at once. ids_per_table: ids of each table and sample; None: one.
    """

    observer: Observer | None = None

    def __init__(self, model: DLRM_Net, ids_per_table: Sequence[int] | None = None) -> None:
        self.device = model.tables.device
        self.has_cross = isinstance(model.interaction, CrossInteraction)
        self._ids_per_table = ids_per_table
        self.capacity = _SAMPLES_PER_THREAD * torch.get_num_threads()
        self.features: Features = make_features(model, ids_per_table, torch.float32, Workspace())
        weight, bias = float_weight_and_bias(layers_with_weights(model.top_l)[-1])
        assert bias is not None
        self._last = (weight.contiguous(), bias.contiguous())
        self._score = last_layer.score().prepare(
            weights=self._last[0].data_ptr(),
            bias=self._last[1].data_ptr(),
            width=weight.numel(),
            threshold=float(model.architecture.loss_threshold),
        )

    @property
    def ranges(self) -> Mapping[str, str]:
        """The parts of the forward pass and their methods."""
        return forward_ranges(has_cross=self.has_cross)

    def batches(self, data: BatchSource, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Return the batches of `epoch` from number `first` on."""
        return data.batches(epoch, first)

    def check(self) -> None:  # noqa: B027
        """Do nothing: the data source checked the batches when it read them."""

    @torch.inference_mode()
    def score(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the predicted probabilities and the labels, float32 [B] each."""
        labels = batch.labels.squeeze(1)
        parts = math.ceil(batch.size / self.capacity)
        if parts == 1:
            return self._score_part(batch.dense, batch.indices), labels
        probabilities = [
            self._score_part(batch.dense[start:stop], self._ids_of(batch, start, stop))
            for start, stop in pairwise(batch.size * part // parts for part in range(parts + 1))
        ]
        return torch.cat(probabilities), labels

    def _score_part(self, dense: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Return the probabilities, float32 [B], of at most `capacity` samples. ids: as `Batch.indices`."""
        features = self.look_up_and_interact(ids, self.run_bottom(dense))
        if self.has_cross:
            features = self.run_cross(features)
        return self.predict(self.run_top(features))

    @abstractmethod
    def run_bottom(self, dense: torch.Tensor) -> torch.Tensor:
        """Return the output of the bottom MLP, float32 [B, D], for `dense`, float32 [B, dense features]."""

    def look_up_and_interact(self, ids: torch.Tensor, bottom: torch.Tensor) -> torch.Tensor:
        """Return the interaction of `bottom` [B, D] and the rows `ids`, or the input of the cross network."""
        return self.features.forward(ids, bottom)

    @abstractmethod
    def run_cross(self, joined: torch.Tensor) -> torch.Tensor:
        """Return the output of the cross network, float32 [B, width], for its input."""

    @abstractmethod
    def run_top(self, values: torch.Tensor) -> torch.Tensor:
        """Return the inputs of the last layer, float32 [B, N].

        values: what `look_up_and_interact` or, in a model with a cross network, `run_cross` returned last.
        """

    def predict(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the probabilities, float32 [B], for the inputs of the last layer [B, N]."""
        probabilities = torch.empty(len(hidden))
        args = self._score.args
        args.hidden, args.probabilities, args.samples = hidden.data_ptr(), probabilities.data_ptr(), len(hidden)
        if len(hidden) <= _ALONE:
            self._score.run_alone()
        else:
            self._score.run()
        return probabilities

    def _ids_of(self, batch: Batch, start: int, stop: int) -> torch.Tensor:
        """Return the ids of the samples from `start` to `stop`, as `Batch.indices`."""
        if self._ids_per_table is None:
            return batch.indices[:, start:stop].contiguous()
        of_tables = batch.indices.split([batch.size * count for count in self._ids_per_table])
        counts = zip(of_tables, self._ids_per_table, strict=True)
        return torch.cat([ids[start * count : stop * count] for ids, count in counts])
