"""Make `mlperf` the package of this checkout, even if another is installed. Scripts import this module first."""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

_spec = PathFinder.find_spec("mlperf", [str(Path(__file__).resolve().parent.parent)])
assert _spec is not None
assert _spec.loader is not None
sys.modules["mlperf"] = module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["mlperf"])
