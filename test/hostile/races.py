"""Files that change while they are read: one version of the file is read, or the program says that it changed."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from hostile.checkpoints import LOADED, use_checkpoint
from hostile.materials import Checkpoint, own_checkpoint, prepared_data, train_flags
from hostile.oracle import Outcome, program_failure
from hostile.pool import IDENTICAL, REFUSED, Case, Failed, Server

# Changes a file once, given the two versions of its content.
Change = Callable[[Path, bytes, bytes, random.Random], None]


def _replace(path: Path, first: bytes, second: bytes, draw: random.Random) -> None:
    """Replace the file as a saver does: atomically."""
    temporary = path.with_name("new")
    temporary.write_bytes(draw.choice([first, second]))
    os.replace(temporary, path)


def _overwrite(path: Path, first: bytes, second: bytes, draw: random.Random) -> None:
    """Overwrite the file as cp does: it is empty at first, then grows."""
    content = draw.choice([first, second])
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(content), 40_000):
            file.write(content[start : start + 40_000])


def _truncate(path: Path, first: bytes, second: bytes, draw: random.Random) -> None:
    """Shorten the file and write its end again."""
    size = draw.randrange(len(first))
    os.truncate(path, size)
    time.sleep(draw.uniform(0, 0.002))
    with path.open("r+b") as file:
        file.seek(size)
        file.write(first[size:])


def _remove(path: Path, first: bytes, second: bytes, draw: random.Random) -> None:
    path.unlink(missing_ok=True)
    time.sleep(draw.uniform(0, 0.002))
    path.write_bytes(first)


CHANGES: dict[str, Change] = {
    "replaced": _replace,
    "overwritten": _overwrite,
    "truncated": _truncate,
    "removed": _remove,
}


@contextmanager
def _changing(change: Change, path: Path, first: bytes, second: bytes, draw: random.Random) -> Iterator[None]:
    """Change a file again and again during the `with` block."""
    stop = threading.Event()

    def go_on() -> None:
        while not stop.wait(draw.choice([0, draw.uniform(0, 0.003), draw.uniform(0, 0.03)])):
            change(path, first, second, draw)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def cases(count: int, seed: int, folder: Path, server: Server) -> Iterator[Case]:
    """Yield `count` cases: a checkpoint that changes while it is loaded, or data while it is trained on."""
    data = prepared_data(folder, server)
    file = own_checkpoint("adagrad", folder, data, server)
    versions = [use_checkpoint(file, path, folder, server) for path in (file.path, file.other)]
    flags = train_flags(Path("processed"), "--nepochs=4")
    run = server.program(data.parent, *flags, "--mlperf-log-file=race.log")
    assert run.status == 0, run.stderr
    names = list(CHANGES)
    for number in range(count):
        draw = random.Random(f"{seed}/{number}")
        name = names[number % len(names)]
        if number % 3 < 2:
            attack: Callable[[Server, Path], str] = partial(_attack_loading, file, versions, CHANGES[name], draw)
            yield Case("checkpoint changed while it is loaded", f"{number}: {name}", attack)
        else:
            attack = partial(_attack_training, data, flags, run, CHANGES[name], draw)
            yield Case("data changed while it is trained on", f"{number}: {name}", attack)


def _attack_loading(
    file: Checkpoint, versions: list[Outcome], change: Change, draw: random.Random, server: Server, folder: Path
) -> str:
    path = folder / "m.pt"
    contents = file.content, file.other.read_bytes()
    path.write_bytes(contents[0])
    with _changing(change, path, *contents, draw):
        outcome = use_checkpoint(file, path, folder, server)
    if failure := program_failure(outcome, statuses=(1,)):
        raise Failed(failure)
    loaded = [outcome.result.get(name) for name in LOADED]
    if "error" not in outcome.result and loaded not in [
        [each.result[name] for name in LOADED] for each in versions
    ]:
        raise Failed("loads neither of the two versions")
    if outcome.status == 0 and outcome.stdout not in [each.stdout for each in versions]:
        raise Failed("evaluates neither of the two versions")
    return IDENTICAL if outcome.status == 0 else REFUSED


def _attack_training(
    data: Path,
    flags: tuple[str, ...],
    run: Outcome,
    change: Change,
    draw: random.Random,
    server: Server,
    folder: Path,
) -> str:
    for path in data.parent.glob(f"{data.name}*"):
        shutil.copy2(path, folder)
    split = folder / f"{data.name}_{draw.choice(['train', 'test'])}.bin"
    content = split.read_bytes()
    rows = [content[start : start + 160] for start in range(0, len(content), 160)]
    draw.shuffle(rows)
    server.start("program", folder, program="dlrm_s_pytorch.py", flags=list(flags))
    time.sleep(draw.uniform(0, 0.5))
    with _changing(change, split, content, b"".join(rows), draw):
        outcome = server.wait()
    if failure := program_failure(outcome, statuses=(1,)):
        raise Failed(failure)
    if outcome.status == 0 and outcome.stdout != run.stdout:
        raise Failed("trains on a mix of two versions")
    return IDENTICAL if outcome.status == 0 else REFUSED
