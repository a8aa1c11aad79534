"""Start the programs of `mlperf.cli` for the scripts of this folder.

They use the `mlperf` package of this checkout, even if another one is installed, so that they work before
anything is installed in this Python. Outside a checkout they use the installed one.
"""

from __future__ import annotations

import importlib
import signal
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


def run(program: str) -> int:
    """Run `mlperf.cli.<program>` with the command-line arguments and return its exit status."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports prints no traceback
    _import_package()
    try:
        module = importlib.import_module(f"mlperf.cli.{program}")
    except ModuleNotFoundError as error:
        print(
            f"{Path(sys.argv[0]).name}: error: {error.name} is not installed in this Python ({sys.executable}): "
            "run tools/setup.sh and use .venv/bin/python",
            file=sys.stderr,
        )
        return 1
    status: int = module.main()
    return status


def _import_package() -> None:
    """Import `mlperf` from the checkout, if there is one: a search would prefer what is installed."""
    spec = PathFinder.find_spec("mlperf", [str(CHECKOUT)])
    if spec is None or spec.loader is None:
        return
    sys.modules["mlperf"] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules["mlperf"])
