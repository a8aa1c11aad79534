"""Optional packages for plots."""

from __future__ import annotations

from importlib.util import find_spec

from mlperf.util.errors import UsageError


def require_packages(flag: str, *packages: str) -> None:
    """Raise UsageError if one of `packages` (names on PyPI that are also the names to import) is not installed."""
    for package in packages:
        if find_spec(package) is None:
            raise UsageError(f"{flag}: requires the package {package} (pip install {package})")
