"""What the editions of MLPerf Training that had this benchmark ask for, as data.

Source: the rule files of the official checker for each edition and the published training rules.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Edition:
    """One edition: its name as the checker knows it, and the test AUC that ends a run."""

    name: str
    auc_target: float


EDITIONS = {name: Edition(name, 0.8025) for name in ("0.7.0", "1.0.0", "1.1.0", "2.0.0", "2.1.0")}
DEFAULT_EDITION = EDITIONS["2.1.0"]
