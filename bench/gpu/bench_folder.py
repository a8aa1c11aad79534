"""Find the modules of bench/ and the package `mlperf` of this checkout; scripts of this folder import it first."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

import checkout  # noqa: F401
