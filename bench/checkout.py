"""Make `mlperf` the package of this checkout, whatever is installed. Scripts import this module first.

A package that is missing from the environment is reported in one line.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import TracebackType


def _report(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if not isinstance(error, ModuleNotFoundError):
        sys.__excepthook__(kind, error, traceback)
        return
    print(
        f"{Path(sys.argv[0]).name}: error: {error.name} is not installed in this Python ({sys.executable}): "
        "run tools/setup.sh and use .venv/bin/python",
        file=sys.stderr,
    )


sys.excepthook = _report
_spec = PathFinder.find_spec("mlperf", [str(Path(__file__).resolve().parent.parent)])
assert _spec is not None
assert _spec.loader is not None
sys.modules["mlperf"] = module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["mlperf"])
