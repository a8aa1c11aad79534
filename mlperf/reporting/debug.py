"""Output of --debug-mode: sizes, data and parameters, in the format of the original implementation."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from mlperf.data.batch import Batch
from mlperf.data.source import BatchSource
from mlperf.models.dlrm import DLRM_Net
from mlperf.training.events import Listener, Outcome, Position


class DebugReport(Listener):
    """Prints sizes, data and parameters before the first step, and the parameters after the last one.

    precision: digits of printed numbers. max_batches: number of batches to print; if None, all.
    """

    def __init__(self, model: DLRM_Net, *, precision: int, max_batches: int | None) -> None:
        self._model = model
        self._precision = precision
        self._max_batches = max_batches

    def data_opened(self, train: BatchSource, test: BatchSource | None) -> None:
        """Print sizes, data, parameters and the modules of the model."""
        with np.printoptions(precision=self._precision):
            self._print_architecture()
            print("data (inputs and targets):")
            for number, batch in enumerate(itertools.islice(train.batches(0), self._max_batches)):
                print(f"mini-batch: {number}")
                print(batch.dense.numpy())
                print([[ids.tolist() for ids in table] for table in _ids(batch)])
                print(batch.labels.numpy())
            self._print_parameters("initial")
        print(self._model, flush=True)

    def run_stop(self, position: Position | None, outcome: Outcome) -> None:
        """Print the trained parameters."""
        if position is not None and outcome in (Outcome.SUCCESS, Outcome.TARGET_MISSED):
            with np.printoptions(precision=self._precision):
                self._print_parameters("updated")

    def _print_architecture(self) -> None:
        architecture = self._model.architecture
        tables = len(architecture.rows_per_table)
        top, bottom = self._model.top_widths, architecture.mlp_bot
        print("model arch:")
        print(f"mlp top arch {len(top) - 1} layers, with input to output dimensions:\n{np.array(top)}")
        print(f"# of interactions\n{top[0]}")
        print(f"mlp bot arch {len(bottom) - 1} layers, with input to output dimensions:\n{np.array(bottom)}")
        print(f"# of features (sparse and dense)\n{tables + 1}")
        print(f"dense feature size\n{bottom[0]}")
        print(f"sparse feature size\n{architecture.dimension}")
        print(
            f"# of embeddings (= # of sparse features) {tables}, with dimensions {architecture.dimension}x:\n"
            f"{np.array(architecture.rows_per_table)}"
        )

    def _print_parameters(self, state: str) -> None:
        print(f"{state} parameters (weights and bias):")
        for parameter in self._model.parameters():
            print(parameter.detach().float().cpu().numpy(), flush=True)


def _ids(batch: Batch) -> Iterator[list[np.ndarray]]:
    """Yield the ids of each sample, table by table."""
    if batch.offsets is None:
        for one_hot in batch.indices.numpy():
            yield list(one_hot.reshape(-1, 1))
        return
    pieces = iter(np.split(batch.indices.numpy(), batch.offsets.flatten()[1:].numpy()))
    for _ in batch.offsets:
        yield list(itertools.islice(pieces, batch.size))
