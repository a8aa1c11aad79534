"""Runs the programs of `mlperf.cli` for the files of this folder.

`mlperf` is the one of the checkout that this file lies in, so that a tool works before anything is installed in
this Python; outside a checkout it is the installed one.
"""

from __future__ import annotations

import importlib
import site
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


def run(program: str) -> int:
    """Run `mlperf.cli.<program>` on the arguments of the command line and return its exit status."""
    if (CHECKOUT / "mlperf" / "__init__.py").is_file():
        site.addsitedir(str(CHECKOUT))
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
