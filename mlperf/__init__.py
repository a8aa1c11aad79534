"""The MLPerf recommendation benchmark, DLRM.

From Python, `mlperf.run` trains or evaluates a model, and `mlperf.load` returns a trained one that predicts.
"""

import signal
import sys
from importlib import import_module
from os.path import basename
from typing import TYPE_CHECKING, Any

from mlperf.util.compiler_cache import choose_numba_cache
from mlperf.version import __version__

if TYPE_CHECKING:
    from mlperf.runner.api import run
    from mlperf.runner.loaded_model import Model, load

__all__ = ["Model", "__version__", "load", "run"]

# Names of the API by the module that defines them. They need torch, and are imported only where they are used.
_MODULES = {
    "run": "mlperf.runner.api",
    "load": "mlperf.runner.loaded_model",
    "Model": "mlperf.runner.loaded_model",
}

# Ctrl-C during the imports of `python -m mlperf.NAME` or an installed program prints no traceback. sys.argv[0] is
# "-m" until Python has found the module. Other programs that import this package keep their handler.
_is_program = bool(sys.argv) and (sys.argv[0] == "-m" or basename(sys.argv[0]).startswith("dlrm-"))
if _is_program and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

choose_numba_cache()


def __getattr__(name: str) -> Any:
    """Import a name of the API, and with it torch, only where it is used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
