"""Damaged data: binary files, manifests, archives, counts, states of preparations.

A program must refuse them in one line or print what it prints for undamaged ones. Files without checksums (text,
and the binary files of other programs) may be read with other numbers, but never end in anything but a line.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import raw_text
from program import GOLDEN, ROOT, golden_flags
from reference_folders import ONE_HOT, ROWS, SIZES

from hostile.damage import EVERY_FORMAT, REPACKED, Damage, header_field
from hostile.malformed_data import MALFORMED, Write
from hostile.materials import prepared_data, train_flags
from hostile.oracle import Outcome, memory_failure, program_failure
from hostile.pool import IDENTICAL, REFUSED, UNCHECKED, Case, Failed, Server

_SECONDS = 15.0
PARTS = ("dense", "labels", "sparse")
# What a program gives for undamaged files: its output, and the rows that it prepared.
Undamaged = tuple[Outcome, dict[str, bytes]]


@dataclass(frozen=True)
class Target:
    """A file to damage in a copy of `folder`, and the program that reads it there.

    checked: whether every change must be noticed. keep_time: whether its modification time stays.
    """

    name: str
    folder: Path
    file: str
    program: str
    flags: tuple[str, ...]
    checked: bool = True
    keep_time: bool = False
    damages: tuple[Damage, ...] = EVERY_FORMAT


def targets(folder: Path, server: Server) -> list[Target]:
    """Prepare the folders of all targets below `folder`."""
    own = folder / "own"
    own.mkdir()
    prepared_data(own, server)
    foreign = folder / "foreign"
    foreign.mkdir()
    for split in ("train", "test", "val"):
        shutil.copy(own / f"processed_{split}.bin", foreign)
    shutil.copy(GOLDEN / "terabyte" / "day_fea_count.npz", foreign)
    kaggle = folder / "kaggle"
    kaggle.mkdir()
    shutil.copy(GOLDEN / "kaggle" / "kaggleAdDisplayChallenge_processed.npz", kaggle / "x.npz")
    text = folder / "text"
    text.mkdir()
    raw_text.write_days(text, [60, *([5] * 22), 21], seed=3)
    started = _started_preparation(folder / "started", text, server)
    distances = folder / "distances"
    distances.mkdir()
    for path in (ROOT / "input").glob("dist_emb_*.log"):
        shutil.copy(path, distances)
    trainer = "dlrm_s_pytorch.py"
    train = train_flags(Path("processed"), "--nepochs=1")
    archive = tuple(flag for flag in golden_flags("kaggle_sgd", Path("x.npz")) if "raw-data-file" not in flag)
    preparer = (
        "tools/prepare_criteo.py",
        ("--data-set=terabyte", "--raw-data-file=day", "--processed-data-file=x"),
    )
    synthetic = ("--data-generation=synthetic", "--data-trace-file=dist_emb_j.log", "--data-size=8")
    zipped = (*EVERY_FORMAT, *(header_field,) * 6, *REPACKED)
    return [
        *(Target(f"{split} split", own, f"processed_{split}.bin", trainer, train) for split in ("train", "test")),
        *(
            Target(f"{split} split, verified", own, f"processed_{split}.bin", *_VERIFY, keep_time=True)
            for split in ("train", "test", "val")
        ),
        Target("manifest", own, "processed.json", trainer, train),
        Target("manifest, verified", own, "processed.json", *_VERIFY),
        Target("counts", foreign, "day_fea_count.npz", trainer, train, damages=zipped),
        *(
            Target(f"{split} split without a manifest", foreign, f"processed_{split}.bin", trainer, train, False)
            for split in ("train", "test", "val")
        ),
        Target("archive of rows", kaggle, "x.npz", trainer, archive, damages=zipped),
        Target("text", text, "day_0", *preparer, checked=False),
        Target("state of a preparation", started, "x.preparation/state.json", _IN_PIECES, ()),
        Target("stack distances", distances, "dist_emb_0.log", trainer, synthetic, checked=False),
        *reference_targets(folder / "reference", server),
    ]


def reference_targets(folder: Path, server: Server) -> list[Target]:
    """Copy the files of the DLRM-DCNv2 reference to `folder`, with weights, a list of checksums and drawn ids."""
    shutil.copytree(ONE_HOT, folder / "data")
    shutil.copy(GOLDEN / "dcnv2" / "initial.npz", folder)
    sums = (f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.name}\n" for path in ONE_HOT.iterdir())
    (folder / "sums.txt").write_text("".join(sums))
    rows, sizes = ("-".join(map(str, numbers)) for numbers in (ROWS, SIZES))
    train = (
        *("--data-generation=dataset", "--data-set=terabyte_dcnv2", "--processed-data-file=data"),
        *(f"--arch-embedding-size={rows}", f"--multi-hot-sizes={sizes}", "--multi-hot-tables=ids.npz"),
        *("--arch-sparse-feature-size=16", "--arch-mlp-bot=13-32-16", "--arch-mlp-top=64-32-1"),
        *("--arch-interaction-op=dcn", "--dcn-low-rank-dim=24", "--loss-function=bce_logits"),
        *("--load-weights=initial.npz", "--mini-batch-size=512", "--num-batches=2", "--print-freq=1"),
    )
    done = server.program(folder, *train)
    assert done.status == 0, done.stderr
    trainer, verify = "dlrm_s_pytorch.py", ("tools/verify_data.py", ("data", "--checksums=sums.txt"))
    zipped = (*EVERY_FORMAT, *(header_field,) * 6)
    return [
        *(Target(f"array of {part}", folder, f"data/day_1_{part}.npy", trainer, train, False) for part in PARTS),
        *(Target(f"array of {part}, verified", folder, f"data/day_1_{part}.npy", *verify) for part in PARTS),
        Target("initial weights", folder, "initial.npz", trainer, train, damages=(*zipped, *REPACKED)),
        Target("expanded ids", folder, "ids.npz", trainer, train, checked=False, damages=zipped),
    ]


_IN_PIECES = "a preparation in small pieces"
_VERIFY = ("tools/verify_data.py", ("processed",))


def _started_preparation(folder: Path, text: Path, server: Server) -> Path:
    """Return a folder with a preparation that was killed after it had saved its state."""
    shutil.copytree(text, folder)
    state = folder / "x.preparation" / "state.json"
    for _ in range(50):
        pid = server.start("prepare", folder, raw="day", processed="x")
        end = time.monotonic() + 5
        while not state.exists() and time.monotonic() < end and not (folder / "x.json").exists():
            pass
        os.kill(pid, signal.SIGKILL)
        server.wait()
        if state.exists():
            return folder
        for path in folder.glob("x*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    raise RuntimeError("no preparation could be killed in time")


def cases(count: int, seed: int, folder: Path, server: Server) -> Iterator[Case]:
    """Yield `count` cases: two of three with damaged bytes, the others with files of wrong contents."""
    found = targets(folder, server)
    expected: dict[str, Undamaged] = {}
    for target in found:
        place = folder / f"undamaged-{len(expected)}"
        shutil.copytree(target.folder, place)
        outcome = _use(target, place, server)
        assert outcome.status == 0, (target.name, outcome.stderr)
        expected[target.name] = outcome, _products(place)
    malformed = [target for target in found if target.name in MALFORMED]
    for number in range(count):
        draw = random.Random(f"{seed}/{number}")
        if number % 3 < 2:
            target = found[number % len(found)]
            damage = draw.choice(target.damages)
            run: Callable[[Server, Path], str] = partial(_attack, target, damage, draw, expected)
            yield Case("damaged data", f"{number}: {target.name}, {damage.__name__.replace('_', ' ')}", run)
        else:
            target = malformed[(number // 3) % len(malformed)]
            label, write = draw.choice(list(MALFORMED[target.name].items()))
            run = partial(_attack_with, target, write, draw, expected)
            yield Case("malformed data", f"{number}: {target.name}, {label}", run)


def _use(target: Target, place: Path, server: Server) -> Outcome:
    if target.program == _IN_PIECES:
        server.start("prepare", place, raw="day", processed="x")
    else:
        server.start("program", place, program=target.program, flags=list(target.flags))
    return server.wait(_SECONDS)


def _products(place: Path) -> dict[str, bytes]:
    """Return the rows that were prepared."""
    return {path.name: path.read_bytes() for path in place.glob("x_*.bin")}


def _attack(
    target: Target,
    damage: Damage,
    draw: random.Random,
    expected: dict[str, Undamaged],
    server: Server,
    folder: Path,
) -> str:
    def write(path: Path, draw: random.Random) -> None:
        content = path.read_bytes()
        status = path.stat()
        path.write_bytes(damage(content, bytes(reversed(content)), draw))
        if target.keep_time:
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    return _attack_with(target, write, draw, expected, server, folder)


def _attack_with(
    target: Target,
    write: Write,
    draw: random.Random,
    expected: dict[str, Undamaged],
    server: Server,
    folder: Path,
) -> str:
    place = folder / "place"
    shutil.copytree(target.folder, place)
    write(place / target.file, draw)
    outcome, (undamaged, products) = _use(target, place, server), expected[target.name]
    failure = program_failure(outcome, verifies=target.program == "tools/verify_data.py")
    failure = failure or memory_failure(outcome, undamaged.peak_bytes)
    if failure:
        raise Failed(failure)
    if outcome.status:
        return REFUSED
    if outcome.stdout == undamaged.stdout and _products(place) == products:
        return IDENTICAL
    if target.checked:
        raise Failed(f"accepted, with another result: {outcome.stdout[-200:]!r}")
    return UNCHECKED
