"""Recognition of files that are not logs of the benchmark: empty, binary, JSON, text, or another log."""

from __future__ import annotations

import json
import re
from pathlib import Path

from mlperf.compliance.log_reader import TOKEN, Event, Log, as_text
from mlperf.util.plural import counted

NO_LOG, OTHER_LOG = "not an MLPerf log", "the log is of "  # in messages about such files
_HEAD = 65_536  # bytes that decide what a file without events is
_MAX_JSON = 64 * 2**20  # bytes; larger files are not parsed
_FORMATS = {
    b"\xff\xfe": "UTF-16 text, must be UTF-8",
    b"\xfe\xff": "UTF-16 text, must be UTF-8",
    b"\x1f\x8b": "gzip data",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ": "xz data",
    b"\x28\xb5\x2f\xfd": "zstd data",
    b"PK\x03\x04": "a ZIP archive",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG image",
    b"\x93NUMPY": "a NumPy array",
}
_PLAIN_CONTROLS = b"\t\n\v\f\r\b\x1b"  # control characters that console output contains
_OLD_TOKEN = re.compile(rb":::MLP(?:erf)?v([\d.]+)")  # logs of editions 0.5 and 0.6


def other_content(log: Log) -> str | None:
    """Return the kind of a file without readable events, None if it has events. OSError if it cannot be read."""
    if log.events:
        return None
    with log.path.open("rb") as file:
        head = file.read(_HEAD)
    return _kind(log, head)


def other_benchmark(log: Log, *names: str) -> tuple[Event, str] | None:
    """Return the event that shows that a log is of none of the benchmarks, with the description; else None."""
    named, others = log.all("submission_benchmark"), other_names(log, *names)
    if named and len(others) == len(named):
        return others[0]
    if not named and (event := next((e for e in log.events if e.key.startswith("loadgen_")), None)) is not None:
        return event, f"{OTHER_LOG}MLPerf Inference, not of {' or '.join(names)}"
    return None


def other_names(log: Log, *names: str) -> list[tuple[Event, str]]:
    """Return the events that name another benchmark than `names`, with a description of each."""
    others = [event for event in log.all("submission_benchmark") if event.value not in names]
    return [(event, f"{OTHER_LOG}{as_text(event.value)}, not of {' or '.join(names)}") for event in others]


def _kind(log: Log, head: bytes) -> str:
    if not head.strip():
        return "the file is blank" if head else "the file is empty"
    for start, name in _FORMATS.items():
        if head.startswith(start):
            return name
    if _is_binary(head):
        return "binary data"
    if log.damaged:
        lines = counted(len(log.damaged), "line")
        return (
            f"no MLPerf event can be read: {lines} with {TOKEN.strip()}, none with valid JSON and all its fields"
        )
    if (match := _OLD_TOKEN.search(head)) is not None:
        return f"a log of MLPerf {match[1].decode().strip('.')}: {match[0].decode()} instead of {TOKEN.strip()}"
    return _json_kind(log.path, head) or f"text without a line with {TOKEN.strip()}"


def _is_binary(head: bytes) -> bool:
    """Return whether bytes look like no text in UTF-8 or Latin-1: NULs or many control characters."""
    controls = sum(byte < 32 and byte not in _PLAIN_CONTROLS for byte in head)
    return b"\0" in head or controls > len(head) // 20


def _json_kind(path: Path, head: bytes) -> str | None:
    if head.lstrip()[:1] not in (b"{", b"[") or path.stat().st_size > _MAX_JSON:
        return None
    content = path.read_bytes()
    if _is_json(content):
        return "a JSON file"
    first = content.lstrip().partition(b"\n")[0]
    return f"JSON lines without {TOKEN.strip()}" if _is_json(first) else None


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True
