"""Output files with hostile names: only what was named is changed, and nothing is replaced that is not a file.

A case puts something at the path that a program is told to write, and compares the whole folder before and after.
Programs run without privileges, because nothing is forbidden to root.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import raw_text
import torch

from hostile.materials import own_checkpoint, prepared_data, train_flags
from hostile.oracle import Snapshot, changes, program_failure, snapshot
from hostile.pool import PASSED, REFUSED, Case, Failed, Server
from hostile.traps import PREPARATION_TRAPS, TRAPS, Trap

_SECONDS = 30.0  # a program that opens a pipe waits for its other end


@dataclass(frozen=True)
class Output:
    """A file that the trainer writes. flags(data, path) returns its flags.

    checkpoints, logs, others: what it writes, with NAMED for the path.
    """

    name: str
    flags: Callable[[Path, str], tuple[str, ...]]
    checkpoints: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def _train(data: Path, *flags: str) -> tuple[str, ...]:
    return train_flags(data, "--nepochs=1", *flags)


NAMED = "<path>"
OUTPUTS = (
    Output(
        "--save-model", lambda data, path: _train(data, f"--save-model={path}"), (NAMED,), ("mlperf_dlrm.log",)
    ),
    Output("--mlperf-log-file", lambda data, path: _train(data, f"--mlperf-log-file={path}"), (), (NAMED,)),
    Output(
        "--save-model with a log",
        lambda data, path: _train(data, f"--save-model={path}", "--mlperf-log-file=out/own.log"),
        *((NAMED,), ("out/own.log",)),
    ),
    Output(
        "--mlperf-log-file with a checkpoint",
        lambda data, path: _train(data, f"--mlperf-log-file={path}", "--save-model=out/own.pt"),
        *(("out/own.pt",), (NAMED,)),
    ),
    Output(
        "--output-dir",
        lambda data, path: _train(data, f"--output-dir={path}", "--checkpoint-every=60"),
        (f"{NAMED}/model.pt", f"{NAMED}/last.pt"),
        (f"{NAMED}/mlperf.log",),
        (NAMED, f"{NAMED}/settings.toml", f"{NAMED}/metrics.jsonl"),
    ),
)


def cases(count: int, seed: int, folder: Path, server: Server) -> Iterator[Case]:
    """Yield `count` of the combinations of outputs and traps, all of them if `count` is large enough."""
    data = prepared_data(folder, server)
    older = own_checkpoint("sgd", folder, data, server).path
    raw = folder / "raw"
    raw.mkdir()
    raw_text.write_days(raw, [30, *([5] * 22), 11], seed=3)
    combinations: list[tuple[str, Callable[[random.Random, Server, Path], str]]] = [
        (f"{output.name} is {name}", partial(_attack, output, trap, data, older))
        for output in OUTPUTS
        for name, trap in TRAPS.items()
    ]
    combinations += [
        (f"{ending} of a preparation is {name}", partial(_attack_preparation, ending, trap, raw))
        for ending in _ENDINGS
        for name, trap in PREPARATION_TRAPS.items()
    ]
    random.Random(seed).shuffle(combinations)
    for number, (name, run) in enumerate(combinations[:count]):
        yield Case("hostile path", f"{number}: {name}", partial(run, random.Random(f"{seed}/{number}")))


def _attack(
    output: Output, trap: Trap, data: Path, older: Path, draw: random.Random, server: Server, folder: Path
) -> str:
    (folder / "data").mkdir()
    (folder / "out").mkdir()
    for path in data.parent.glob(f"{data.name}*"):
        shutil.copy2(path, folder / "data")
    shutil.copy2(older, folder / "older.pt")
    (folder / "precious.txt").write_text("precious\n")
    named = trap(folder, draw)
    flags = output.flags(Path("data/processed"), named)
    checkpoints, logs, others = (
        [name.replace(NAMED, named) for name in names]
        for names in (output.checkpoints, output.logs, output.others)
    )
    others += [str(parent) for name in others for parent in Path(name).parents]  # a folder is created in a new one
    before = snapshot(folder)
    server.start("program", folder, program="dlrm_s_pytorch.py", flags=list(flags))
    outcome = server.wait(_SECONDS)
    allowed = {path for name in (*checkpoints, *logs, *others) for path in _names(folder, name)}
    failure = program_failure(outcome)
    failure = failure or _harm(before, snapshot(folder), allowed, refused=outcome.status != 0)
    if failure is None and outcome.status == 0:
        failure = _missing([folder / name for name in checkpoints], [folder / name for name in logs])
    if failure:
        raise Failed(f"{failure} ({outcome.error or 'no message'})")
    return REFUSED if outcome.status else PASSED


def _names(folder: Path, name: str) -> set[str]:
    """Return a path relative to `folder`, as it is written and without links."""
    return {
        os.path.relpath(path, folder)
        for path in (os.path.normpath(folder / name), os.path.realpath(folder / name))
    }


def _harm(before: Snapshot, after: Snapshot, allowed: set[str], refused: bool) -> str | None:
    """Return what was done to files that were there, or to names that were not allowed."""
    for path in changes(before, after):
        if path not in before:
            if path not in allowed:
                return f"writes {path}"
        elif path not in after:
            return f"removes {path}"
        elif before[path][0][0] != "-" or path not in allowed or path.startswith("data/"):
            return f"{'refused, but ' if refused else ''}changes {path}"
        elif path not in ("older.pt", "out/target") or (path == "out/target" and refused):
            return f"replaces {path}"
    return None


def _missing(checkpoints: list[Path], logs: list[Path]) -> str | None:
    """Return what is wrong with the outputs after success: they must be whole checkpoints and logs."""
    for path in (*checkpoints, *logs):
        if not path.exists():
            return f"success, but {path.name} is missing"
        if not path.is_file() or str(path).startswith(("/dev", "/proc", "/sys")):
            continue
        content = path.read_bytes()
        if path in logs and (not content.startswith(b":::MLLOG") or b'"run_stop"' not in content):
            return f"success, but {path.name} is no whole log"
        if path in checkpoints and "state_dict" not in torch.load(path, weights_only=False):
            return f"success, but {path.name} is no checkpoint"
    return None


_ENDINGS = (".preparation", ".lock", ".json", "_train.bin", "_val.bin", ".npz")


def _attack_preparation(
    ending: str, trap: Callable[[Path, Path], None], raw: Path, draw: random.Random, server: Server, folder: Path
) -> str:
    (folder / "precious.txt").write_text("precious\n")
    (folder / "precious").mkdir()
    (folder / "precious" / "state.json").write_text("precious\n")
    trap(folder / f"x{ending}", folder)
    flags = (f"--raw-data-file={raw / 'day'}", "--processed-data-file=x", "--data-set=terabyte")
    allowed = {f"x{name}" for name in ("_train.bin", "_test.bin", "_val.bin", ".json", ".ids")}
    before = snapshot(folder)
    server.start("program", folder, program="tools/prepare_criteo.py", flags=list(flags))
    outcome = server.wait(_SECONDS)
    after = snapshot(folder)
    failure = program_failure(outcome)
    harmed = [path for path in changes(before, after) if path in before or path not in allowed]
    if failure is None and harmed:
        failure = f"{'refused, but ' if outcome.status else ''}changes {harmed}"
    if failure:
        raise Failed(f"{failure} ({outcome.error or 'no message'})")
    return REFUSED if outcome.status else PASSED
