"""How a training run ended. Kept apart from the events so that reading logs needs no PyTorch."""

from __future__ import annotations

from enum import Enum


class Outcome(Enum):
    """How a run ended. A run without a threshold that reaches its end is a success."""

    SUCCESS = "success"
    TARGET_MISSED = "target missed"
    DIVERGED = "diverged"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
