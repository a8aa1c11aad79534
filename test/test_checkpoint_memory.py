"""Checkpoints are written and read through small blocks of host memory, on any device and in any precision."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from checkpoint_files import flipped, is_same
from program import ROOT, same_signal_handlers
from remote_tensors import RemoteTensor

from mlperf.training.checkpoint_archive import read_archive, record_digest
from mlperf.training.checkpoint_file import open_checkpoint, read_checkpoint, write_checkpoint
from mlperf.training.zip_headers import NewRecord, directory
from mlperf.util.errors import RunError
from mlperf.util.program import run_program

MAX_COPY = 4 << 20  # bytes
PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)


def tables() -> dict[str, torch.Tensor]:
    """Return tables of several blocks that are views of one, and tensors that need a copy to be written."""
    generator = torch.Generator().manual_seed(5)
    block = torch.randn(40_000, 100, generator=generator)
    return {
        **{f"emb_l.{number}.weight": table for number, table in enumerate(block.split([25_000, 1, 14_999]))},
        "half": block[:30_000].bfloat16(),
        "columns": block[:, 3:60],
        "transposed": block[:200].T,
        "long row": block.view(1, 2, -1)[:, :, ::2],
        "empty": block[:0],
        "scalar": torch.tensor(3.0),
        "one element of an expanded tensor": torch.ones(1).expand(5)[:1],
        "one of two elements": torch.ones(2)[::2],
    }


def remote(tensors: dict[str, torch.Tensor], copies: list[int]) -> dict[str, torch.Tensor]:
    return {name: RemoteTensor(tensor, copies.append) for name, tensor in tensors.items()}


def test_tensors_of_a_device_are_written_block_by_block_and_as_if_they_were_on_the_cpu(tmp_path: Path) -> None:
    copies: list[int] = []
    write_checkpoint(tmp_path / "remote.pt", {"state_dict": remote(tables(), copies)})
    write_checkpoint(tmp_path / "local.pt", {"state_dict": tables()})
    assert max(copies) <= MAX_COPY
    assert sum(copies) == sum(tensor.nbytes for tensor in tables().values())
    assert (tmp_path / "remote.pt").read_bytes() == (tmp_path / "local.pt").read_bytes()
    for mmap in (True, False):
        found = torch.load(tmp_path / "remote.pt", weights_only=True, mmap=mmap)["state_dict"]
        assert is_same(found, tables())


def test_tensors_of_a_device_are_filled_block_by_block(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model.pt", {"state_dict": tables()})
    targets = {name: torch.zeros_like(tensor) for name, tensor in tables().items()}
    targets["columns"] = torch.zeros(57, 40_000).T  # not contiguous
    copies: list[int] = []
    with open_checkpoint(tmp_path / "model.pt") as file:
        sources = file.contents["state_dict"]
        file.fill((target, sources[name]) for name, target in remote(targets, copies).items())
        file.verify()
    assert max(copies) <= MAX_COPY
    assert is_same(targets, tables())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="saves tensors of a GPU: no GPU found")
def test_checkpoint_of_a_gpu_is_that_of_the_cpu_and_is_loaded_to_both(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "gpu.pt", {"state_dict": {name: one.cuda() for name, one in tables().items()}})
    write_checkpoint(tmp_path / "cpu.pt", {"state_dict": tables()})
    assert (tmp_path / "gpu.pt").read_bytes() == (tmp_path / "cpu.pt").read_bytes()
    for device in ("cuda", "cpu"):
        targets = {name: torch.zeros_like(tensor, device=device) for name, tensor in tables().items()}
        with open_checkpoint(tmp_path / "gpu.pt") as file:
            file.fill((target, file.contents["state_dict"][name]) for name, target in targets.items())
            file.verify()
        assert is_same({name: target.cpu() for name, target in targets.items()}, tables())


# Prints by how much saving and loading raise the peak of the resident memory, in bytes.
_PEAK = """
import resource, sys
from pathlib import Path
import torch
from mlperf.training.checkpoint_file import open_checkpoint, write_checkpoint
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def exchange(path, tables, targets):
    write_checkpoint(path, {"state_dict": tables})
    with open_checkpoint(path) as file:
        file.fill((targets[name], file.contents["state_dict"][name]) for name in tables)
        file.verify()
path = Path("model.pt")
exchange(path, {"small": torch.ones(2_000_000)[::2]}, {"small": torch.zeros(1_000_000)})
block = torch.ones(3_000_000, 10)
tables = {"a": block[:1_000_000], "columns": block[:, :9]}
targets = {"a": torch.ones(1_000_000, 10, dtype=torch.bfloat16), "columns": torch.ones(3_000_000, 9)}
before = peak()
exchange(path, tables, targets)
print(peak() - before)
"""


def test_saving_and_loading_a_model_need_little_memory_beside_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PEAK],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 40e6


def test_equal_contents_give_equal_files(tmp_path: Path) -> None:
    for name in ("a.pt", "b.pt"):
        write_checkpoint(tmp_path / name, {"state_dict": tables(), "iter": 5})
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_contents_begin_at_multiples_of_64_bytes_and_tensors_share_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    write_checkpoint(path, {"state_dict": tables()})
    with path.open("rb") as file:
        records = read_archive(file.fileno()).records
    assert all(record.offset % 64 == 0 for record in records.values())
    sizes = [records[f"data/{number}"].size for number in range(len(tables()))]
    assert sizes == [tensor.nbytes for tensor in tables().values()]


def test_layouts_that_a_checkpoint_cannot_contain_are_not_written(tmp_path: Path) -> None:
    for tensor in (torch.eye(3).to_sparse(), torch.ones(3, device="meta"), torch.ones(3).to(torch.float8_e5m2)):
        with pytest.raises(TypeError, match="a checkpoint cannot contain"):
            write_checkpoint(tmp_path / "model.pt", {"state_dict": {"a": tensor}})
    assert list(tmp_path.iterdir()) == []


def test_negated_complex_and_shared_tensors_are_written_by_value(tmp_path: Path) -> None:
    tensor = torch.randn(30)
    contents = {"negated": torch._neg_view(tensor), "conjugate": torch.randn(9, dtype=torch.complex64).conj()}
    contents |= {"parameter": torch.nn.Parameter(tensor), "again": tensor, "bool": tensor > 0}
    write_checkpoint(tmp_path / "model.pt", {"state_dict": contents})
    found = torch.load(tmp_path / "model.pt", weights_only=True)["state_dict"]
    assert all(torch.equal(found[name], contents[name]) for name in contents)
    assert not found["parameter"].requires_grad


@pytest.mark.parametrize("saved", PRECISIONS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_tables_are_converted_to_the_nearest_value_while_they_are_filled(
    saved: torch.dtype, precision: torch.dtype, tmp_path: Path
) -> None:
    sources = {name: tensor.to(saved) for name, tensor in tables().items()}
    sources["special"] = torch.tensor([0.0, -0.0, torch.inf, torch.nan, 1 + 2**-8, 1e-8]).repeat(100).to(saved)
    write_checkpoint(tmp_path / "model.pt", {"state_dict": sources})
    targets = {name: torch.full(tensor.shape, 7, dtype=precision) for name, tensor in sources.items()}
    copies: list[int] = []
    with open_checkpoint(tmp_path / "model.pt") as file:
        found = file.contents["state_dict"]
        pairs = [(RemoteTensor(target, copies.append), found[name]) for name, target in targets.items()]
        file.fill(pairs[::2])
        file.fill((target, found[name]) for name, target in list(targets.items())[1::2])
        file.verify()
    assert max(copies) <= MAX_COPY * max(1, precision.itemsize // saved.itemsize)
    for name, target in targets.items():
        torch.testing.assert_close(target, sources[name].to(precision), rtol=0, atol=0, equal_nan=True)


def test_damage_is_noticed_in_a_table_that_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    write_checkpoint(path, {"state_dict": {"a": torch.zeros(3_000_000)}})
    content = path.read_bytes()
    path.write_bytes(flipped(content, 4 * len(content)))
    target = torch.empty(3_000_000, dtype=torch.bfloat16)
    with open_checkpoint(path) as file, pytest.raises(RunError, match="do not have their CRC-32"):
        file.fill([(target, file.contents["state_dict"]["a"])])


def test_records_and_offsets_of_more_than_4_gigabytes_are_found(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    write_checkpoint(path, {"state_dict": {"a": torch.ones(3), "b": torch.ones(3)}})
    pickled = (
        zipfile.ZipFile(path).read("archive/data.pkl").replace(b"K\3", b"\x8a\5" + (5 << 28).to_bytes(5, "little"))
    )
    records: list[NewRecord] = []
    sizes = {"data.pkl": len(pickled), "data/0": 5 << 30, "data/1": 5 << 30, "version": 2}
    for name, size in sizes.items():
        records.append(NewRecord(f"archive/{name}", size, records[-1].end if records else 0))
    with path.open("w+b") as file:  # most of it is a hole
        for record in records:
            os.pwrite(file.fileno(), record.header(), record.start)
        os.pwrite(file.fileno(), pickled, records[0].offset)
        os.pwrite(file.fileno(), b"\1", records[2].end - 1)
        os.pwrite(file.fileno(), b"3\n", records[3].offset)
        os.pwrite(file.fileno(), directory(records), records[-1].end)
        record_digest(file.fileno())
        found = read_archive(file.fileno())
    assert {name: (record.size, record.offset) for name, record in found.records.items()} == {
        name: (record.size, record.offset) for name, record in zip(sizes, records, strict=True)
    }
    assert [info.file_size for info in zipfile.ZipFile(path).infolist()] == list(sizes.values())
    last = torch.load(path, weights_only=True, mmap=True)["state_dict"]["b"]
    assert last.view(torch.uint8)[-4:].tolist() == [0, 0, 0, 1]


@contextmanager
def older_checkpoint(path: Path) -> Iterator[None]:
    """Save a checkpoint, and check in the end that nothing else is there."""
    write_checkpoint(path, {"state_dict": {"a": torch.ones(5)}})
    yield
    assert read_checkpoint(path)["state_dict"]["a"].tolist() == [1] * 5
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_writing_of_a_large_tensor_at_once(number: signal.Signals, tmp_path: Path) -> None:
    copies: list[int] = []

    def note(size: int) -> None:
        copies.append(size)
        if len(copies) == 3:
            os.kill(os.getpid(), number)

    def work() -> int:
        table = torch.zeros(1).expand(1 << 32)  # 16 GB, if all of it were written
        write_checkpoint(tmp_path / "model.pt", {"state_dict": {"a": RemoteTensor(table, note)}})
        return 0

    with older_checkpoint(tmp_path / "model.pt"), same_signal_handlers():
        assert run_program("x.py", work) == 128 + number
    assert len(copies) < 100


def test_full_disk_ends_the_writing_of_a_large_tensor_at_once(tmp_path: Path) -> None:
    copies: list[int] = []
    table = RemoteTensor(torch.zeros(1).expand(1 << 32), copies.append)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with older_checkpoint(tmp_path / "model.pt"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, limits[1]))
        try:
            with pytest.raises(RunError, match=r"model.pt: the checkpoint cannot be written: .*File too large"):
                write_checkpoint(tmp_path / "model.pt", {"state_dict": {"a": table}})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(copies) < 30
