"""Shared fixtures: the golden data, prepared once."""

from __future__ import annotations

from pathlib import Path

import pytest
from program import GOLDEN

from mlperf.data.criteo.plan import PreparationSettings
from mlperf.data.criteo.prepare import prepare


@pytest.fixture(scope="session")
def terabyte(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the golden Terabyte data is prepared, not randomized, ids modulo 40,000,000."""
    place = tmp_path_factory.mktemp("terabyte") / "processed"
    prepare(
        PreparationSettings(
            "terabyte", GOLDEN / "terabyte" / "day", place, max_ind_range=40_000_000, randomize="none"
        )
    )
    return place


@pytest.fixture(scope="session")
def kaggle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the golden Kaggle data is prepared, not randomized, no index limit."""
    place = tmp_path_factory.mktemp("kaggle") / "processed"
    prepare(PreparationSettings("kaggle", GOLDEN / "kaggle" / "train.txt", place, randomize="none"))
    return place
