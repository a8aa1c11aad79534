"""Optional packages for plots, and how a figure is saved."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mlperf.util.errors import UsageError
from mlperf.util.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def require_packages(what: str, *packages: str) -> None:
    """Raise UsageError if one of `packages` (names on PyPI that are also the names to import) is not installed.

    what: the flag or the activity that requires them.
    """
    for package in packages:
        if find_spec(package) is None:
            raise UsageError(f"{what} requires the package {package} (pip install {package})")


def save_figure(figure: Figure, path: Path, *, dpi: int) -> None:
    """Save a matplotlib figure in the format that the suffix of `path` names, atomically.

    OSError if the file cannot be written, ValueError if the format is unknown.
    """
    with atomic_file(path) as file:
        figure.savefig(file, dpi=dpi, format=path.suffix.removeprefix("."))
