"""Compare the logs of a result with its system description."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mlperf.compliance.findings import Finding
from mlperf.compliance.log_reader import Event, Log, as_text
from mlperf.submission.results import Result

_NODES = re.compile(r"([0-9]{1,9})x(.+)")  # submission_platform is often "<nodes>x<name>"
_COUNT = re.compile(r"([0-9]{1,9})")
_AVAILABLE = ("available", "cloud", "onprem")  # the first says neither of the others


def description_differences(result: Result, logs: Sequence[Log]) -> tuple[list[Finding], list[Finding]]:
    """Return contradictions, which fail, and other differences between the logs and the system description.

    A log of the open division follows other rules, so it cannot belong to a closed result. If the description says
    open, the official checkers apply the rules of the open division to logs of the closed division too.
    """
    content = result.described()
    contradictions: list[Finding] = []
    differences: list[Finding] = []
    submitter = str(content.get("submitter", ""))
    for key, field, same in (
        ("submission_division", "division", _same_name),
        ("submission_org", "submitter", _same_name),
        ("submission_status", "status", _same_status),
        ("submission_platform", "system_name", partial(_same_platform, submitter)),
    ):
        expected = content.get(field)
        entries = [(log, event) for log in logs for event in _first(log, key)]
        different = [(log, event) for log, event in entries if not same(str(event.value), str(expected))]
        if not isinstance(expected, str) or not expected or not different:
            continue
        log, event = different[0]
        count = f" (in {len(different)} of {len(logs)} logs)" if len(logs) > 1 else ""
        text = f"{key} is {as_text(event.value)}{count}, {field} in {result.description} is {as_text(expected)}"
        if field == "division" and expected == "open":
            text += ": judged as open, without seeds and convergence"
        finding = Finding(log.path, event.line, text)
        (contradictions if field == "division" and expected == "closed" else differences).append(finding)
    differences += _different_nodes(content, result.description, logs)
    return contradictions, differences


def _first(log: Log, key: str) -> list[Event]:
    return [event for event in log.all(key) if event.value not in (None, "")][:1]


def _different_nodes(content: dict[str, Any], file: Path, logs: Sequence[Log]) -> Iterator[Finding]:
    """Yield the first log that states another number of nodes or accelerators, for each key that states one."""
    for key, field, form in (
        ("submission_platform", "number_of_nodes", _NODES),
        ("number_of_nodes", "number_of_nodes", _COUNT),
        ("accelerators_per_node", "accelerators_per_node", _COUNT),
    ):
        expected = str(content.get(field, ""))
        if not _COUNT.fullmatch(expected):
            continue
        stated = [(log, event, form.fullmatch(str(event.value))) for log in logs for event in _first(log, key)]
        others = [(log, event) for log, event, match in stated if match and int(match[1]) != int(expected)]
        for log, event in others[:1]:
            text = f"{key} is {as_text(event.value)}, {field} in {file} is {expected}"
            yield Finding(log.path, event.line, text)


def _plain(text: str) -> str:
    return "".join(char for char in text.casefold() if char.isalnum())


def _same_name(logged: str, described: str) -> bool:
    return _plain(logged) == _plain(described)


def _same_platform(submitter: str, logged: str, described: str) -> bool:
    """Return whether one name contains the other, without the number of nodes and the submitter."""
    match = _NODES.fullmatch(logged)
    names = [_plain(logged if match is None else match[2]), _plain(described)]
    name, other = (name.replace(_plain(submitter), "") or name for name in names)
    return bool(name) and (name in other or other in name)


def _same_status(logged: str, described: str) -> bool:
    status, other = _status(logged), _status(described)
    return status == other or (_AVAILABLE[0] in (status, other) and {status, other} <= set(_AVAILABLE))


def _status(text: str) -> str:
    """Return the value of submission_status for a status in the words of a description."""
    plain = _plain(text)
    parts = {"prem": "onprem", "cloud": "cloud", "preview": "preview", "research": "research", "rdi": "research"}
    return next((status for part, status in parts.items() if part in plain), plain)
