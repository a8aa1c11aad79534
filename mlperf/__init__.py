"""The MLPerf recommendation benchmark: DLRM."""

from mlperf.util.numba_cache import choose_numba_cache
from mlperf.version import __version__

__all__ = ["__version__"]

choose_numba_cache()
