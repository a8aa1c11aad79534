"""The oracle of the attack notices what it is there for."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hostile.oracle import (
    PEAK_BYTES,
    Outcome,
    changes,
    fingerprint,
    memory_failure,
    message_failure,
    program_failure,
    snapshot,
)
from hostile.pool import Case, Failed, Server, run_cases, running_servers

REFUSED = Outcome(
    status=1,
    timed_out=False,
    peak_bytes=0,
    left=False,
    stdout="",
    stderr="engine: cpu\nx.py: error: model.pt: truncated\n",
    result={},
)


def test_fingerprint_tells_every_bit_type_shape_and_order() -> None:
    zeros = torch.zeros(2, 3)
    one_bit = zeros.view(torch.int32).clone()
    one_bit[1, 2] = 1
    values = [
        *(zeros, one_bit.view(torch.float32), -zeros, zeros.double(), zeros.view(torch.int32), zeros.view(3, 2)),
        *({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1}, [1, 2], [[1], 2], 1, 1.0, True, "1", None, 0.0, -0.0),
    ]
    assert len({fingerprint(value) for value in values}) == len(values)
    assert fingerprint({"a": zeros}) == fingerprint({"a": torch.zeros(3, 2).t().contiguous()})


def test_refusal_in_one_line_is_no_failure() -> None:
    assert program_failure(REFUSED) is None
    assert program_failure(replace(REFUSED, status=0, stderr="")) is None


@pytest.mark.parametrize(
    "wrong",
    [
        *({"timed_out": True}, {"left": True}, {"status": -11}, {"status": 0}, {"status": 3}, {"stderr": ""}),
        {"stderr": 2 * REFUSED.stderr},
        {"stderr": "Traceback (most recent call last):\n  File\nKeyError: 'x'\n"},
        {"stderr": REFUSED.stderr.replace("model", "\x1b[2J")},
        {"stderr": REFUSED.stderr + "and something else\n"},
        {"stderr": REFUSED.stderr.replace("model", "x" * 10_000)},
        {"stderr": "a\n" * 100 + REFUSED.stderr},
    ],
    ids=str,
)
def test_every_other_end_is_a_failure(wrong: dict[str, object]) -> None:
    assert program_failure(replace(REFUSED, **wrong)) is not None  # type: ignore[arg-type]


def test_messages_and_memory_have_limits() -> None:
    assert message_failure("one line") is None
    assert message_failure("two\nlines") is not None
    assert memory_failure(replace(REFUSED, peak_bytes=PEAK_BYTES), 0) is None
    assert memory_failure(replace(REFUSED, peak_bytes=PEAK_BYTES + 2), 1) is not None


def test_snapshot_tells_content_mode_links_and_new_files(tmp_path: Path) -> None:
    for name in ("same", "content", "mode", "replaced", "removed", "link"):
        (tmp_path / name).write_text("x")
    before = snapshot(tmp_path)
    (tmp_path / "content").write_text("y")
    (tmp_path / "mode").chmod(0o600)
    (tmp_path / "copy").write_text("x")
    os.replace(tmp_path / "copy", tmp_path / "replaced")
    (tmp_path / "removed").unlink()
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("same")
    (tmp_path / "new").mkdir()
    found = changes(before, snapshot(tmp_path))
    assert found == ["content", "link", "mode", "new", "removed", "replaced"]


def test_server_reports_failures_hanging_programs_and_goes_on(tmp_path: Path) -> None:
    def hang(server: Server, folder: Path) -> str:
        server.start("program", folder, program="x.py", flags=[])  # no such program
        unknown = server.wait()
        assert "KeyError: 'x.py'" in unknown.traceback
        server.start("sleep", folder, seconds=60)
        assert server.wait(0.1).timed_out
        raise Failed("as it should")

    with running_servers(tmp_path, 1) as servers:
        verdicts = run_cases(
            [Case("a", "b", hang), Case("a", "c", lambda server, folder: "passed")], tmp_path, servers
        )
    assert [(verdict.verdict, verdict.failure) for verdict in verdicts] == [("", "as it should"), ("passed", None)]
    assert [path.name for path in tmp_path.glob("case-*")] == []
