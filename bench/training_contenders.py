"""The steps that `measure_training.py` compares."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from mlperf.data.batch import Batch
from mlperf.models.dlrm import Architecture
from mlperf.runner.memory import table_bytes
from mlperf.util.errors import RunError
from mlperf.util.memory import require_memory
from torchrec_step import TorchRecStep, unavailable
from training_baselines import PLAIN_OPTIMIZERS, RATE, PlainStep, Step, state_per_row

PLAIN = "plain"
COMPILED = "plain, torch.compile"
TORCHREC = "torchrec"


@dataclass(frozen=True)
class OtherPrograms:
    """The same training step as other programs take it.

    batch: the batch that every step trains on. optimizer: an --optimizer name. with_compile: also torch.compile.
    """

    architecture: Architecture
    batch: Batch
    precision: str
    device: torch.device
    optimizer: str
    with_compile: bool

    def make(self) -> tuple[dict[str, Step], dict[str, str]]:
        """Return the steps by the names of the programs, and the reasons why others cannot be measured."""
        steps, missing = {}, {}
        for name, make, known_reason in self._programs():
            reason = known_reason
            if reason is None:
                try:
                    self._require_memory(name)
                    step = make()
                    step()  # compiles, and fails if a precision is not supported
                    steps[name] = step
                except (RunError, RuntimeError) as error:
                    reason = str(error).partition("\n")[0]
            if reason is not None:
                missing[name] = reason
        return steps, missing

    def _require_memory(self, name: str) -> None:
        """Raise RunError if the host has no memory for another copy of the tables and their optimizer state."""
        if self.device.type == "cpu":
            state = 4 * state_per_row(self.optimizer, self.architecture) * sum(self.architecture.rows_per_table)
            require_memory(table_bytes(self.architecture) + state, f"the tables of {name}")

    def _programs(self) -> Iterator[tuple[str, Callable[[], Step], str | None]]:
        """Yield names, functions that make a step, and why they would be wrong or fail."""
        reason = None
        if self.optimizer not in PLAIN_OPTIMIZERS:
            reason = f"torch.optim has no {self.optimizer}"
        elif self.architecture.embedding_precision != "fp32":
            reason = "torch.optim does not round stochastically"
        yield PLAIN, self._plain(compiled=False), reason
        if self.with_compile and reason is None:
            yield COMPILED, self._plain(compiled=True), self._no_compiler()
        yield TORCHREC, self._torchrec, unavailable()

    def _plain(self, *, compiled: bool) -> Callable[[], Step]:
        return lambda: PlainStep(
            self.architecture,
            self.batch,
            self.precision,
            self.device,
            RATE,
            optimizer=self.optimizer,
            compiled=compiled,
        )

    def _torchrec(self) -> Step:
        return TorchRecStep(
            self.architecture, self.batch, self.precision, self.device, RATE, optimizer=self.optimizer
        )

    def _no_compiler(self) -> str | None:
        names = ("gcc", "clang") if self.device.type == "cuda" else ("g++", "clang++")
        return None if any(map(shutil.which, names)) else f"no C++ compiler ({' or '.join(names)})"
