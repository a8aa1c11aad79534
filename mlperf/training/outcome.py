"""Outcome of a training run. Apart from the events, so that reading logs needs no PyTorch."""

from __future__ import annotations

from enum import Enum


class Outcome(Enum):
    """Outcome of a run. A completed run without a threshold is a success."""

    SUCCESS = "success"
    TARGET_MISSED = "target missed"
    DIVERGED = "diverged"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
