"""Damaged data: binary files, manifests, archives, counts, states of preparations.

A program must refuse them in one line or print what it prints for undamaged ones. Files without checksums (text, and
the binary files of other programs) may be read with other numbers, but never end in anything but a line.
"""

from __future__ import annotations

import io
import json
import math
import os
import random
import shutil
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import raw_text
from program import GOLDEN, ROOT, golden_flags

from hostile.damage import EVERY_FORMAT, REPACKED, Damage, header_field
from hostile.materials import prepared_data, train_flags
from hostile.oracle import Outcome, memory_failure, program_failure
from hostile.pool import IDENTICAL, REFUSED, UNCHECKED, Case, Failed, Server

_SECONDS = 15.0


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
    preparation = ("--data-set=terabyte", "--raw-data-file=day", "--processed-data-file=x", "--data-randomize=total")
    synthetic = ("--data-generation=synthetic", "--data-trace-file=dist_emb_j.log", "--data-size=8", "--mini-batch-size=4")
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
        Target("text", text, "day_0", "tools/prepare_criteo.py", preparation, checked=False),
        Target("state of a preparation", started, "x.preparation/state.json", "tools/prepare_criteo.py", preparation),
        Target("stack distances", distances, "dist_emb_0.log", trainer, synthetic, checked=False),
    ]


_VERIFY = ("tools/verify_data.py", ("processed",))


def _started_preparation(folder: Path, text: Path, server: Server) -> Path:
    """Return a folder with a preparation that was killed after it had saved its state."""
    shutil.copytree(text, folder)
    state = folder / "x.preparation" / "state.json"
    for _ in range(50):
        pid = server.start("prepare", folder, raw=str(folder / "day"), processed=str(folder / "x"))
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
    """Yield `count` cases: two of three with damaged bytes, the others with well-formed files of wrong contents."""
    found = targets(folder, server)
    expected: dict[str, Outcome] = {}
    for target in found:
        place = folder / f"undamaged-{len(expected)}"
        shutil.copytree(target.folder, place)
        expected[target.name] = _use(target, place, server)
        assert expected[target.name].status == 0, (target.name, expected[target.name].stderr)
    malformed = [target for target in found if target.name in _MALFORMED]
    for number in range(count):
        draw = random.Random(f"{seed}/{number}")
        if number % 3 < 2:
            target = found[number % len(found)]
            damage = draw.choice(target.damages)
            run: Callable[[Server, Path], str] = partial(_attack, target, damage, draw, expected)
            yield Case("damaged data", f"{number}: {target.name}, {damage.__name__.replace('_', ' ')}", run)
        else:
            target = malformed[(number // 3) % len(malformed)]
            label, write = draw.choice(list(_MALFORMED[target.name].items()))
            run = partial(_attack_with, target, write, draw, expected)
            yield Case("malformed data", f"{number}: {target.name}, {label}", run)


def _use(target: Target, place: Path, server: Server) -> Outcome:
    server.start("program", place, program=target.program, flags=list(target.flags))
    return server.wait(_SECONDS)


def _attack(
    target: Target, damage: Damage, draw: random.Random, expected: dict[str, Outcome], server: Server, folder: Path
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
    write: Callable[[Path, random.Random], None],
    draw: random.Random,
    expected: dict[str, Outcome],
    server: Server,
    folder: Path,
) -> str:
    place = folder / "place"
    shutil.copytree(target.folder, place)
    write(place / target.file, draw)
    outcome, undamaged = _use(target, place, server), expected[target.name]
    failure = program_failure(outcome, verifies=target.program == "tools/verify_data.py")
    failure = failure or memory_failure(outcome, undamaged.peak_bytes)
    if failure:
        raise Failed(failure)
    if outcome.status:
        return REFUSED
    if outcome.stdout == undamaged.stdout:
        return IDENTICAL
    if target.checked:
        raise Failed(f"accepted, and prints something else: {outcome.stdout[-200:]!r}")
    return UNCHECKED


def _pipe(path: Path, draw: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _link(target: str) -> Callable[[Path, random.Random], None]:
    def write(path: Path, draw: random.Random) -> None:
        path.unlink()
        path.symlink_to(path.name if target == "itself" else target)

    return write


def _bytes(content: bytes) -> Callable[[Path, random.Random], None]:
    return lambda path, draw: path.write_bytes(content) and None  # type: ignore[func-returns-value]


_NO_FILE: dict[str, Callable[[Path, random.Random], None]] = {
    "a pipe": _pipe,
    "a folder": _folder,
    "a link to itself": _link("itself"),
    "/dev/zero": _link("/dev/zero"),
    "/dev/null": _link("/dev/null"),
    "empty": _bytes(b""),
    "a line": _bytes(b"hello\n"),
}


def _json_value(value: Any) -> Callable[[Path, random.Random], None]:
    """Replace one value of a JSON file, drawn from all of them, and drop its checksum."""

    def write(path: Path, draw: random.Random) -> None:
        content = json.loads(path.read_text())
        content.pop("manifest_crc32", None)
        holders = list(_holders(content))
        holder, key = draw.choice(holders)
        if holder[key] is not None and holder[key] != value:
            holder[key] = value
        else:
            del content["files"]
        path.write_text(json.dumps(content))

    return write


def _holders(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the containers of a JSON value that hold something of use, with the key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if key not in ("mtime_ns", "inputs", "name", "archive", "bad_rows"):  # may differ, or be empty
            yield value, key
            yield from _holders(item)


_JSON: dict[str, Callable[[Path, random.Random], None]] = {
    **{f"a value is {value!r}": _json_value(value) for value in (None, "x", -1, 2**70, 1.5, [], {}, True, math.nan)},
    "200,000 brackets": _bytes(b"[" * 200_000),
    "a number of 100,000 digits": _bytes(b"9" * 100_000),
    "null": _bytes(b"null"),
    "not Unicode": _bytes(b'{"\xff": 1}'),
    "one key twice": _bytes(b'{"format_version": 1, "format_version": 2}'),
}


def _npz(**arrays: Any) -> Callable[[Path, random.Random], None]:
    def write(path: Path, draw: random.Random) -> None:
        np.savez(path, **arrays)

    return write


def _npy(header: str, content: bytes = bytes(26 * 8)) -> Callable[[Path, random.Random], None]:
    """Write an archive whose only member, counts, has this header."""

    def write(path: Path, draw: random.Random) -> None:
        text = header.encode()
        text += b" " * (-(10 + len(text) + 1) % 64) + b"\n"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("counts.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content)

    return write


def _header(shape: str, kind: str = "<i8") -> str:
    return f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}"


class _RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("witness",)


def _bomb(path: Path, draw: random.Random) -> None:
    """An archive of a megabyte with a gigabyte of zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("counts.npy", "w") as member:
        header = _header("(134217728,)").encode()
        header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
        member.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        for _ in range(1024):
            member.write(bytes(1 << 20))
    path.write_bytes(file.getvalue())


_COUNTS: dict[str, Callable[[Path, random.Random], None]] = {
    "no counts": _npz(other=np.ones(26, np.int64)),
    "27 counts": _npz(counts=np.full(27, 9)),
    "a scalar": _npz(counts=np.int64(26)),
    "two dimensions": _npz(counts=np.full((26, 2), 9)),
    "zeros": _npz(counts=np.zeros(26, np.int64)),
    "negative": _npz(counts=np.full(26, -5)),
    "beyond 64 bits": _npz(counts=np.full(26, 1e30)),
    "not numbers": _npz(counts=np.full(26, np.nan)),
    "fractions": _npz(counts=np.full(26, 5000.5)),
    "complex": _npz(counts=np.full(26, 5000j)),
    "text": _npz(counts=np.full(26, "x")),
    "dates": _npz(counts=np.full(26, 5000, "datetime64[s]")),
    "objects": _npz(counts=np.array([_RunsCode()] * 26, object)),
    "records": _npz(counts=np.zeros(26, [("a", "<i8")])),
    "2 ** 50 rows each": _npz(counts=np.full(26, 2**50)),
    **{f"shape {shape}": _npy(_header(shape)) for shape in ("(-1,)", "(10**18,)", "(26, 10**15)", "(2**63,)", "26", "(27,)")},
    "longer than its shape": _npy(_header("(26,)"), b"\x09".ljust(8, b"\0") * 30),
    "a header of code": _npy("__import__('os').mkdir('witness')"),
    "a header of 60,000 brackets": _npy("(" * 60_000),
    "a million times compressed": _bomb,
}
_ROWS: dict[str, Callable[[Path, random.Random], None]] = {
    "no rows": _npz(X_int=np.zeros((0, 13)), X_cat=np.zeros((0, 26)), y=np.zeros(0), counts=np.full(26, 5000)),
    "other lengths": _npz(X_int=np.zeros((9, 13)), X_cat=np.zeros((8, 26)), y=np.zeros(7), counts=np.full(26, 5000)),
    "25 columns": _npz(X_int=np.zeros((9, 13)), X_cat=np.zeros((9, 25)), y=np.zeros(9), counts=np.full(26, 5000)),
    "labels of 2": _npz(X_int=np.zeros((9, 13)), X_cat=np.zeros((9, 26)), y=np.full(9, 2), counts=np.full(26, 5000)),
    "labels that are no numbers": _npz(
        X_int=np.zeros((9, 13)), X_cat=np.zeros((9, 26)), y=np.full(9, np.nan), counts=np.full(26, 5000)
    ),
    "ids beyond the counts": _npz(
        X_int=np.zeros((9, 13)), X_cat=np.full((9, 26), 5000), y=np.zeros(9), counts=np.full(26, 5000)
    ),
    "negative ids": _npz(
        X_int=np.zeros((9, 13)), X_cat=np.full((9, 26), -1), y=np.zeros(9), counts=np.full(26, 5000)
    ),
    "no arrays": _npz(),
}
_MALFORMED: dict[str, dict[str, Callable[[Path, random.Random], None]]] = {
    "train split": _NO_FILE,
    "manifest": {**_NO_FILE, **_JSON},
    "manifest, verified": {**_NO_FILE, **_JSON},
    "counts": {**_NO_FILE, **_COUNTS},
    "test split without a manifest": _NO_FILE,
    "archive of rows": {**_NO_FILE, **_ROWS},
    "text": _NO_FILE,
    "stack distances": _NO_FILE,
}
