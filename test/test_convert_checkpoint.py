"""dlrm-convert: from a checkpoint in a file to a sharded one and back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from program import ROOT, run_program
from sharded_folders import read_weights, save_file

from mlperf.training.checkpoint_file import open_checkpoint
from mlperf.training.convert_checkpoint import convert

TOOL = "tools/convert_checkpoint.py"


def test_tool_converts_in_both_directions_and_replaces_only_checkpoints(tmp_path: Path) -> None:
    save_file(tmp_path / "model.pt")
    (tmp_path / "notes").write_text("notes")
    for _ in range(2):
        run = run_program("model.pt", "sharded", cwd=tmp_path, program=TOOL)
        assert (run.status, run.stdout) == (0, "sharded: converted from model.pt\n")
        assert "model.pt: " in run.stderr
    run = run_program("sharded", "model.pt", cwd=tmp_path, program=TOOL)
    assert run.status == 0, run.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt", "notes", "sharded"]
    for source, result, status, words in (
        ("none", "x", 1, "none: no such file or folder"),
        ("model.pt", "notes", 2, "result notes is a file; a checkpoint in a file is converted to a folder"),
        ("sharded", "notes", 2, "result notes: exists and is not a checkpoint; name another file"),
        ("sharded", "sharded", 2, "result sharded is the same file as source sharded; name another file"),
        ("notes", "x", 1, "notes: damaged, or not a PyTorch checkpoint"),
        ("sharded", "none/x.pt", 2, "result none/x.pt: folder none does not exist"),
    ):
        run = run_program(source, result, cwd=tmp_path, program=TOOL)
        assert run.status == status
        assert run.stderr.startswith(f"convert_checkpoint.py: error: {words}")
        assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_damage_is_noticed_while_a_checkpoint_is_converted(kind: str, tmp_path: Path) -> None:
    save_file(tmp_path / "model.pt")
    convert(tmp_path / "model.pt", tmp_path / "sharded")
    source = tmp_path / "sharded" if kind == "folder" else tmp_path / "model.pt"
    damaged = source / "__0_0.distcp" if kind == "folder" else source
    with open_checkpoint(source) as file:
        expected = file.contents["state_dict"].keys()
    assert expected
    content = bytearray(damaged.read_bytes())
    place = bytes(content).find(read_weights(source)["emb_l.0.weight"].numpy().tobytes()[:16])
    content[place] ^= 1
    damaged.write_bytes(content)
    result = tmp_path / "result"
    run = run_program(str(source), str(result), cwd=tmp_path, program=TOOL)
    assert run.status == 1
    assert "do not have their CRC-32" in run.stderr
    assert not result.exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


# Prints by how much the conversions raise the peak of the resident memory, in bytes.
_PEAK = """
import resource, sys
from pathlib import Path
import torch
from mlperf.training.checkpoint_file import open_checkpoint, write_checkpoint
from mlperf.training.convert_checkpoint import convert
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def both(name):
    convert(Path(f"{name}.pt"), Path(name))
    convert(Path(name), Path(f"{name}_again.pt"))
    with open(f"{name}.pt", "rb") as one, open(f"{name}_again.pt", "rb") as other:
        while block := one.read(1 << 20):
            assert block == other.read(1 << 20)
if sys.argv[1] == "make":
    write_checkpoint(Path("small.pt"), {"state_dict": {"a": torch.ones(1000, 10)}})
    block = torch.arange(8_000_000, dtype=torch.float32).view(-1, 16)
    tables = {f"emb_l.{number}.weight": block[number::10] for number in range(40)}  # 3.2 MB each
    write_checkpoint(Path("large.pt"), {"state_dict": {"emb_l.40.weight": block, **tables}})
else:
    both("small")
    before = peak()
    both("large")
    print(peak() - before)
    with open_checkpoint(Path("large")) as file:
        found = file.contents["state_dict"]
        targets = {name: torch.ones(value.shape) for name, value in found.items()}
        before = peak()
        file.fill((targets[name], value) for name, value in found.items())
        file.verify()
    print(peak() - before)
"""


def test_conversion_needs_memory_for_the_largest_table_and_loading_for_no_second_copy(tmp_path: Path) -> None:
    for step in ("make", "convert"):
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, step],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "large.pt").stat().st_size > 32e6 + 40 * 3e6
    converted, loaded = map(int, done.stdout.split())
    blocks = 30e6  # of the threads
    assert converted < 32e6 + blocks  # the largest table
    assert loaded < blocks
