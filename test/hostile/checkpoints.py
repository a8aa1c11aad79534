"""Damaged checkpoints: each must be refused in one line, or give exactly what the undamaged one gives."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import torch

from hostile.damage import EVERY_FORMAT, RECORDS_EXCHANGED, REPACKED, Damage, header_field
from hostile.materials import MODELS, Checkpoint, golden_checkpoint, legacy, own_checkpoint, prepared_data
from hostile.oracle import Outcome, fingerprint, memory_failure, message_failure, program_failure
from hostile.pool import IDENTICAL, REFUSED, UNCHECKED, Case, Failed, Server

LOADED = ("weights", "optimizer", "state")  # fingerprints that `use_checkpoint` records


def cases(count: int, seed: int, folder: Path, server: Server) -> Iterator[Case]:
    """Yield `count` cases. Undamaged files and what they give are prepared in `folder`."""
    data = prepared_data(folder, server)
    files = [own_checkpoint(name, folder, data, server) for name in MODELS]
    files.append(golden_checkpoint(data))
    files += [legacy(file, folder) for file in (files[0], files[-1])]
    expected = {file.name: undamaged(file, folder, server) for file in files}
    for number in range(count):
        draw = random.Random(f"{seed}/{number}")
        file = files[number % len(files)]
        damage = draw.choice(_damages(file))
        name = f"{number}: {file.name}, {damage.__name__.replace('_', ' ')}"
        yield Case(_kind(file), name, partial(_attack, file, damage, draw, expected[file.name]))


def _kind(file: Checkpoint) -> str:
    if not file.is_zip:
        return "damaged checkpoint in the older format"
    return f"damaged checkpoint{'' if file.has_digest else ' of the original implementation'}"


def _damages(file: Checkpoint) -> tuple[Damage, ...]:
    if not file.is_zip:
        return EVERY_FORMAT
    # Bit flips and fields of headers are drawn more often: most of what can go wrong is there.
    found = (*EVERY_FORMAT, *EVERY_FORMAT[:2] * 4, *(header_field,) * 6, *REPACKED)
    return (*found, *RECORDS_EXCHANGED) if file.has_digest else found


def undamaged(file: Checkpoint, folder: Path, server: Server) -> Outcome:
    """Return what an undamaged file gives, after comparing it with PyTorch's own reader."""
    outcome = use_checkpoint(file, file.path, folder, server)
    contents = torch.load(file.path, weights_only=False)
    assert outcome.status == 0, outcome.stderr
    assert outcome.result.get("weights") == fingerprint(contents["state_dict"]), outcome.result
    assert outcome.result["code"] == [], outcome.result
    return outcome


def use_checkpoint(file: Checkpoint, path: Path, folder: Path, server: Server) -> Outcome:
    """Evaluate the checkpoint at `path` like `file`, and record what is loaded to resume from it."""
    server.start("checkpoint", folder, path=str(path), flags=list(file.flags))
    return server.wait()


def _attack(
    file: Checkpoint, damage: Damage, draw: random.Random, expected: Outcome, server: Server, folder: Path
) -> str:
    return attack_with(file, damage(file.content, file.other.read_bytes(), draw), expected, server, folder)


def attack_with(file: Checkpoint, content: bytes, expected: Outcome, server: Server, folder: Path) -> str:
    """Let the trainer read `content` in place of `file`; return the verdict. expected: what `file` gives."""
    path = folder / "model.pt"
    path.write_bytes(content)
    outcome = use_checkpoint(file, path, folder, server)
    failure = program_failure(outcome, statuses=(1,)) or memory_failure(outcome, expected.peak_bytes)
    if failure:
        raise Failed(failure)
    if outcome.result.get("code"):
        raise Failed(f"runs code: {outcome.result['code']}")
    if [found.name for found in folder.iterdir()] != ["model.pt"] or path.read_bytes() != content:
        raise Failed("the program changed the folder")
    resumed = "error" not in outcome.result
    if failure := message_failure(outcome.result.get("error", "")):
        raise Failed(f"resuming: {failure}")
    differing = [name for name in LOADED if resumed and outcome.result[name] != expected.result[name]]
    if outcome.status == 0 and outcome.stdout != expected.stdout:
        differing.append("metrics")
    if differing and not _without_checksums(file, content):
        raise Failed(f"accepted with other {', '.join(differing)}: {outcome.stdout.splitlines()[-1:]}")
    if differing:
        return UNCHECKED
    return REFUSED if outcome.status and not resumed else IDENTICAL


@cache
def _size(path: Path) -> int:
    return path.stat().st_size


def _without_checksums(file: Checkpoint, content: bytes) -> bool:
    """Whether nothing in the file can tell its damage: the older format has only its length."""
    return not file.is_zip and len(content) == _size(file.path)
