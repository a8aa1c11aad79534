"""Registry of optimizers and interactions by their names on the command line.

Classes are given as "module:class" and imported by `load` when a run needs them, so that flags can be parsed
without importing torch. A new optimizer or interaction needs its own module, one line here, and its test.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

# --optimizer: subclasses of mlperf.optim.optimizer.Optimizer.
OPTIMIZERS: Mapping[str, str] = {
    "sgd": "mlperf.optim.sgd:SGD",
    "adagrad": "mlperf.optim.adagrad:Adagrad",
    "rwsadagrad": "mlperf.optim.rowwise_adagrad:RowWiseAdagrad",
}

# --arch-interaction-op: subclasses of mlperf.models.layers.interaction.Interaction.
INTERACTIONS: Mapping[str, str] = {
    "dot": "mlperf.models.layers.dot:DotInteraction",
    "cat": "mlperf.models.layers.cat:CatInteraction",
    "sum": "mlperf.models.layers.sum:SumInteraction",
    "dcn": "mlperf.models.layers.cross:CrossInteraction",
}


def load(entry: str) -> Any:
    """Import and return the class given as "module:class"."""
    module, _, name = entry.partition(":")
    return getattr(import_module(module), name)
