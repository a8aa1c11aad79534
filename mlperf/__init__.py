"""The MLPerf recommendation benchmark, DLRM. `mlperf.run` trains or evaluates a model from Python."""

import signal
import sys
from os.path import basename
from typing import TYPE_CHECKING, Any

from mlperf.util.compiler_cache import choose_numba_cache
from mlperf.version import __version__

if TYPE_CHECKING:
    from mlperf.runner.api import run

__all__ = ["__version__", "run"]

# Ctrl-C during the imports of `python -m mlperf.NAME` or an installed program prints no traceback. sys.argv[0] is
# "-m" until Python has found the module. Other programs that import this package keep their handler.
_is_program = bool(sys.argv) and (sys.argv[0] == "-m" or basename(sys.argv[0]).startswith("dlrm-"))
if _is_program and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

choose_numba_cache()


def __getattr__(name: str) -> Any:
    """Import `run`, and with it torch, only where it is used."""
    if name != "run":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mlperf.runner.api import run

    return run
