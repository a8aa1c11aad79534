"""Shared fixtures: the golden data, prepared once."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import raw_text
import torch
from program import GOLDEN
from reference_folders import write_multi_hot_folder

from mlperf.data.prepare.pipeline import prepare
from mlperf.settings.dataset import PreparationSettings
from mlperf.util.signals import STOPPING

# A shell starts background jobs with some signals ignored, and so does nohup. The programs that the tests stop
# would inherit that.
for number in STOPPING:
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

# Where there is no GPU Triton's interpreter runs its kernels: asked for before they are defined.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def terabyte(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the prefix of the prepared golden Terabyte data: not shuffled, ids modulo 40,000,000."""
    place = tmp_path_factory.mktemp("terabyte") / "processed"
    prepare(
        PreparationSettings(
            "terabyte", GOLDEN / "terabyte" / "day", place, max_ind_range=40_000_000, randomize="none"
        )
    )
    return place


@pytest.fixture
def copied(terabyte: Path, tmp_path: Path) -> Path:
    """Return the prefix of a copy of `terabyte`, with its manifest, that a test may change."""
    for path in terabyte.parent.glob("processed*"):
        shutil.copy2(path, tmp_path)
    return tmp_path / "processed"


@pytest.fixture(scope="session")
def kaggle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the prefix of the prepared golden Kaggle data: not shuffled, no index limit."""
    place = tmp_path_factory.mktemp("kaggle") / "processed"
    raw = GOLDEN / "kaggle" / "train.txt"
    prepare(PreparationSettings("kaggle", raw, place, randomize="none", bin_loader=True))
    return place


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with days of text, for preparations that are interrupted."""
    folder = tmp_path_factory.mktemp("raw")
    raw_text.write_days(folder, [300, 20, 250, *([40] * 20), 101], seed=11)
    return folder


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use small blocks and buckets, as the killed programs do. The number of buckets decides the permutation."""
    monkeypatch.setattr("mlperf.data.text.blocks.BLOCK_BYTES", 8000)
    monkeypatch.setattr("mlperf.data.prepare.shuffle.SMALL_BUCKET_BYTES", 8000)


@pytest.fixture
def restored_threads() -> Iterator[None]:
    """Restore the number of threads after the test."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def multi_hot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with golden files of the DLRM-DCNv2 reference that have several ids per table."""
    return write_multi_hot_folder(tmp_path_factory.mktemp("dcnv2") / "multihot")
