"""Optional packages for plots."""

from __future__ import annotations

from importlib.util import find_spec

from mlperf.util.errors import UsageError


def require_packages(what: str, *packages: str) -> None:
    """Raise UsageError if one of `packages` (names on PyPI that are also the names to import) is not installed.

    what: the flag or the activity that requires them.
    """
    for package in packages:
        if find_spec(package) is None:
            raise UsageError(f"{what} requires the package {package} (pip install {package})")
