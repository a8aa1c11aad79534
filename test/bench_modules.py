"""Import modules of bench/ into the tests."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from program import ROOT


def bench_module(name: str) -> Any:
    """Return a module of bench/ or bench/gpu/, run with the package `mlperf` of the tests."""
    for folder in (str(ROOT / "bench"), str(ROOT / "bench" / "gpu")):
        if folder not in sys.path:
            sys.path.append(folder)
    # bench/checkout.py would load another `mlperf`, from the same files.
    sys.modules.setdefault("checkout", ModuleType("checkout"))
    return importlib.import_module(name)
