"""The MLPerf recommendation benchmark, DLRM. `mlperf.run` trains or evaluates a model from Python."""

from typing import TYPE_CHECKING, Any

from mlperf.util.compiler_cache import choose_numba_cache
from mlperf.version import __version__

if TYPE_CHECKING:
    from mlperf.runner.api import run

__all__ = ["__version__", "run"]

choose_numba_cache()


def __getattr__(name: str) -> Any:
    """Import `run`, and with it torch, only where it is used."""
    if name != "run":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mlperf.runner.api import run

    return run
