"""A full disk: files cannot grow beyond a limit. What was there stays, and what is there is whole."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import raw_text
import torch

from hostile.materials import own_checkpoint, prepared_data, train_flags
from hostile.oracle import checkpoint_fingerprint, program_failure, snapshot
from hostile.pool import PASSED, REFUSED, Case, Failed, Server

_LIMITS = (3_000, 300_000)  # bytes; the output of a run, its log, its checkpoint and the data have such sizes
_KIND = "full disk"


def cases(count: int, seed: int, folder: Path, server: Server) -> Iterator[Case]:
    """Yield `count` cases: a training run in two of three, a preparation in the others."""
    data = prepared_data(folder, server)
    older = own_checkpoint("sgd", folder, data, server).other
    place = folder / "whole"
    place.mkdir()
    flags = train_flags(data, "--save-model=m.pt")
    assert server.program(place, *flags).status == 0
    raw = folder / "raw"
    raw.mkdir()
    raw_text.write_days(raw, [900, 20, 250, *([40] * 20), 801], seed=11)
    preparation = (f"--raw-data-file={raw / 'day'}", "--processed-data-file=x", "--data-set=terabyte")
    place = folder / "prepared"
    place.mkdir()
    assert server.program(place, *preparation, program="tools/prepare_criteo.py").status == 0
    for number in range(count):
        limit = random.Random(f"{seed}/{number}").randint(*_LIMITS)
        if number % 3 < 2:
            run = partial(_attack_training, flags, older if number % 2 else None, limit)
            yield Case(_KIND, f"{number}: training, {limit:,} bytes", run)
        else:
            run = partial(_attack_preparation, preparation, _whole_files(place), limit)
            yield Case(_KIND, f"{number}: preparation, {limit:,} bytes", run)


def _attack_training(flags: tuple[str, ...], older: Path | None, limit: int, server: Server, folder: Path) -> str:
    saved = folder / "m.pt"
    if older is not None:
        shutil.copy(older, saved)
    known = {None if older is None else checkpoint_fingerprint(older)}
    outcome = server.program(folder, *flags, file_bytes=limit)
    if failure := program_failure(outcome, statuses=(1,)):
        raise Failed(failure)
    if left := sorted({path.name for path in folder.iterdir()} - {"m.pt", "mlperf_dlrm.log"}):
        raise Failed(f"leaves {left} behind")
    if (
        outcome.status
        and (checkpoint_fingerprint(saved) if saved.exists() else None) not in known
        and limit < 100_000
    ):
        raise Failed("the checkpoint that was there is lost")
    if saved.exists() and "state_dict" not in torch.load(saved, weights_only=False):
        raise Failed("the checkpoint is not whole")
    log = folder / "mlperf_dlrm.log"
    if outcome.status and log.exists() and '"status": "success"' in log.read_text():
        raise Failed("the log of a failed run says success")
    return REFUSED if outcome.status else PASSED


def _attack_preparation(
    flags: tuple[str, ...], whole: dict[str, Any], limit: int, server: Server, folder: Path
) -> str:
    outcome = server.program(folder, *flags, program="tools/prepare_criteo.py", file_bytes=limit)
    if failure := program_failure(outcome, statuses=(1,)):
        raise Failed(failure)
    found = _whole_files(folder)
    if (outcome.status and found.keys() - whole.keys()) or not found.items() <= whole.items():
        raise Failed(f"there are files that look complete: {sorted(found)}")
    again = server.program(folder, *flags, program="tools/prepare_criteo.py")
    if again.status or _whole_files(folder) != whole:
        raise Failed(f"with space again, the result is another: {again.error}")
    if left := sorted(snapshot(folder).keys() - whole.keys() - {"x.json", "x.ids"}):
        raise Failed(f"leaves {left} behind")
    return REFUSED if outcome.status else PASSED


def _whole_files(folder: Path) -> dict[str, Any]:
    return {path.name: path.read_bytes() for path in folder.glob("x_*.bin")}
