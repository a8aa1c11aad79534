"""Text from files in messages: short, in one line and without control characters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_logs import Entry, foreign_entries, foreign_results, unchanged, write_log
from program import Finished, run_program

from mlperf.util.printable import one_line, shown, shown_name, without_controls

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b\u202e$\\frac{$"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *(
            (3, "3"),
            (True, "True"),
            (0.5, "0.5"),
            (None, "None"),
            ("a\nb\x1b", r"'a\nb\x1b'"),
            (b"\xff", r"b'\xff'"),
        ),
        *((np.float64(0.5), "0.5"), (np.int64(-3), "-3"), (np.bool_(True), "True"), ({"a": [1]}, "{'a': [1]}")),
        (torch.zeros(3, 4), "a Tensor of float32 and shape [3, 4]"),
        (torch.tensor(1), "a Tensor of int64 and shape []"),
        (np.zeros(3), "a ndarray of float64 and shape [3]"),
        (10**10_000, "a number of 33220 bits"),
        ("x" * 1_000_000, "'" + "x" * 56 + "..."),
        ([torch.zeros(2, 2)], "[tensor([[0., 0.],\\n        [0., 0.]])]"),
    ],
    ids=range(16),
)
def test_values_are_shown_short_and_in_one_line(value: object, text: str) -> None:
    assert shown(value) == text


def test_names_are_shown_as_they_are_but_for_control_characters_and_length() -> None:
    assert shown_name("emb_l.0.weight") == "emb_l.0.weight"
    assert shown_name("Größe") == "Größe"
    assert shown_name(b"a\xff\n") == "a\N{REPLACEMENT CHARACTER}\\n"
    assert shown_name("\ud800\x1b\u202e") == r"\ud800\x1b\u202e"
    assert shown_name("x" * 1_000_000) == "x" * 77 + "..."


def test_lines_keep_their_layout_and_lose_their_control_characters() -> None:
    assert without_controls("a\n\tb\x1b[2J\r\x9b\u202eé") == "a\n\tb\\x1b[2J\\r\\x9b\\u202eé"
    assert one_line("a\nb\x7f") == r"a\nb\x7f"


def hostile(entries: list[Entry]) -> list[Entry]:
    """Put text that controls a terminal into the texts of a log, except the names of benchmark and division."""
    return [
        (key, HOSTILE if key in ("submission_org", "submission_platform") else value, about, time)
        for key, value, about, time in entries
    ]


def assert_printed_safely(run: Finished) -> None:
    assert "Traceback" not in run.stderr
    for line in (run.stdout + run.stderr).splitlines():
        assert line.isprintable(), line


@pytest.mark.parametrize("program", ["tools/check_submission.py", "tools/plot_run.py", "tools/report.py"])
def test_texts_of_a_log_do_not_control_the_terminal(program: str, tmp_path: Path) -> None:
    foreign_results(tmp_path / "results", "1.0.0", unchanged)
    other = tmp_path / "other"
    other.mkdir()
    write_log(other / "result_0.txt", hostile(foreign_entries(1, edition="1.0.0")))
    paths = ["other/result_0.txt", "--edition=1.0.0"] if "check" in program else ["results", "other/result_0.txt"]
    run = run_program(*paths, cwd=tmp_path, program=program)
    assert_printed_safely(run)
    if "check" not in program:
        assert run.status == 0, run.stderr
