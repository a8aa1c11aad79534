"""Import and run modules of bench/ in the tests."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import pytest
from program import ROOT


def bench_module(name: str) -> Any:
    """Return a module of bench/ or bench/gpu/, run with the package `mlperf` of the tests."""
    for folder in (str(ROOT / "bench"), str(ROOT / "bench" / "gpu")):
        if folder not in sys.path:
            sys.path.append(folder)
    # bench/checkout.py would load another `mlperf`, from the same files.
    sys.modules.setdefault("checkout", ModuleType("checkout"))
    return importlib.import_module(name)


def printed(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *flags: str
) -> list[str]:
    """Return the lines that a script prints."""
    monkeypatch.setattr("sys.argv", [f"{script}.py", *flags])
    assert bench_module(script).main() in (None, 0)
    return capsys.readouterr().out.splitlines()
