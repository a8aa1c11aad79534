"""Decimals whose nearest float32 depends on more digits than the compiled code uses."""

from __future__ import annotations

import numpy as np

from mlperf.data.text.blocks import Bytes


def settled(text: Bytes) -> tuple[np.int32, bool]:
    """Return the bits of the float32 nearest to the float64 nearest to a decimal, and whether it is finite."""
    with np.errstate(over="ignore"):
        value = np.float32(float(text.tobytes()))
    return value.view(np.int32), bool(np.isfinite(value))
