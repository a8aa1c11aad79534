"""Convert the files written by a program to named facts, which `compare_commits.py` compares for equality."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

_TOKEN = ":::MLLOG "
# Different in every run: where and when an event was logged, when a file was written.
_MASKED_METADATA = ("file", "lineno")
_MASKED_FIELDS = ("mtime_ns", "manifest_crc32")


@dataclass
class ComparedFacts:
    """Facts of a file.

    facts: facts by name, each a number, a string or a list of lines.
    events, numbers: how many log events and numbers the facts cover.
    """

    facts: dict[str, object] = field(default_factory=dict)
    events: int = 0
    numbers: int = 0


def facts_of_file(path: Path) -> ComparedFacts:
    """Return the facts of a compliance log, checkpoint, archive, manifest or any other file."""
    if path.suffix == ".log":
        events = [_event(line) for line in path.read_text().splitlines() if line.startswith(_TOKEN)]
        return ComparedFacts({f"log {path.name}": events}, events=len(events))
    if path.suffix == ".pt":
        content = torch.load(path, map_location="cpu", weights_only=True)
        return _flat(f"checkpoint {path.name}", content)
    if path.suffix == ".npz":
        with np.load(path) as archive:
            return _flat(f"archive {path.name}", {name: archive[name] for name in archive.files})
    if path.suffix == ".json":
        return _flat(f"json {path.name}", json.loads(path.read_text()))
    content = path.read_bytes()
    return ComparedFacts({f"file {path.name}": _digest(content)}, numbers=len(content) // 4)


def _event(line: str) -> str:
    event = json.loads(line.removeprefix(_TOKEN))
    metadata = {name: value for name, value in event["metadata"].items() if name not in _MASKED_METADATA}
    return json.dumps([event["event_type"], event["key"], event["value"], metadata])


def _flat(name: str, content: object) -> ComparedFacts:
    found = ComparedFacts()
    for key, value in _leaves(name, content):
        if isinstance(value, np.ndarray):
            array = np.ascontiguousarray(value)
            found.facts[key] = f"{array.dtype} {array.shape} {_digest(array.tobytes())}"
            found.numbers += array.size
        else:
            found.facts[key] = repr(value)
            found.numbers += 1
    return found


def _leaves(name: str, content: object) -> Iterator[tuple[str, object]]:
    """Yield the values in nested dictionaries and lists with their paths; tensors as arrays."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key not in _MASKED_FIELDS:
                yield from _leaves(f"{name}/{key}", value)
    elif isinstance(content, list | tuple):
        for number, value in enumerate(content):
            yield from _leaves(f"{name}/{number}", value)
    elif isinstance(content, torch.Tensor):
        yield name, content.numpy()
    else:
        yield name, content


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
